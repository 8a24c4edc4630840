"""Schema and checks of `python inference.py`. No torch in here."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from omegaconf import MISSING, DictConfig

from geo_seg.config.fields import key, raise_errors, to_dataclass
from geo_seg.errors import ConfigError, missing_extra
from geo_seg.runtime.files import expand_user
from geo_seg.runtime.program import torchrun_words
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
        module: dotted name of your own module, which is imported, so that its models, products and
            sources of images are registered.
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

    checkpoint: Any = key(MISSING, in_fingerprint=False)
    weights: list[float] | None = key(None, in_fingerprint=True)
    module: str | None = key(None, in_fingerprint=True)
    input: Any = key(MISSING, in_fingerprint=False)
    output: str = key(MISSING, in_fingerprint=False)
    window: int | str = key("auto", choices=("auto",), at_least=64, multiple_of=32, in_fingerprint=True)
    margin: int | str | None = key(None, choices=("auto",), at_least=0, unit="pixels", in_fingerprint=True)
    overlap: int = key(64, at_least=0, unit="pixels", in_fingerprint=True)
    blend: str = key("hann", choices=("hann", "linear", "crop"), in_fingerprint=True)
    batch_size: int | str = key("auto", choices=("auto",), at_least=1, in_fingerprint=True)
    max_memory: float | None = key(None, above=0, unit="gigabytes", in_fingerprint=True)
    tta: str = key("none", choices=("none", "flips", "d4"), in_fingerprint=True)
    resolution: float | None = key(None, above=0, unit="map units", in_fingerprint=True)
    temperature: float | None = key(None, above=0, in_fingerprint=True)
    threshold: float | None = key(None, above=0, below=1, in_fingerprint=True)
    probabilities: str = key("none", choices=("none", "top", "all"), in_fingerprint=True)
    uncertainty: bool = key(False, in_fingerprint=True)
    probability_type: str = key("uint8", choices=("uint8", "float16", "float32"), in_fingerprint=True)
    polygons: bool = key(False, in_fingerprint=False)
    min_area: float = key(0.0, at_least=0, in_fingerprint=False)
    simplify: float = key(0.0, at_least=0, in_fingerprint=False)
    labels: Any = key(None, in_fingerprint=False)
    exists: str = key("overwrite", choices=("overwrite", "skip", "error"), in_fingerprint=False)
    dry_run: bool = key(False, in_fingerprint=False)
    engine: str = key("local", choices=("local", "torchrun", "ray"), in_fingerprint=False)
    workers: int | str = key("auto", choices=("auto",), at_least=1, in_fingerprint=False)
    accelerator: str = key("auto", choices=("auto", "cpu", "gpu", "mps"), in_fingerprint=False)
    precision: str = key("auto", choices=PRECISIONS, in_fingerprint=True)
    backend: str = key("torch", choices=("torch", "openvino"), in_fingerprint=True)
    compile: bool = key(False, in_fingerprint=True)
    debug: bool = key(False, in_fingerprint=False)


def parse_inference_config(cfg: DictConfig) -> InferenceConfig:
    """Convert the composed configuration of inference to its dataclass, and check it.

    Raises:
        ConfigError: unknown keys, or invalid or missing values.
    """
    config: InferenceConfig = to_dataclass(cfg, InferenceConfig)
    for name in ("checkpoint", "input", "output", "labels"):
        setattr(config, name, expand_user(getattr(config, name)))
    raise_errors(_inference_errors(config))
    return config


def _inference_errors(config: InferenceConfig) -> Iterator[ConfigError]:
    """Yield what is wrong with the models, and with keys beside others."""
    checkpoints = config.checkpoint if isinstance(config.checkpoint, list) else [config.checkpoint]
    if not checkpoints or not all(isinstance(path, str) and path for path in checkpoints):
        yield ConfigError(
            f"checkpoint={config.checkpoint!r}: expected a run folder, a file, a glob or a list of these"
        )
    if config.weights is not None and not all(0 < weight < float("inf") for weight in config.weights):
        yield ConfigError(f"weights={config.weights}: expected numbers above 0, one for each checkpoint")
    if config.probability_type != "uint8" and config.probabilities == "none" and not config.uncertainty:
        yield ConfigError(
            f"probability_type={config.probability_type}: no probabilities are written; add "
            "probabilities=top, probabilities=all or uncertainty=true, or leave it out"
        )
    for name, value in (("min_area", config.min_area), ("simplify", config.simplify)):
        if value and not config.polygons:
            yield ConfigError(f"{name}={value:g}: only polygons have it; add polygons=true, or leave it out")
    yield from _engine_errors(config)
    if config.backend != "torch":
        yield from _openvino_errors(config)


def _engine_errors(config: InferenceConfig) -> Iterator[ConfigError]:
    if config.workers != "auto" and config.engine != "ray":
        yield ConfigError(f"workers={config.workers}: is for engine=ray, not for engine={config.engine}")
    if config.engine == "torchrun" and "WORLD_SIZE" not in os.environ:
        yield ConfigError(
            "engine=torchrun: torchrun has not started this process; start it with "
            f"torchrun --nproc-per-node=2 {torchrun_words('predict')} ..."
        )
    if config.engine != "torchrun" and is_distributed():
        yield ConfigError(
            f"engine={config.engine}: several processes were started together, each would write all maps; "
            "engine=torchrun shares them"
        )
    if config.engine == "ray" and find_spec("ray") is None:
        yield ConfigError(f"engine=ray: {missing_extra('ray')}, or take another engine")


def _openvino_errors(config: InferenceConfig) -> Iterator[ConfigError]:
    if config.compile:
        yield ConfigError("backend=openvino compile=true: torch.compile has no effect there; leave one out")
    if config.precision == "fp16":
        yield ConfigError("backend=openvino precision=fp16: a CPU computes in fp32 or bf16; take one of them")
    if find_spec("openvino") is None:
        yield ConfigError(f"backend=openvino: {missing_extra('openvino')}, or take another backend")
