"""Checks of `dataset`, before torch is imported."""

from collections.abc import Iterator

from geo_seg.config.class_rows import parse_class_rows
from geo_seg.config.components import target_errors
from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.fields import errors_of
from geo_seg.config.split_checks import split_errors
from geo_seg.errors import ConfigError


def dataset_errors(data: DatasetConfig) -> Iterator[ConfigError]:
    """Yield what is wrong with `dataset` beside single values, without opening a file."""
    yield from errors_of(lambda: parse_class_rows(data))
    yield from split_errors(data.split)
    yield from _file_errors(data)
    if data.bands == []:
        yield ConfigError("dataset.bands=[]: expected numbers or names of bands, or null for all of them")
    if data.samples is not None:
        yield from target_errors("samples", "dataset.samples", data.samples)
    elif data.num_workers:
        yield ConfigError(
            f"dataset.num_workers={data.num_workers}: is for dataset.samples; scenes are read by "
            "dataset.num_threads"
        )


def _file_errors(data: DatasetConfig) -> Iterator[ConfigError]:
    patterns = {"images": data.images, "masks": data.masks, "aoi": data.aoi}
    if data.manifest is not None:
        for key, pattern in patterns.items():
            if pattern is not None:
                yield ConfigError(f"dataset.{key}={pattern}: the manifest names the files; set it to null")
        return
    for key in ("images", "masks"):
        if patterns[key] is None:
            yield ConfigError(f"dataset.{key}: no value; give a glob below dataset.root, or dataset.manifest")
    globs = data.images if isinstance(data.images, list) else [data.images]
    if data.images is not None and (not globs or not all(isinstance(glob, str) for glob in globs)):
        yield ConfigError(f"dataset.images={data.images!r}: expected a glob or a list of globs")
