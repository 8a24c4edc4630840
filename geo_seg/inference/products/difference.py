"""The difference raster: where a map is wrong, and what is there by the labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.config.inference import InferenceConfig
from geo_seg.data.class_table import ClassTable
from geo_seg.inference.part_store import PartStore
from geo_seg.inference.products.classes import class_dtype
from geo_seg.inference.products.product import CLASSES, SOFTWARE, Raster, register_product
from geo_seg.raster.cog import RasterSpec
from geo_seg.raster.reader import RasterInfo, RasterReader
from geo_seg.raster.writer import RowWriter
from geo_seg.tiling import Grid, Window

_CHUNK_ROWS = 256  # rows that are compared at once
_CORRECT_COLOR = (235, 235, 235)  # colour of correct pixels


@register_product
@dataclass(frozen=True)
class Difference(Raster):
    """Labels of one raster, on its grid, and the raster of a map's differences from them.

    Attributes:
        path: of the labels as given.
        mask: raster of mask values.
        table: class table of the mask values.
        notes: for the user about the labels.
    """

    suffix = "_difference.tif"
    path: str
    mask: RasterInfo
    table: ClassTable
    notes: tuple[str, ...]

    @classmethod
    def of(cls, config: InferenceConfig, checkpoints: Sequence[Checkpoint]) -> None:
        """Return None: LabelComparison makes one for each raster that has labels."""

    @classmethod
    def spec_of(cls, checkpoint: Checkpoint) -> RasterSpec:
        """Return the spec of the raster: 0 where the map is right, else 1 + the label."""
        names, colors = checkpoint.class_names, (_CORRECT_COLOR, *checkpoint.class_colors)
        nodata, dtype = class_dtype(len(names) + 1)
        titles = ("right", *(f"wrong: is {name}" for name in names))
        return RasterSpec(cls.suffix, dtype, nodata, ("label of wrong pixels",), titles, colors, 1, SOFTWARE)

    def compare(self, store: PartStore, number: int, part: Grid) -> NDArray[np.int64]:
        """Count the confusion matrix of a finished part and write its difference raster.

        Args:
            store: parts of the map.
            number: index of the part.
            part: its grid.

        Returns:
            (classes, classes) valid labelled pixels, labels in rows.

        Raises:
            DataError: the labels can't be read, or the differences can't be written.
        """
        classes, area = len(self.table.names), part.area
        counts: NDArray[np.int64] = np.zeros((classes, classes), np.int64)
        nodata = self.spec.nodata
        file = store.part(number, self.suffix)
        with (
            RasterReader(store.part(number, CLASSES)) as map_reader,
            RasterReader(self.mask.path) as mask_reader,
            RowWriter(file, (1, area.height, area.width), self.spec.dtype) as target,
        ):
            for row in range(0, area.height, _CHUNK_ROWS):
                height = min(_CHUNK_ROWS, area.height - row)
                (predicted,), _ = map_reader.read(Window(row, 0, height, area.width))
                (values,), _ = mask_reader.read(Window(area.row + row, area.col, height, area.width))
                labels = self.table.labels(values)
                counted = (labels != self.table.ignore_index) & (predicted < classes)
                confusion_index = labels[counted].astype(np.int64) * classes + predicted[counted]
                counts += np.bincount(confusion_index, minlength=classes**2).reshape(classes, classes)
                difference = np.where(labels == predicted, 0, labels + 1)
                target.append(np.where(counted, difference, nodata)[None].astype(self.spec.dtype))
        return counts
