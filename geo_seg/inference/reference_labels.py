"""Maps against labels, counted while the parts of a map are still at hand."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from geo_seg.inference.assemble import SOFTWARE, class_dtype
from geo_seg.inference.inputs import CLASSES, DIFFERENCE, SUFFIXES
from geo_seg.inference.part_store import PartStore
from geo_seg.metrics.scores import Scores, segmentation_scores
from geo_seg.raster.cog import RasterSpec
from geo_seg.raster.georeference import same_grid
from geo_seg.raster.paths import absolute_path, container_of, display_name, rasters_at
from geo_seg.raster.reader import RasterInfo, RasterReader
from geo_seg.raster.writer import RowWriter, write_error
from geo_seg.runtime.files import atomic_write
from geo_seg.tiling import Grid, Window

METRICS_FILE = "metrics.json"
"""Where the scores go, beside the maps."""

_REMEDY = (
    "the classes are those that the model learnt: recode the labels, or make what should not count nodata"
)
_MEANING = ("mode", "classes", "ignore_index", "ignore_values", "unlisted", "label")
_ROWS = 256  # that are compared at once
_RIGHT = (235, 235, 235)  # colour of pixels that are right in a raster of differences


class LabelComparison:
    """Labels of the rasters of a run.

    Args:
        labels: a file, a folder, a glob or a list of these.
        rasters: what is mapped, by the names of the maps.
        checkpoint: knows the data set, and so what the values of the labels mean.

    Raises:
        CheckpointError: it doesn't say what the values mean.
        ConfigError: labels is no path.
        DataError: there are no labels, or none of them fits a raster.
    """

    def __init__(self, labels: Any, rasters: dict[str, str], checkpoint: Checkpoint) -> None:
        self._config = _dataset(checkpoint)
        self._table = replace(build_class_table(self._config), remedy=_REMEDY)
        self._names = checkpoint.class_names
        self._colors = checkpoint.class_colors
        self._files = _match(labels, rasters)
        self._counts: dict[str, NDArray[np.int64]] = {}

    @property
    def maps(self) -> int:
        """How many were compared."""
        return len(self._counts)

    def open(self, name: str, info: RasterInfo) -> "RasterReference | None":
        """The labels of a raster, or None if it has none.

        Raises:
            DataError: they can't be read, don't fit the raster, or hold what no class stands for.
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
                    notes = ["lie on another grid; every pixel gets the nearest value", *notes]
        return RasterReference(path, mask, self._table, self.layer, tuple(notes))

    def stamp(self, name: str) -> Stamp | None:
        """Return what tells two states of a raster's labels apart; None where there are none on this disk."""
        return file_stamps([absolute_path(self._files[name])]) if name in self._files else None

    def add(self, name: str, counts: NDArray[np.int64]) -> Scores:
        """Keeps the confusion matrix of a finished map; gives its scores."""
        self._counts[name] = counts
        return segmentation_scores(torch.from_numpy(counts), self._names)

    @property
    def layer(self) -> RasterSpec:
        """The raster that shows where a map is wrong."""
        nodata, dtype = class_dtype(len(self._names) + 1)
        shown = ("right", *(f"wrong: is {name}" for name in self._names))
        title = ("label of wrong pixels",)
        return RasterSpec(DIFFERENCE, dtype, nodata, title, shown, (_RIGHT, *self._colors), 1, SOFTWARE)

    @property
    def total(self) -> Scores | None:
        """The scores of all maps together; None without any."""
        if not self._counts:
            return None
        return segmentation_scores(torch.from_numpy(np.sum(list(self._counts.values()), axis=0)), self._names)

    def write(self, folder: Path) -> None:
        """Writes the scores of all maps together, and of each.

        Raises:
            DataError: they can't be written.
        """
        each = {
            name: segmentation_scores(torch.from_numpy(counts), self._names)
            for name, counts in self._counts.items()
        }
        file = folder / METRICS_FILE
        try:
            atomic_write(file, json.dumps({**(self.total or {}), "scenes": each}, indent=2), fsync=True)
        except OSError as error:
            raise write_error(file, error) from error


class RasterReference:
    """The labels of one raster, on its grid.

    Args:
        path: what the user gave.
        mask: a raster of mask values.
        table: what they mean.
        layer: the raster of differences.
        notes: what the user should know about them.
    """

    def __init__(
        self, path: str, mask: RasterInfo, table: ClassTable, layer: RasterSpec, notes: tuple[str, ...]
    ) -> None:
        self.path = path
        self.layer = layer
        self.notes = notes
        self._mask = mask
        self._table = table

    def compare(self, journal: PartStore, number: int, part: Grid) -> NDArray[np.int64]:
        """Counts a finished part of a map, and writes where it is wrong.

        Args:
            journal: where the part is.
            number: of the part.
            part: its windows.

        Returns:
            (classes, classes) pixels that are no nodata, labels in rows.

        Raises:
            DataError: the labels can't be read, or the differences not be written.
        """
        classes, area = len(self._table.names), part.area
        counts: NDArray[np.int64] = np.zeros((classes, classes), np.int64)
        nodata = self.layer.nodata
        file = journal.part(number, self.layer.suffix)
        with (
            RasterReader(journal.part(number, CLASSES)) as found,
            RasterReader(self._mask.path) as mask,
            RowWriter(file, (1, area.height, area.width), self.layer.dtype) as target,
        ):
            for row in range(0, area.height, _ROWS):
                height = min(_ROWS, area.height - row)
                (predicted,), _ = found.read(Window(row, 0, height, area.width))
                (values,), _ = mask.read(Window(area.row + row, area.col, height, area.width))
                labels = self._table.labels(values)
                counted = (labels != self._table.ignore_index) & (predicted < classes)
                cell = labels[counted].astype(np.int64) * classes + predicted[counted]
                counts += np.bincount(cell, minlength=classes**2).reshape(classes, classes)
                wrong = np.where(labels == predicted, 0, labels + 1)
                target.append(np.where(counted, wrong, nodata)[None].astype(self.layer.dtype))
        return counts


def _dataset(checkpoint: Checkpoint) -> DatasetConfig:
    """What labels meant in training, and nothing else; label rasters on another grid are aligned."""
    held = checkpoint.metadata.config.get("dataset", {})
    known: dict[Any, Any] = {key: held[key] for key in _MEANING if key in held}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(DatasetConfig), {"name": "-", "root": ".", **known})
        merged.label.align = "reproject"
        found: Any = OmegaConf.to_object(merged)
        build_class_table(found)
    except (OmegaConfBaseException, ConfigError) as error:
        raise CheckpointError(
            f"{checkpoint.path}: doesn't say what the values of labels mean ({first_line(error)}); labels= "
            "needs a checkpoint of a training run of this geo_seg"
        ) from error
    return found


def _match(labels: Any, rasters: dict[str, str]) -> dict[str, str]:
    """The labels of each raster that has some, by the names of the maps."""
    patterns = labels if isinstance(labels, list) else [labels]
    found = []
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise ConfigError(f"labels={labels!r}: expected a file, a folder, a glob or a list of these")
        found += [path for path in _expand(pattern) if path not in found]
    if len(found) == 1 and (len(rasters) == 1 or is_vector(found[0])):  # one file of polygons for all
        return dict.fromkeys(rasters, found[0])
    stems = [display_name(path) for path in found]
    twice = next((stem for stem, count in Counter(stems).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"labels={labels}: several files are named {twice}; expected one for each raster")
    by_stem = dict(zip(stems, found, strict=True))
    matched = {
        name: by_stem[stem]
        for name, path in rasters.items()
        for stem in [name if name in by_stem else Path(container_of(path)).stem]
        if stem in by_stem
    }
    if not matched:
        name = next(iter(rasters))
        raise DataError(
            f"labels={labels}: no file there is named like a raster, for example {name}.tif; there is: "
            f"{', '.join(sorted(Path(path).name for path in found)[:3])}"
        )
    return matched


def _expand(pattern: str) -> list[str]:
    found = rasters_at(pattern, (*SUFFIXES, *VECTORS))
    if not found:
        raise DataError(f"labels={pattern}: there is no such file, and nothing matches it as a glob")
    return found


def _check_values(mask: RasterInfo, table: ClassTable) -> None:
    listed = [value for values in table.values for value in values] + list(table.ignore_values)
    strange: Counter[int] = Counter()
    with RasterReader(mask.path) as reader:
        for row in range(0, mask.height, _ROWS):
            (values,), _ = reader.read(Window(row, 0, min(_ROWS, mask.height - row), mask.width))
            found, counts = np.unique(values[~np.isin(values, listed)], return_counts=True)
            strange.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    check_mask(table, mask.path, strange, mask.nodata[0])
