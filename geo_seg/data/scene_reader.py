"""Readers of scenes: windows of image, labels and validity, from the rasters or from a decoded copy."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.class_table import ClassTable
from geo_seg.data.scenes.scene import Scene
from geo_seg.errors import DataError
from geo_seg.raster.reader import RasterReader
from geo_seg.tiling import Window


class WindowArrays(NamedTuple):
    """Arrays into which a window is read.

    Attributes:
        image: (bands, height, width), 0 outside the scene.
        labels: (height, width), ignore_index outside the scene and where the image is nodata.
        valid: (height, width), True where the image is not nodata.
    """

    image: NDArray[Any]
    labels: NDArray[Any]
    valid: NDArray[np.bool_]


class SceneReader(Protocol):
    """Interface of an open scene."""

    def read_into(self, window: Window, into: WindowArrays) -> None:
        """Read a window, which may extend beyond the scene."""

    def labels(self, window: Window) -> NDArray[Any]:
        """Read the labels (height, width) of a window inside the scene, whatever its image holds."""

    def close(self) -> None:
        """Close the files."""


class RasterSceneReader:
    """Reader of a scene's rasters, for one thread.

    Args:
        scene: the scene.
        table: maps mask values to labels.
        config: nodata options.
        all_valid: promise that no pixel is nodata, so that validity isn't computed.

    Raises:
        DataError: a file can't be opened or, in the methods, read.
    """

    def __init__(
        self, scene: Scene, table: ClassTable, config: DatasetConfig, all_valid: bool = False
    ) -> None:
        self.image = RasterReader(
            scene.image.path, scene.bands, config.nodata, config.zero_is_nodata, all_valid
        )
        self.mask = RasterReader(scene.mask.path)
        self._labels = label_lookup(table, np.dtype(self.mask.info.dtype))
        self._ignore_index = table.ignore_index

    def read_into(self, window: Window, into: WindowArrays) -> None:
        """Read a window, which may extend beyond the scene."""
        self.read_mask_values(window, into)

    def read_mask_values(self, window: Window, into: WindowArrays) -> NDArray[Any]:
        """Read a window as read_into does, and return its mask values (height, width)."""
        self.image.read_into(window, into.image, into.valid)
        values = np.empty(into.labels.shape, self.mask.info.dtype)
        self.mask.read_into(window, values[None], None)
        into.labels[...] = self._labels(values)
        if not into.valid.all():
            np.putmask(into.labels, ~into.valid, self._ignore_index)
        return values

    def labels(self, window: Window) -> NDArray[Any]:
        """Read the labels (height, width) of a window inside the scene, whatever its image holds."""
        values = np.empty((window.height, window.width), self.mask.info.dtype)
        self.mask.read_into(window, values[None], None)
        return self._labels(values)

    def close(self) -> None:
        """Close the files."""
        self.image.close()
        self.mask.close()


class MemmapSceneReader:
    """Reader of a scene's decoded copy, a memory-mapped file that any number of threads may share.

    The file holds the arrays image (bands, rows, columns), labels and valid one after the other.

    Args:
        path: the file.
        scene: the scene of which it is a copy.
        table: determines the data type of the labels.
        all_valid: promise that no pixel is nodata.
        writable: open the file for writing; see preallocate.

    Raises:
        DataError: the file is missing.
    """

    def __init__(
        self, path: Path, scene: Scene, table: ClassTable, all_valid: bool = False, writable: bool = False
    ) -> None:
        self._all_valid = all_valid
        self._height, self._width = scene.image.height, scene.image.width
        self._ignore_index = table.ignore_index
        try:
            # as a plain array: slicing a memmap is several times slower
            content = np.asarray(np.memmap(path, np.uint8, "r+" if writable else "r"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: the decoded copy of {scene.name} is missing; run again") from error
        parts = []
        start = 0
        for dtype, shape in _layout(scene, table):
            count = math.prod(shape)
            parts.append(content[start : start + count * dtype.itemsize].view(dtype).reshape(shape))
            start += _align(count * dtype.itemsize)
        self.pixels = WindowArrays(*parts)

    def read_into(self, window: Window, into: WindowArrays) -> None:
        """Read a window, which may extend beyond the scene at the bottom and on the right."""
        row, col, height, width = window
        bottom, right = min(row + height, self._height), min(col + width, self._width)
        if (bottom - row, right - col) != (height, width):
            fill_invalid(into, self._ignore_index)
        into.image[:, : bottom - row, : right - col] = self.pixels.image[:, row:bottom, col:right]
        into.labels[: bottom - row, : right - col] = self.pixels.labels[row:bottom, col:right]
        valid = True if self._all_valid else self.pixels.valid[row:bottom, col:right]
        into.valid[: bottom - row, : right - col] = valid

    def labels(self, window: Window) -> NDArray[Any]:
        """Read the labels (height, width) of a window inside the scene; ignored where the image is nodata."""
        row, col, height, width = window
        return self.pixels.labels[row : row + height, col : col + width]

    def close(self) -> None:
        """Do nothing: the file is unmapped with the last array that refers to it."""


def fill_invalid(into: WindowArrays, ignore_index: int) -> None:
    """Fill a window with the values of invalid pixels: image 0, labels ignore_index, valid False."""
    into.image[...] = 0
    into.labels[...] = ignore_index
    into.valid[...] = False


def label_dtype(table: ClassTable) -> np.dtype[Any]:
    """Return the narrowest data type that holds all labels and ignore_index."""
    narrow = 0 <= table.ignore_index <= 255 and len(table.names) <= 256
    return np.dtype(np.uint8 if narrow else np.int16)


def label_lookup(table: ClassTable, dtype: np.dtype[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function from mask values of a data type to labels: by a lookup table for 8 and 16 bits."""
    if dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        return table.labels
    lookup = table.labels(np.arange(np.iinfo(dtype).max + 1, dtype=dtype)).astype(label_dtype(table))
    if dtype != np.uint8 or lookup.dtype != np.uint8:
        return lookup.take
    translation = lookup.tobytes()  # of bytes.translate: needs no index of 8 bytes per pixel

    def translate(values: NDArray[Any]) -> NDArray[Any]:
        return np.frombuffer(values.tobytes().translate(translation), np.uint8).reshape(values.shape)

    return translate


def memmap_size(scene: Scene, table: ClassTable) -> int:
    """Return the size in bytes of a scene's decoded copy."""
    return sum(_align(math.prod(shape) * dtype.itemsize) for dtype, shape in _layout(scene, table))


def preallocate(path: Path, size: int) -> None:
    """Create a file of a size, so that a full disk is an error now instead of a crash while writing.

    Raises:
        DataError: the disk has no room for it.
    """
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise DataError(
            f"{path}: no room for a decoded copy of {size >> 20} MB ({error.strerror}); "
            "see dataset.cache and dataset.cache_dir"
        ) from error


def _layout(scene: Scene, table: ClassTable) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
    shape = (scene.image.height, scene.image.width)
    return [
        (np.dtype(scene.image.dtype), (len(scene.bands), *shape)),
        (label_dtype(table), shape),
        (np.dtype(bool), shape),
    ]


def _align(size: int) -> int:
    return -(-size // 64) * 64
