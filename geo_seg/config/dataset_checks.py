"""Checks of `dataset`, before torch is imported."""

from geo_seg.config.class_rows import parse_class_rows
from geo_seg.config.components import check_target
from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.fields import check_choice
from geo_seg.config.split_checks import check_split
from geo_seg.errors import ConfigError

_DATA_CHOICES = {
    "mode": ("multiclass", "binary"),
    "unlisted": ("error", "ignore"),
    "normalize": ("standardize", "percentile", "minmax", "imagenet", "none"),
    "sampler": ("uniform", "valid", "balanced"),
    "cache": ("auto", "none", "memmap"),
    "on_read_error": ("raise", "ignore"),
    "unlabelled": ("error", "skip"),
}
_MIN_VALUES = {"window": 16, "batch_size": 1, "num_threads": 1}
_MAX_VALUES = {"window": 16384, "batch_size": 1 << 16, "num_threads": 1024}  # more fits no memory


def check_dataset(data: DatasetConfig) -> None:
    """Check everything that needs no file.

    Raises:
        ConfigError: an invalid value, or one without effect.
    """
    for key, choices in _DATA_CHOICES.items():
        check_choice(f"dataset.{key}", getattr(data, key), choices)
    parse_class_rows(data)
    check_split(data.split)
    check_choice("dataset.label.align", data.label.align, ("error", "reproject"))
    check_choice("dataset.label.order", data.label.order, ("file", "class"))
    _check_files(data)
    _check_loading(data)


def _check_files(data: DatasetConfig) -> None:
    patterns = {"images": data.images, "masks": data.masks, "aoi": data.aoi}
    if data.manifest is not None:
        for key, pattern in patterns.items():
            if pattern is not None:
                raise ConfigError(f"dataset.{key}={pattern}: the manifest names the files; set it to null")
        return
    for key in ("images", "masks"):
        if patterns[key] is None:
            raise ConfigError(f"dataset.{key}: no value; give a glob below dataset.root, or dataset.manifest")
    globs = data.images if isinstance(data.images, list) else [data.images]
    if not globs or not all(isinstance(glob, str) for glob in globs):
        raise ConfigError(f"dataset.images={data.images!r}: expected a glob or a list of globs")


def _check_loading(data: DatasetConfig) -> None:
    if data.generate is not None:
        check_choice("dataset.generate", data.generate, ("demo",))
    for key, minimum in _MIN_VALUES.items():
        if not minimum <= getattr(data, key) <= _MAX_VALUES[key]:
            raise ConfigError(f"dataset.{key}={getattr(data, key)}: expected {minimum} to {_MAX_VALUES[key]}")
    if data.windows_per_epoch is not None and data.windows_per_epoch < 1:
        raise ConfigError(f"dataset.windows_per_epoch={data.windows_per_epoch}: expected 1 or more, or null")
    if data.bands == []:
        raise ConfigError("dataset.bands=[]: expected numbers or names of bands, or null for all of them")
    if data.num_workers < 0:
        raise ConfigError(f"dataset.num_workers={data.num_workers}: expected 0 or more")
    if data.samples is not None:
        check_target("samples", "dataset.samples", data.samples)
    elif data.num_workers:
        raise ConfigError(
            f"dataset.num_workers={data.num_workers}: is for dataset.samples; scenes are read by "
            "dataset.num_threads"
        )
