"""Every wrong key or value of `python inference.py`, found before torch is imported."""

import os
from importlib.util import find_spec

from omegaconf import DictConfig

from geo_seg.errors import ConfigError, extra
from geo_seg.inference_config import PRECISIONS, InferenceConfig
from geo_seg.keys import at_home, one_of, plain
from geo_seg.ranks import is_one_of_many

_OF_INFERENCE = {
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


def check_inference(cfg: DictConfig) -> InferenceConfig:
    """Turns the composed configuration of inference into its dataclass.

    Raises:
        ConfigError: a key that nothing reads, a value of the wrong type, or one that is missing.
    """
    config: InferenceConfig = plain(cfg, InferenceConfig)
    for key in ("checkpoint", "input", "output", "labels"):
        setattr(config, key, at_home(getattr(config, key)))
    for key, choices in _OF_INFERENCE.items():
        one_of(key, getattr(config, key), choices)
    _auto_or("window", config.window, 64, "a multiple of 32, 64 or more")
    if isinstance(config.window, int) and config.window % 32:
        raise ConfigError(f"window={config.window}: expected auto, or a multiple of 32, 64 or more")
    if config.margin is not None:
        _auto_or("margin", config.margin, 0, "null, or 0 or more pixels")
    _auto_or("batch_size", config.batch_size, 1, "1 or more")
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
    given = config.checkpoint if isinstance(config.checkpoint, list) else [config.checkpoint]
    if not given or not all(isinstance(path, str) and path for path in given):
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
    _auto_or("workers", config.workers, 1, "1 or more")
    if config.workers != "auto" and config.engine != "ray":
        raise ConfigError(f"workers={config.workers}: is for engine=ray, not for engine={config.engine}")
    if config.engine == "torchrun" and "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            "engine=torchrun: this process is none of torchrun's; start it with "
            "torchrun --nproc-per-node=2 inference.py ..."
        )
    if config.engine != "torchrun" and is_one_of_many():
        raise ConfigError(
            f"engine={config.engine}: several processes were started together, and each would make all maps; "
            "engine=torchrun shares them"
        )
    if config.engine == "ray" and find_spec("ray") is None:
        raise ConfigError(f"engine=ray: {extra('ray')}, or take another engine")


def _check_backend(config: InferenceConfig) -> None:
    if config.backend == "torch":
        return
    if config.compile:
        raise ConfigError("backend=openvino compile=true: torch compiles nothing there; leave one out")
    if config.precision == "fp16":
        raise ConfigError("backend=openvino precision=fp16: a CPU computes in fp32 or bf16; take one of them")
    if find_spec("openvino") is None:
        raise ConfigError(f"backend=openvino: {extra('openvino')}, or take another backend")


def _auto_or(key: str, value: int | str, least: int, expected: str) -> None:
    if value != "auto" and (isinstance(value, str) or value < least):
        raise ConfigError(f"{key}={value}: expected auto, or {expected}")
