"""The schema of a data set: what `config/dataset/*.yaml` may say. No torch in here."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class SplitConfig:
    """Which scenes train, which validate, which test.

    Attributes:
        by: "fraction", "pattern", "list", "manifest" (its column split) or "blocks" (parts of every scene).
        train: pattern: globs over the images' paths below root (null: all that is left over); list: a text
            file below root with one image per line. Refused elsewhere: fraction gives train the rest.
        val: fraction: share of the scenes; blocks: share of the area; pattern and list: as train.
        test: as val; null for none.
        group: a regular expression with one group; scenes for which it finds the same text in the image's
            path lie at the same place and stay together in a split by fraction.
        table: a CSV below root whose first column holds the images' names without suffix ...
        column: ... and the column of it that says which scenes stay together.
        block: blocks: their side, about: every scene is cut into equal parts.
        balance: blocks: draws blocks so that every split has labels of every class, as far as there are any,
            and about its share of them; false draws them without regard to labels.
        buffer: distance that training windows keep from every pixel of val and test, whatever the split; a
            split that doesn't is refused.
        unit: of block and buffer: "pixels" or "metres".
    """

    by: str = "fraction"
    train: Any = None
    val: Any = None
    test: Any = None
    group: str | None = None
    table: str | None = None
    column: str | None = None
    block: float | None = None
    balance: bool = True
    buffer: float = 0.0
    unit: str = "pixels"


@dataclass
class LabelConfig:
    """How labels that don't lie on the image's grid get onto it.

    Attributes:
        align: "error", or "reproject": label rasters on another grid or in another CRS take the nearest
            value.
        layer: of vector files; null takes the only one.
        attribute: of the polygons; its values are the class table's values (empty and null are ""). Null
            gives every polygon the value 1.
        uncovered: the class of pixels that no polygon covers, or "ignore".
        order: which of overlapping polygons is on top: "file" (the later one in the file) or "class" (that
            of the later class in the table). Through a hole shows what lies below.
        all_touched: gives a polygon every pixel that it touches, not only those whose centre it covers.
    """

    align: str = "error"
    layer: str | None = None
    attribute: str | None = None
    uncovered: str = "ignore"
    order: str = "file"
    all_touched: bool = False


@dataclass
class DatasetConfig:
    """A data set: scenes of an image and a mask each, and the table of classes.

    Attributes:
        name: its name in folders and reports.
        root: the folder that the other paths start from.
        images: glob of the images below root, or a list of globs where the bands of an image lie in
            several files, in the order of the bands. STAC items (*.json) are images, too.
        masks: glob of the masks, rasters or vector files; its wildcards stand for the same text as those of
            images. Without wildcards it is one file for all images.
        aoi: glob of vector files, as masks; labels outside of their polygons are ignored.
        manifest: a CSV or GeoJSON file below root that names images, masks and aoi instead.
        allow_outside: lets a manifest lie outside of root, and manifests and STAC items name files that do,
            wherever symbolic links lead, and remote ones.
        unlabelled: "error" or "skip": what becomes of images without a mask or area of interest.
        label: see LabelConfig.
        mode: "multiclass" or "binary" (two classes, background first).
        classes: names, or mappings of name, color ("#rrggbb"), values (of the mask: numbers, texts of a
            polygon's attribute, or colours of a coloured mask; the position in the table when not given)
            and weight (for losses that take class weights).
        bands: numbers from 1, or names, which are found by what they mean; null takes all data bands.
        nodata: value of the images that means "no measurement"; null believes the files.
        zero_is_nodata: whether pixels whose bands are all 0 are nodata, too (black borders).
        ignore_index: label of pixels that no loss and no metric sees.
        ignore_values: mask values that become ignore_index; null: ignore_index itself unless a class has it.
        unlisted: "error" or "ignore": what becomes of mask values in neither list.
        split: see SplitConfig.
        normalize: "standardize" (per-band mean and standard deviation of the training pixels become 0 and
            1), "percentile" (their 2nd and 98th percentile become -1 and 1), "minmax" (their least and
            largest value become -1 and 1), "imagenet" (uint8 RGB with ImageNet's mean and deviation) or
            "none".
        allow_leakage: goes on where training windows show what is validated or tested on.
        generate: "demo" draws the embedded data set into root; null for real data.
        window: side of the training and evaluation windows in pixels.
        sampler: where training windows lie: "uniform" (anywhere), "valid" (around labelled pixels) or
            "balanced" (around pixels of a class, all classes alike). None of them is without labels.
        windows_per_epoch: null takes as many as cover the valid training pixels once.
        samples: training samples from elsewhere: `_target_` of a torch Dataset and its options, see
            docs/loading.md. Statistics, validation and test remain those of the scenes.
        num_workers: processes that read samples; 0 reads them in the process that trains.
        batch_size: windows per step.
        num_threads: threads that read windows.
        cache: "memmap" keeps a decoded copy of every scene in cache_dir, which is read many times faster;
            "auto" does so for compressed and striped files while that takes half of the free disk at most;
            "none" reads windows from the files.
        cache_dir: where decoded copies, burnt and aligned labels, and what was counted in a scene are kept
            between runs; null is geo_seg in $XDG_CACHE_HOME or ~/.cache.
        on_read_error: "raise", or "ignore": pixels that a corrupt file doesn't give are ignored, and the
            report counts the windows.
    """

    name: str = MISSING
    root: str = MISSING
    images: Any = None
    masks: str | None = None
    aoi: str | None = None
    manifest: str | None = None
    allow_outside: bool = False
    unlabelled: str = "error"
    label: LabelConfig = field(default_factory=LabelConfig)
    mode: str = "multiclass"
    classes: list[Any] = MISSING
    bands: list[Any] | None = None
    nodata: float | None = None
    zero_is_nodata: bool = False
    ignore_index: int = 255
    ignore_values: list[Any] | None = None
    unlisted: str = "error"
    split: SplitConfig = field(default_factory=SplitConfig)
    allow_leakage: bool = False
    normalize: str = "standardize"
    generate: str | None = None
    window: int = 256
    sampler: str = "valid"
    windows_per_epoch: int | None = None
    samples: Any = None
    num_workers: int = 0
    batch_size: int = 8
    num_threads: int = 2
    cache: str = "auto"
    cache_dir: str | None = None
    on_read_error: str = "raise"
