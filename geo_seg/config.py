"""The schema of the configuration: what `config/*.yaml` and the command line may say. No torch in here."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

MODELS = {
    "unet": "Unet",
    "unetplusplus": "UnetPlusPlus",
    "manet": "MAnet",
    "linknet": "Linknet",
    "fpn": "FPN",
    "pspnet": "PSPNet",
    "pan": "PAN",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3Plus",
    "upernet": "UPerNet",
    "segformer": "Segformer",
    "dpt": "DPT",
}
"""Our name of each architecture, and its class in segmentation_models_pytorch."""


@dataclass
class SplitConfig:
    """Which scenes train, which validate, which test.

    Attributes:
        by: "fraction", "pattern", "list" or "manifest" (its column split).
        train: pattern: globs over the images' paths below root (null: all that is left over); list: a text
            file below root with one image per line. Not used by fraction, which gives train the rest.
        val: fraction: share of the scenes; pattern and list: as train.
        test: as val; null for none.
        group: a regular expression with one group; scenes for which it finds the same text in the image's
            path lie at the same place and stay together in a split by fraction.
        table: a CSV below root whose first column holds the images' names without suffix ...
        column: ... and the column of it that says which scenes stay together.
    """

    by: str = "fraction"
    train: Any = None
    val: Any = None
    test: Any = None
    group: str | None = None
    table: str | None = None
    column: str | None = None


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
        allow_outside: lets a manifest name files that are not below root, and remote ones.
        label: see LabelConfig.
        mode: "multiclass" or "binary" (two classes, background first).
        classes: names, or mappings of name, color ("#rrggbb"), values (of the mask: numbers, texts of a
            polygon's attribute, or colours of a coloured mask; the position in the table when not given)
            and weight (for losses that take class weights).
        bands: numbers from 1, or names; null takes all data bands.
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
        generate: "demo" draws the embedded data set into root; null for real data.
        window: side of the training and evaluation windows in pixels.
        sampler: where training windows lie: "uniform" (anywhere), "valid" (around labelled pixels) or
            "balanced" (around pixels of a class, all classes alike). None of them is without labels.
        windows_per_epoch: null takes as many as cover the valid training pixels once.
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
    normalize: str = "standardize"
    generate: str | None = None
    window: int = 256
    sampler: str = "valid"
    windows_per_epoch: int | None = None
    batch_size: int = 8
    num_threads: int = 2
    cache: str = "auto"
    cache_dir: str | None = None
    on_read_error: str = "raise"


@dataclass
class AugmentConfig:
    """Random changes to training windows, drawn anew for every sample; 0 switches one off.

    Attributes:
        name: its name in reports.
        d4: flips and quarter turns.
        rotate: largest rotation in degrees.
        scale: largest change of scale; 0.2 draws between 1 / 1.2 and 1.2.
        shear: largest shear in degrees.
        gain: largest relative change of contrast per band.
        bias: largest shift of brightness per band, in standard deviations.
        gamma: largest bend of the brightness curve per band; 0.25 draws exponents between 1 / 1.25 and 1.25.
        noise: standard deviation of added noise, in standard deviations of the band.
        band_drop: probability that a band is blanked (never all of them).
        transforms: your own after all others, each with a `_target_`. One of torchvision.transforms.v2 gets
            each sample's standardised image and, as masks, labels and validity; anything else is called
            on the batch with image (N, bands, S, S), labels and validity (N, 1, S, S), all float, as
            kornia.augmentation.AugmentationSequential is with data_keys: [input, mask, mask].
    """

    name: str = MISSING
    d4: bool = False
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    gain: float = 0.0
    bias: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    band_drop: float = 0.0
    transforms: list[Any] = field(default_factory=list)


@dataclass
class EncoderConfig:
    """How the encoder learns, beside the rest of the model.

    Attributes:
        freeze_epochs: epochs at the beginning in which its weights and statistics stay as they are.
        lr_factor: its learning rate is optimizer.lr times this.
    """

    freeze_epochs: int = 0
    lr_factor: float = 1.0


@dataclass
class AverageConfig:
    """A mean of the weights over the run, which is validated, kept and tested in place of the last weights.

    Attributes:
        name: "none"; "ema" (exponential, renewed at every step); "swa" (equal parts, one per epoch).
        decay: of ema: the part that the mean keeps at a step, from 0 to below 1; less in the first steps.
        start: of swa: share of the epochs, from 0 to below 1, after which weights are taken into the mean.
    """

    name: str = "none"
    decay: float = 0.999
    start: float = 0.75


@dataclass
class TrainConfig:
    """What `python train.py` takes.

    Attributes:
        mode: "train", or "leaderboard", which compares the runs of a sweep.
        sweep: the folder of that sweep; null unless mode=leaderboard.
        seed: of weights, windows and augmentation.
        debug: shows the traceback of an error.
        resume: a run folder in which training goes on where it was interrupted, with its own configuration;
            "auto" goes on in hydra.run.dir if that holds a run of this configuration, and else begins one.
        rerun: a run folder whose configuration a new run takes.
        save_minutes: how often a checkpoint is written within an epoch, beside the one at its end; 0 after
            every step.
        on_nan: what becomes of a loss that is not finite: "stop" ends the run, "skip" leaves the step out,
            "rollback" goes back to the weights of the last checkpoint and on with the next batch.
        find: "none", "lr" (a learning rate, in place of optimizer.lr), "batch_size" (the largest that the GPU
            holds, in place of dataset.batch_size) or "both", looked for before training.
        compile: has torch.compile translate the model: slow to begin, faster in long runs.
        dataset: what is learnt from.
        augment: random changes to training windows.
        model: name of an architecture and its options.
        loss: name of a loss and its options.
        optimizer: `_target_` of a torch optimizer and its options.
        scheduler: `_target_` of a learning-rate scheduler and its options, and the `interval` it steps at.
        encoder: see EncoderConfig.
        average: see AverageConfig.
        trainer: options of Lightning's Trainer.
        callbacks: further Lightning callbacks by any name, each with a `_target_`.
        logger: a Lightning logger beside metrics.csv, with a `_target_`.
    """

    mode: str = "train"
    sweep: str | None = None
    seed: int = 0
    debug: bool = False
    resume: str | None = None
    rerun: str | None = None
    save_minutes: float = 10.0
    on_nan: str = "stop"
    find: str = "none"
    compile: bool = False
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: dict[str, Any] = MISSING
    loss: dict[str, Any] = MISSING
    optimizer: dict[str, Any] = MISSING
    scheduler: dict[str, Any] = MISSING
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    trainer: dict[str, Any] = MISSING
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] | None = None


@dataclass
class InferenceConfig:
    """What `python inference.py` takes.

    Attributes:
        checkpoint: a run folder (its best checkpoint) or a checkpoint file.
        input: a raster, a folder, a glob, or a list of these.
        output: the folder that the maps go to; it is made when it isn't there.
        window: largest side of the windows in pixels, a multiple of 32; "auto" takes the largest up to 1024
            that the memory holds. Windows are made smaller where as many cover the raster.
        margin: pixels along the edges of a window that don't count, because the model sees too little of
            what lies around them; "auto" measures on the raster how many the model needs.
        overlap: pixels between the margins of neighbouring windows, over which they are blended.
        blend: "hann" (a raised cosine), "linear", or "crop" (each window up to the middle of the overlap).
        batch_size: windows that the model sees at once; "auto" takes 1 on a CPU and up to 8 on a GPU.
        max_memory: gigabytes (1e9 bytes) that a map may take beyond the model; wide rasters are made in
            panels of columns for it. null doesn't limit it: it follows the width times the window.
        probabilities: "none"; "top" writes the probability of the chosen class; "all" one band per class.
        exists: what happens to a map that is there already: "overwrite", "skip" or "error".
        dry_run: says what a map would take (windows, memory, time, size) and writes nothing.
        accelerator: "auto", "cpu", "gpu" or "mps".
        precision: what the model computes in: "fp32", "bf16" or "fp16"; "auto" measures on a few windows
            which is fastest, of those that agree with fp32 about 99.9 % of the classes.
        compile: makes the model faster with torch.compile first, which takes a minute or more.
        debug: shows the traceback of an error.
    """

    checkpoint: str = MISSING
    input: Any = MISSING
    output: str = MISSING
    window: int | str = "auto"
    margin: int | str = 32
    overlap: int = 64
    blend: str = "hann"
    batch_size: int | str = "auto"
    max_memory: float | None = None
    probabilities: str = "none"
    exists: str = "overwrite"
    dry_run: bool = False
    accelerator: str = "auto"
    precision: str = "auto"
    compile: bool = False
    debug: bool = False


def run_folder(resume: str | None, rerun: str | None, fresh: str) -> str:
    """Where a run goes.

    Args:
        resume: the folder of a run that goes on there.
        rerun: the folder of a run that is done again, beside it.
        fresh: where other runs go; its name begins with the time.
    """
    if resume and resume != "auto":
        return resume
    if rerun:
        return f"{rerun.rstrip('/')}_again_{fresh.rpartition('/')[2][:19]}"
    return fresh


def store_schemas() -> None:
    """Makes the schemas known to Hydra, and run_folder to the YAML files."""
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="inference_schema", node=InferenceConfig)
