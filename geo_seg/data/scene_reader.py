"""An open scene: windows of its image, labels and valid pixels, from the rasters or from a decoded copy."""

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
    """What a window is read into.

    Attributes:
        image: (bands, height, width), 0 outside the scene.
        labels: (height, width), ignore_index outside the scene and where the image is nodata.
        valid: (height, width), whether the image holds a measurement.
    """

    image: NDArray[Any]
    labels: NDArray[Any]
    valid: NDArray[np.bool_]


class SceneReader(Protocol):
    """What windows are read from."""

    def read_into(self, window: Window, into: WindowArrays) -> None:
        """Reads a window, which may reach past the scene."""

    def labels(self, window: Window) -> NDArray[Any]:
        """Read the labels (height, width) of a window inside the scene, whatever its image holds."""

    def close(self) -> None:
        """Closes the files."""


class RasterSceneReader:
    """A scene read straight from its rasters; belongs to one thread.

    Args:
        scene: where the files are.
        table: turns mask values into labels.
        config: says what is nodata.
        whole: all pixels are known to be valid.

    Raises:
        DataError: a file can't be opened; later, can't be read.
    """

    def __init__(self, scene: Scene, table: ClassTable, config: DatasetConfig, whole: bool = False) -> None:
        self.image = RasterReader(scene.image.path, scene.bands, config.nodata, config.zero_is_nodata, whole)
        self.mask = RasterReader(scene.mask.path)
        self._labels = label_lookup(table, np.dtype(self.mask.info.dtype))
        self._ignore_index = table.ignore_index

    def read_into(self, window: Window, into: WindowArrays) -> None:
        """Reads a window, which may reach past the scene."""
        self.values(window, into)

    def values(self, window: Window, into: WindowArrays) -> NDArray[Any]:
        """Reads a window as read_into does, and gives its (height, width) mask values."""
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
        """Closes the files."""
        self.image.close()
        self.mask.close()


class MemmapSceneReader:
    """A scene read from its decoded copy, a memory-mapped file that any number of threads may share.

    The file holds image (bands, rows, columns), labels and valid one after the other, as they lie in memory.

    Args:
        path: the file.
        scene: what it is a copy of.
        table: decides the type of the labels.
        whole: all pixels are known to be valid.
        writable: for filling the copy; see preallocate.

    Raises:
        DataError: it is gone.
    """

    def __init__(
        self, path: Path, scene: Scene, table: ClassTable, whole: bool = False, writable: bool = False
    ) -> None:
        self._whole = whole
        self._height, self._width = scene.image.height, scene.image.width
        self._ignore_index = table.ignore_index
        try:
            # as a plain array: parts of a memmap are made several times slower
            content = np.asarray(np.memmap(path, np.uint8, "r+" if writable else "r"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: the decoded copy of {scene.name} is gone; run again") from error
        parts = []
        start = 0
        for dtype, shape in _layout(scene, table):
            count = math.prod(shape)
            parts.append(content[start : start + count * dtype.itemsize].view(dtype).reshape(shape))
            start += _aligned(count * dtype.itemsize)
        self.pixels = WindowArrays(*parts)

    def read_into(self, window: Window, into: WindowArrays) -> None:
        """Reads a window, which may reach past the scene below and on the right."""
        row, col, height, width = window
        bottom, right = min(row + height, self._height), min(col + width, self._width)
        if (bottom - row, right - col) != (height, width):
            fill_invalid(into, self._ignore_index)
        into.image[:, : bottom - row, : right - col] = self.pixels.image[:, row:bottom, col:right]
        into.labels[: bottom - row, : right - col] = self.pixels.labels[row:bottom, col:right]
        seen = True if self._whole else self.pixels.valid[row:bottom, col:right]
        into.valid[: bottom - row, : right - col] = seen

    def labels(self, window: Window) -> NDArray[Any]:
        """Read the labels (height, width) of a window inside the scene; ignored where the image is nodata."""
        row, col, height, width = window
        return self.pixels.labels[row : row + height, col : col + width]

    def close(self) -> None:
        """The mapping ends with the last array that shows it."""


def fill_invalid(into: WindowArrays, ignore_index: int) -> None:
    """Fills a window with what is not there."""
    into.image[...] = 0
    into.labels[...] = ignore_index
    into.valid[...] = False


def label_dtype(table: ClassTable) -> np.dtype[Any]:
    """The narrowest type that holds all labels and ignore_index."""
    narrow = 0 <= table.ignore_index <= 255 and len(table.names) <= 256
    return np.dtype(np.uint8 if narrow else np.int16)


def label_lookup(table: ClassTable, dtype: np.dtype[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What turns mask values of a type into labels: by a table of all values where the type has few."""
    if dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        return table.labels
    listed = table.labels(np.arange(np.iinfo(dtype).max + 1, dtype=dtype)).astype(label_dtype(table))
    if dtype != np.uint8 or listed.dtype != np.uint8:
        return listed.take
    translation = listed.tobytes()  # of texts: no index of eight bytes per pixel

    def translated(values: NDArray[Any]) -> NDArray[Any]:
        return np.frombuffer(values.tobytes().translate(translation), np.uint8).reshape(values.shape)

    return translated


def memmap_size(scene: Scene, table: ClassTable) -> int:
    """Size of a scene's decoded copy."""
    return sum(_aligned(math.prod(shape) * dtype.itemsize) for dtype, shape in _layout(scene, table))


def preallocate(path: Path, size: int) -> None:
    """Makes a file that long; a disk that is too full says so now, not as a crash in the middle.

    Raises:
        DataError: there isn't room for it.
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


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
