"""Schema of a data set: the keys of `config/dataset/*.yaml`. No torch in here."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from geo_seg.config.fields import key


@dataclass
class SplitConfig:
    """Assignment of scenes to training, validation and test.

    Attributes:
        by: "fraction", "pattern", "list", "manifest" (its column split) or "blocks" (parts of every scene).
        train: pattern: globs over the images' paths below root (null: all remaining); list: a text file below
            root with one image per line. An error otherwise: with fraction, train gets the rest.
        val: fraction: share of the scenes; blocks: share of the area; pattern and list: as train.
        test: as val; null for none.
        group: a regular expression with one group; scenes for which it captures the same text of the image's
            path are at the same location and stay together in a split by fraction.
        table: a CSV below root whose first column holds the images' names without suffix ...
        column: ... and its column whose value is the same for scenes that stay together.
        block: blocks: approximate side of a block: every scene is divided into equal parts.
        balance: blocks: whether to draw blocks so that every split has labels of every class, where possible,
            and about its share of them; false draws them regardless of labels.
        buffer: minimum distance of training windows to every pixel of val and test, whatever the split; a
            split that violates it is an error.
        unit: of block and buffer: "pixels" or "metres".
    """

    by: str = key(
        "fraction", choices=("fraction", "pattern", "list", "manifest", "blocks"), in_fingerprint=True
    )
    train: Any = key(None, in_fingerprint=True)
    val: Any = key(None, in_fingerprint=True)
    test: Any = key(None, in_fingerprint=True)
    group: str | None = key(None, in_fingerprint=True)
    table: str | None = key(None, in_fingerprint=True)
    column: str | None = key(None, in_fingerprint=True)
    block: float | None = key(None, above=0, in_fingerprint=True)
    balance: bool = key(True, in_fingerprint=True)
    buffer: float = key(0.0, at_least=0, in_fingerprint=True)
    unit: str = key("pixels", choices=("pixels", "metres"), in_fingerprint=True)


@dataclass
class LabelConfig:
    """Resampling and rasterization of labels onto the grid of the image.

    Attributes:
        align: "error", or "reproject": label rasters on another grid or in another CRS are resampled with
            nearest neighbour.
        layer: of vector files; null for the only one.
        attribute: of the polygons; its values are the class table's values (empty and null are ""). Null
            gives every polygon the value 1.
        uncovered: the class of pixels that no polygon covers, or "ignore".
        order: which of overlapping polygons is on top: "file" (the later one in the file) or "class" (the
            one of the later class in the table). A hole shows what lies below.
        all_touched: whether a polygon gets every pixel that it touches, not only those whose centre is in it.
    """

    align: str = key("error", choices=("error", "reproject"), in_fingerprint=True)
    layer: str | None = key(None, in_fingerprint=True)
    attribute: str | None = key(None, in_fingerprint=True)
    uncovered: str = key("ignore", in_fingerprint=True)
    order: str = key("file", choices=("file", "class"), in_fingerprint=True)
    all_touched: bool = key(False, in_fingerprint=True)


@dataclass
class DatasetConfig:
    """A data set: scenes, each with an image and a mask, and the classes.

    Attributes:
        name: used in folders and reports.
        root: folder that the other paths are relative to.
        images: glob of the images below root, or a list of globs where the bands of an image lie in
            several files, in the order of the bands. STAC items (*.json) are images, too.
        masks: glob of the masks, rasters or vector files; its wildcards match the same text as those of
            images. Without wildcards it is one file for all images.
        aoi: glob of vector files (areas of interest), as masks; labels outside of the polygons are ignored.
        manifest: CSV or GeoJSON file below root that lists images, masks and aoi instead.
        allow_outside: whether a manifest may be outside of root, and whether manifests and STAC items may
            list files that are (after following symbolic links) or that are remote.
        unlabelled: treatment of images without a mask or area of interest: "error" or "skip".
        label: see LabelConfig.
        mode: "multiclass" or "binary" (two classes, background first).
        classes: names, or mappings of name, color ("#rrggbb"), values (of the mask: numbers, texts of a
            polygon's attribute, or colours of a coloured mask; default: the position in the list)
            and weight (for losses that take class weights).
        bands: numbers from 1, or names, which are matched by meaning; null for all data bands.
        nodata: nodata value of the images; null for the one declared in the files.
        zero_is_nodata: whether pixels with 0 in all bands are nodata, too (black borders).
        ignore_index: label of pixels that are excluded from losses and metrics.
        ignore_values: mask values that become ignore_index; null: ignore_index itself unless a class has it.
        unlisted: treatment of mask values that are in neither list: "error" or "ignore".
        split: see SplitConfig.
        normalize: "standardize" (per-band mean and standard deviation of the training pixels become 0 and
            1), "percentile" (their 2nd and 98th percentile become -1 and 1), "minmax" (their minimum and
            maximum become -1 and 1), "imagenet" (uint8 RGB with ImageNet's mean and deviation) or
            "none".
        allow_leakage: whether to continue if training windows overlap validation or test data.
        generate: "demo" creates the synthetic data set in root; null for real data.
        window: side of the training and evaluation windows in pixels.
        sampler: sampling of training windows: "uniform" (anywhere), "valid" (around labelled pixels) or
            "balanced" (around pixels of a class, all classes equally often). Every window has labels.
        windows_per_epoch: null for as many as cover the valid training pixels once.
        samples: custom training samples: `_target_` of a torch Dataset and its options, see
            docs/loading.md. Statistics, validation and test still use the scenes.
        num_workers: processes that read samples; 0 reads them in the training process.
        batch_size: windows per step.
        num_threads: threads that read windows.
        cache: "memmap" keeps a decoded copy of every scene in cache_dir, which is read many times faster;
            "auto" does so for compressed and striped files, up to half of the free disk space; "none" reads
            windows from the files.
        cache_dir: folder of decoded copies, rasterized and aligned labels, and scene statistics, which are
            kept between runs; null for geo_seg in $XDG_CACHE_HOME or ~/.cache.
        on_read_error: "raise", or "ignore": unreadable pixels of a corrupt file are ignored, and the report
            counts the windows.
        module: dotted name of your own module, which is imported, so that its sources of images are known.
    """

    name: str = key(MISSING, in_fingerprint=True)
    root: str = key(MISSING, in_fingerprint=False, on_resume=True)
    images: Any = key(None, in_fingerprint=True)
    masks: str | None = key(None, in_fingerprint=True)
    aoi: str | None = key(None, in_fingerprint=True)
    manifest: str | None = key(None, in_fingerprint=True)
    module: str | None = key(None, in_fingerprint=True)
    allow_outside: bool = key(False, in_fingerprint=True)
    unlabelled: str = key("error", choices=("error", "skip"), in_fingerprint=True)
    label: LabelConfig = field(default_factory=LabelConfig)
    mode: str = key("multiclass", choices=("multiclass", "binary"), in_fingerprint=True)
    classes: list[Any] = key(MISSING, in_fingerprint=True)
    bands: list[Any] | None = key(None, in_fingerprint=True)
    nodata: float | None = key(None, in_fingerprint=True)
    zero_is_nodata: bool = key(False, in_fingerprint=True)
    ignore_index: int = key(255, at_least=-32768, at_most=32767, in_fingerprint=True)
    ignore_values: list[Any] | None = key(None, in_fingerprint=True)
    unlisted: str = key("error", choices=("error", "ignore"), in_fingerprint=True)
    split: SplitConfig = field(default_factory=SplitConfig)
    allow_leakage: bool = key(False, in_fingerprint=True)
    normalize: str = key(
        "standardize",
        choices=("standardize", "percentile", "minmax", "imagenet", "none"),
        in_fingerprint=True,
    )
    generate: str | None = key(None, choices=("demo",), in_fingerprint=True)
    window: int = key(256, at_least=16, at_most=16384, in_fingerprint=True)
    sampler: str = key("valid", choices=("uniform", "valid", "balanced"), in_fingerprint=True)
    windows_per_epoch: int | None = key(None, at_least=1, in_fingerprint=True)
    samples: Any = key(None, in_fingerprint=True)
    num_workers: int = key(0, at_least=0, in_fingerprint=True)
    batch_size: int = key(8, at_least=1, at_most=1 << 16, in_fingerprint=True)
    num_threads: int = key(2, at_least=1, at_most=1024, in_fingerprint=False, on_resume=True)
    cache: str = key("auto", choices=("auto", "none", "memmap"), in_fingerprint=False)
    cache_dir: str | None = key(None, in_fingerprint=False)
    on_read_error: str = key("raise", choices=("raise", "ignore"), in_fingerprint=True)
