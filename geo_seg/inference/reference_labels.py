"""Comparison of maps with labels: matching of files, confusion matrices and scores."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.cache import Stamp, file_stamps
from geo_seg.data.class_table import ClassTable, build_class_table, check_mask
from geo_seg.data.labels.prepare import LabelPreparer
from geo_seg.data.scenes.file_pairs import VECTORS, SceneFiles, is_vector
from geo_seg.errors import CheckpointError, ConfigError, DataError, first_line
from geo_seg.inference.inputs import SUFFIXES
from geo_seg.inference.products.difference import Difference
from geo_seg.metrics.scores import SegmentationScores, segmentation_scores
from geo_seg.raster.georeference import same_grid
from geo_seg.raster.paths import absolute_path, container_of, display_name, rasters_at
from geo_seg.raster.reader import RasterInfo, RasterReader
from geo_seg.raster.writer import write_error
from geo_seg.runtime.files import atomic_write
from geo_seg.tiling import Window

METRICS_FILE = "metrics.json"
"""File name of the scores in the output folder."""

_MASK_REMEDY = "the classes are those of the model: recode the labels, or set values to ignore to nodata"
_LABEL_KEYS = ("mode", "classes", "ignore_index", "ignore_values", "unlisted", "label")
_CHUNK_ROWS = 256  # rows that are read at once


class LabelComparison:
    """Labels of the rasters of a run, and the confusion matrices of its maps.

    Args:
        labels: a file, a folder, a glob or a list of these.
        rasters: paths of the input rasters by name of the map.
        checkpoint: its data set defines the meaning of label values.

    Raises:
        CheckpointError: the checkpoint doesn't define the meaning of label values.
        ConfigError: labels is neither a path nor a list of paths.
        DataError: no labels are found, or none match a raster.
    """

    def __init__(self, labels: str | list[str], rasters: dict[str, str], checkpoint: Checkpoint) -> None:
        self._config = _label_config(checkpoint)
        self._table = replace(build_class_table(self._config), remedy=_MASK_REMEDY)
        self._names = checkpoint.class_names
        self._spec = Difference.spec_of(checkpoint)
        self._files = _match_labels(labels, rasters)
        self._counts: dict[str, NDArray[np.int64]] = {}

    @property
    def maps(self) -> int:
        """Number of compared maps."""
        return len(self._counts)

    def open(self, name: str, info: RasterInfo) -> Difference | None:
        """Return the labels of a raster, or None if it has none.

        Raises:
            DataError: the labels are unreadable, don't fit the raster, or hold values of no class.
        """
        if name not in self._files:
            return None
        path = self._files[name]
        mask, notes = LabelPreparer(self._config, self._table).prepare(
            SceneFiles(name, (info.path,), path), info
        )
        _check_values(mask, self._table)
        if not is_vector(path):
            with RasterReader(path) as reader:
                if not same_grid(reader.info, info):
                    notes = ["are on another grid; resampled to the nearest value", *notes]
        return Difference(self._spec, path, mask, self._table, tuple(notes))

    def stamp(self, name: str) -> Stamp | None:
        """Return the file states of the labels of a raster; None if there are no local ones."""
        return file_stamps([absolute_path(self._files[name])]) if name in self._files else None

    def add(self, name: str, counts: NDArray[np.int64]) -> SegmentationScores:
        """Record the confusion matrix of a finished map and return its scores."""
        self._counts[name] = counts
        return segmentation_scores(torch.from_numpy(counts), self._names)

    @property
    def total(self) -> SegmentationScores | None:
        """Scores of all maps together; None if there are none."""
        if not self._counts:
            return None
        return segmentation_scores(torch.from_numpy(np.sum(list(self._counts.values()), axis=0)), self._names)

    def write(self, folder: Path) -> None:
        """Write the scores of all maps together and of each map.

        Raises:
            DataError: writing fails.
        """
        each = {
            name: segmentation_scores(torch.from_numpy(counts), self._names).to_json()
            for name, counts in self._counts.items()
        }
        total = self.total.to_json() if self.total else {}
        file = folder / METRICS_FILE
        try:
            atomic_write(file, json.dumps({**total, "scenes": each}, indent=2), fsync=True)
        except OSError as error:
            raise write_error(file, error) from error


def _label_config(checkpoint: Checkpoint) -> DatasetConfig:
    """Return a data set config with the label options of training; labels on other grids are aligned."""
    saved = checkpoint.metadata.config.get("dataset", {})
    label_options = {key: saved[key] for key in _LABEL_KEYS if key in saved}
    try:
        given = OmegaConf.create({"name": "-", "root": ".", **label_options})
        merged = OmegaConf.merge(OmegaConf.structured(DatasetConfig), given)
        merged.label.align = "reproject"
        config: DatasetConfig = OmegaConf.to_object(merged)  # type: ignore[assignment]
        build_class_table(config)
    except (OmegaConfBaseException, ConfigError) as error:
        raise CheckpointError(
            f"{checkpoint.path}: doesn't define the meaning of label values ({first_line(error)}); labels= "
            "needs a checkpoint that was trained by this version of geo_seg"
        ) from error
    return config


def _match_labels(labels: str | list[str], rasters: dict[str, str]) -> dict[str, str]:
    """Return the paths of labels by name of the map, for rasters that have labels."""
    patterns = labels if isinstance(labels, list) else [labels]
    paths = []
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise ConfigError(f"labels={labels!r}: expected a file, a folder, a glob or a list of these")
        paths += [path for path in _expand(pattern) if path not in paths]
    if len(paths) == 1 and (len(rasters) == 1 or is_vector(paths[0])):  # one polygon file for all rasters
        return dict.fromkeys(rasters, paths[0])
    stems = [display_name(path) for path in paths]
    duplicate = next((stem for stem, count in Counter(stems).items() if count > 1), None)
    if duplicate is not None:
        raise DataError(f"labels={labels}: several files are named {duplicate}; expected one for each raster")
    by_stem = dict(zip(stems, paths, strict=True))
    matched = {
        name: by_stem[stem]
        for name, path in rasters.items()
        for stem in [name if name in by_stem else Path(container_of(path)).stem]
        if stem in by_stem
    }
    if not matched:
        name = next(iter(rasters))
        raise DataError(
            f"labels={labels}: no file has the name of a raster, for example {name}.tif; found: "
            f"{', '.join(sorted(Path(path).name for path in paths)[:3])}"
        )
    return matched


def _expand(pattern: str) -> list[str]:
    paths = rasters_at(pattern, (*SUFFIXES, *VECTORS))
    if not paths:
        raise DataError(f"labels={pattern}: no such file, and no file matches it as a glob")
    return paths


def _check_values(mask: RasterInfo, table: ClassTable) -> None:
    expected = [value for values in table.values for value in values] + list(table.ignore_values)
    unexpected: Counter[int] = Counter()
    with RasterReader(mask.path) as reader:
        for row in range(0, mask.height, _CHUNK_ROWS):
            (values,), _ = reader.read(Window(row, 0, min(_CHUNK_ROWS, mask.height - row), mask.width))
            unique, counts = np.unique(values[~np.isin(values, expected)], return_counts=True)
            unexpected.update(dict(zip(unique.tolist(), counts.tolist(), strict=True)))
    check_mask(table, mask.path, unexpected, mask.nodata[0])
