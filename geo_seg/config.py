"""The schema of the configuration: what `config/*.yaml` and the command line may say. No torch in here."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

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
        by: "fraction", "pattern" or "list".
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
class DatasetConfig:
    """A data set: scenes of an image and a mask each, and the table of classes.

    Attributes:
        name: its name in folders and reports.
        root: the folder that the other paths start from.
        images: glob of the images below root.
        masks: glob of the masks; its wildcards stand for the same text as those of images.
        mode: "multiclass" or "binary" (two classes, background first).
        classes: names, or mappings of name, color ("#rrggbb"), values (of the mask; the position in the
            table when not given) and weight (for losses that take class weights).
        bands: numbers from 1, or names; null takes all data bands.
        nodata: value of the images that means "no measurement"; null believes the files.
        ignore_index: label of pixels that no loss and no metric sees.
        ignore_values: mask values that become ignore_index; null: ignore_index itself unless a class has it.
        unlisted: "error" or "ignore": what becomes of mask values in neither list.
        split: see SplitConfig.
        normalize: "standardize" (per-band mean and standard deviation of the training pixels), "imagenet"
            (uint8 RGB with ImageNet's mean and deviation) or "none".
        generate: "demo" draws the embedded data set into root; null for real data.
        window: side of the training and evaluation windows in pixels.
        windows_per_epoch: null takes as many as cover the valid training pixels once.
        batch_size: windows per step.
        num_threads: threads that read windows.
    """

    name: str = MISSING
    root: str = MISSING
    images: str = MISSING
    masks: str = MISSING
    mode: str = "multiclass"
    classes: list[Any] = MISSING
    bands: list[Any] | None = None
    nodata: float | None = None
    ignore_index: int = 255
    ignore_values: list[int] | None = None
    unlisted: str = "error"
    split: SplitConfig = field(default_factory=SplitConfig)
    normalize: str = "standardize"
    generate: str | None = None
    window: int = 256
    windows_per_epoch: int | None = None
    batch_size: int = 8
    num_threads: int = 2


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
        noise: standard deviation of added noise, in standard deviations of the band.
        band_drop: probability that a band is blanked (never all of them).
    """

    name: str = MISSING
    d4: bool = False
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    gain: float = 0.0
    bias: float = 0.0
    noise: float = 0.0
    band_drop: float = 0.0


@dataclass
class TrainConfig:
    """What `python train.py` takes.

    Attributes:
        mode: "train", or "leaderboard", which compares the runs of a sweep.
        sweep: the folder of that sweep; null unless mode=leaderboard.
        seed: of weights, windows and augmentation.
        debug: shows the traceback of an error.
        dataset: what is learnt from.
        augment: random changes to training windows.
        model: name of an architecture and its options.
        loss: name of a loss and its options.
        optimizer: `_target_` of a torch optimizer and its options.
        scheduler: `_target_` of a learning-rate scheduler and its options, and the `interval` it steps at.
        trainer: options of Lightning's Trainer.
        callbacks: further Lightning callbacks by any name, each with a `_target_`.
        logger: a Lightning logger beside metrics.csv, with a `_target_`.
    """

    mode: str = "train"
    sweep: str | None = None
    seed: int = 0
    debug: bool = False
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: dict[str, Any] = MISSING
    loss: dict[str, Any] = MISSING
    optimizer: dict[str, Any] = MISSING
    scheduler: dict[str, Any] = MISSING
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
        window: side of the windows in pixels, a multiple of 32; null takes 512 or the training window,
            whichever is larger.
        overlap: pixels that neighbouring windows share, over which their probabilities are blended.
        batch_size: windows that the model sees at once; null takes 1 on a CPU and 8 on a GPU.
        probabilities: "none"; "top" writes the probability of the chosen class; "all" one band per class.
        exists: what happens to a map that is there already: "overwrite", "skip" or "error".
        accelerator: "auto", "cpu", "gpu" or "mps".
        precision: "auto", "32" or "bf16".
        debug: shows the traceback of an error.
    """

    checkpoint: str = MISSING
    input: Any = MISSING
    output: str = MISSING
    window: int | None = None
    overlap: int = 64
    batch_size: int | None = None
    probabilities: str = "none"
    exists: str = "overwrite"
    accelerator: str = "auto"
    precision: str = "auto"
    debug: bool = False


def store_schemas() -> None:
    """Makes the schemas known to Hydra, under the names that the YAML files extend."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="inference_schema", node=InferenceConfig)
