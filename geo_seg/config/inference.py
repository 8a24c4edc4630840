"""Schema and checks of `python inference.py`. No torch in here."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from omegaconf import MISSING, DictConfig

from geo_seg.config.fields import check_choice, to_dataclass
from geo_seg.errors import ConfigError, missing_extra
from geo_seg.runtime.files import expand_user
from geo_seg.runtime.ranks import is_distributed

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
"""Choices of the precision of predictions."""


@dataclass
class InferenceConfig:
    """Configuration of `python inference.py`.

    Attributes:
        checkpoint: a run folder (its best checkpoint) or a checkpoint file; a list or a glob of these is an
            ensemble, whose probabilities are averaged.
        weights: per checkpoint of an ensemble, above 0; null weighs all alike.
        input: a raster, a folder, a glob, a STAC item, or a list of these.
        output: folder of the maps; it is created if it doesn't exist.
        window: maximum side of the windows in pixels, a multiple of 32; "auto" for the largest up to 1536
            that fits in memory. Windows are smaller where the same number covers the raster.
        margin: pixels along the edges of a window that are discarded, because the model has too little
            context there; null for a margin at which neighbours share 15 % of a window (80 pixels at 1536),
            at least 32; "auto" measures on the raster how many the model needs.
        overlap: pixels between the margins of neighbouring windows, over which they are blended.
        blend: "hann" (a raised cosine), "linear", or "crop" (each window up to the middle of the overlap).
        batch_size: windows per batch; "auto" is 1 on a CPU and up to 8 on a GPU.
        max_memory: limit in gigabytes (1e9 bytes) of a map's memory beside the model; wide rasters are split
            into panels of columns to stay below it. null for no limit: memory grows with width times window.
        tta: test-time augmentation, the mean over views of each window: "none", "flips" (4 views) or "d4"
            (8, with quarter turns); prediction takes that many times as long.
        resolution: pixel size of the model's input, in map units; windows are resampled to it, and logits
            back onto the raster's grid. null for the raster's own pixels.
        temperature: divisor of the logits; null for the checkpoint's.
        threshold: probability above which a pixel of a binary map is foreground; null for the checkpoint's.
        probabilities: "none"; "top" writes the probability of the chosen class; "all" one band per class.
        uncertainty: also writes the margin (probability of the class minus that of the second one) and the
            entropy of the probabilities, normalised to 0 to 1.
        probability_type: data type of these rasters: "uint8" (times 254), "float16" or "float32".
        polygons: also writes the map as polygons, in a GeoPackage.
        min_area: of polygons, in square metres (in pixels where the raster has no CRS): smaller ones are
            merged into the neighbour with which they share the longest border.
        simplify: of polygons: tolerance in pixels; 1 removes the stairs of pixel edges, 0 nothing.
        labels: reference labels that the maps are compared with: rasters or polygons as in training, as a
            file, a folder, a glob or a list of these; matched to several rasters by name. null for none.
        exists: treatment of a map that exists already: "overwrite", "skip" or "error".
        dry_run: estimates what a map would take (windows, memory, time, size) and writes nothing.
        engine: what predicts the parts of the maps: "local" (this process), "torchrun" (the processes that
            torchrun has started) or "ray" (workers on this machine, or on the cluster of RAY_ADDRESS).
        workers: of engine=ray; "auto" for one per GPU, or per core without a GPU.
        accelerator: "auto", "cpu", "gpu" or "mps".
        precision: of the model: "fp32", "bf16" or "fp16"; "auto" is fp32 with labels, otherwise the fastest
            of those that agree with fp32 on 99.9 % of the classes, measured on a few windows.
        backend: runtime of the models: "torch", or "openvino" (an extra), which is faster on a CPU.
        compile: whether to use torch.compile, which takes a minute or more at the start.
        debug: whether to show the traceback of an error.
    """

    checkpoint: Any = MISSING
    weights: list[float] | None = None
    input: Any = MISSING
    output: str = MISSING
    window: int | str = "auto"
    margin: int | str | None = None
    overlap: int = 64
    blend: str = "hann"
    batch_size: int | str = "auto"
    max_memory: float | None = None
    tta: str = "none"
    resolution: float | None = None
    temperature: float | None = None
    threshold: float | None = None
    probabilities: str = "none"
    uncertainty: bool = False
    probability_type: str = "uint8"
    polygons: bool = False
    min_area: float = 0.0
    simplify: float = 0.0
    labels: Any = None
    exists: str = "overwrite"
    dry_run: bool = False
    engine: str = "local"
    workers: int | str = "auto"
    accelerator: str = "auto"
    precision: str = "auto"
    backend: str = "torch"
    compile: bool = False
    debug: bool = False


_INFERENCE_CHOICES = {
    "probabilities": ("none", "top", "all"),
    "probability_type": ("uint8", "float16", "float32"),
    "exists": ("overwrite", "skip", "error"),
    "accelerator": ("auto", "cpu", "gpu", "mps"),
    "precision": PRECISIONS,
    "blend": ("hann", "linear", "crop"),
    "backend": ("torch", "openvino"),
    "engine": ("local", "torchrun", "ray"),
    "tta": ("none", "flips", "d4"),
}


def parse_inference_config(cfg: DictConfig) -> InferenceConfig:
    """Convert the composed configuration of inference to its dataclass, and check it.

    Raises:
        ConfigError: an unknown key, or an invalid or missing value.
    """
    config: InferenceConfig = to_dataclass(cfg, InferenceConfig)
    for key in ("checkpoint", "input", "output", "labels"):
        setattr(config, key, expand_user(getattr(config, key)))
    for key, choices in _INFERENCE_CHOICES.items():
        check_choice(key, getattr(config, key), choices)
    _check_auto_or_min("window", config.window, 64, "a multiple of 32, 64 or more")
    if isinstance(config.window, int) and config.window % 32:
        raise ConfigError(f"window={config.window}: expected auto, or a multiple of 32, 64 or more")
    if config.margin is not None:
        _check_auto_or_min("margin", config.margin, 0, "null, or 0 or more pixels")
    _check_auto_or_min("batch_size", config.batch_size, 1, "1 or more")
    if config.overlap < 0:
        raise ConfigError(f"overlap={config.overlap}: expected 0 or more pixels")
    if config.max_memory is not None and not config.max_memory > 0:
        raise ConfigError(
            f"max_memory={config.max_memory:g}: expected gigabytes above 0, or null for no limit"
        )
    _check_models(config)
    _check_outputs(config)
    _check_engine(config)
    _check_backend(config)
    return config


def _check_outputs(config: InferenceConfig) -> None:
    if config.probability_type != "uint8" and config.probabilities == "none" and not config.uncertainty:
        raise ConfigError(
            f"probability_type={config.probability_type}: no probabilities are written; add "
            "probabilities=top, probabilities=all or uncertainty=true, or leave it out"
        )
    for key, value in (("min_area", config.min_area), ("simplify", config.simplify)):
        if not value >= 0:
            raise ConfigError(f"{key}={value:g}: expected 0 or more")
        if value and not config.polygons:
            raise ConfigError(f"{key}={value:g}: only polygons have it; add polygons=true, or leave it out")


def _check_models(config: InferenceConfig) -> None:
    checkpoints = config.checkpoint if isinstance(config.checkpoint, list) else [config.checkpoint]
    if not checkpoints or not all(isinstance(path, str) and path for path in checkpoints):
        raise ConfigError(
            f"checkpoint={config.checkpoint!r}: expected a run folder, a file, a glob or a list of these"
        )
    if config.weights is not None and not all(0 < weight < float("inf") for weight in config.weights):
        raise ConfigError(f"weights={config.weights}: expected numbers above 0, one for each checkpoint")
    if config.resolution is not None and not 0 < config.resolution < float("inf"):
        raise ConfigError(f"resolution={config.resolution:g}: expected map units above 0, or null")
    if config.temperature is not None and not 0 < config.temperature < float("inf"):
        raise ConfigError(f"temperature={config.temperature:g}: expected a number above 0, or null")
    if config.threshold is not None and not 0 < config.threshold < 1:
        raise ConfigError(f"threshold={config.threshold:g}: expected a probability between 0 and 1, or null")


def _check_engine(config: InferenceConfig) -> None:
    _check_auto_or_min("workers", config.workers, 1, "1 or more")
    if config.workers != "auto" and config.engine != "ray":
        raise ConfigError(f"workers={config.workers}: is for engine=ray, not for engine={config.engine}")
    if config.engine == "torchrun" and "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            "engine=torchrun: torchrun has not started this process; start it with "
            "torchrun --nproc-per-node=2 inference.py ..."
        )
    if config.engine != "torchrun" and is_distributed():
        raise ConfigError(
            f"engine={config.engine}: several processes were started together, each would write all maps; "
            "engine=torchrun shares them"
        )
    if config.engine == "ray" and find_spec("ray") is None:
        raise ConfigError(f"engine=ray: {missing_extra('ray')}, or take another engine")


def _check_backend(config: InferenceConfig) -> None:
    if config.backend == "torch":
        return
    if config.compile:
        raise ConfigError("backend=openvino compile=true: torch.compile has no effect there; leave one out")
    if config.precision == "fp16":
        raise ConfigError("backend=openvino precision=fp16: a CPU computes in fp32 or bf16; take one of them")
    if find_spec("openvino") is None:
        raise ConfigError(f"backend=openvino: {missing_extra('openvino')}, or take another backend")


def _check_auto_or_min(key: str, value: int | str, minimum: int, expected: str) -> None:
    if value != "auto" and (isinstance(value, str) or value < minimum):
        raise ConfigError(f"{key}={value}: expected auto, or {expected}")
