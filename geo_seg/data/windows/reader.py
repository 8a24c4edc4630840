"""Reader of scene windows, shared by threads: image, labels and validity of a window as arrays."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.class_table import ClassTable
from geo_seg.data.index import SceneIndex
from geo_seg.data.scene_reader import (
    MemmapSceneReader,
    RasterSceneReader,
    SceneReader,
    WindowArrays,
    fill_invalid,
    label_dtype,
)
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.windows.sampler import SceneWindow
from geo_seg.errors import DataError
from geo_seg.tiling import Window

_MAX_OPEN_FILES = 256  # rasters that all threads together keep open; systems allow some 1000 open files


class WindowReader:
    """Reader of windows of scenes; each thread has its own file handles.

    Args:
        scenes: the scenes.
        index: index of each scene.
        table: maps mask values to labels.
        config: nodata options, on_read_error and number of threads.

    Attributes:
        table: the classes.
        dtype: NumPy type that holds the values of all images.
        bands: number of bands.
        unreadable: number of windows of each scene (by name) that could not be read and are ignored.
    """

    def __init__(
        self, scenes: Sequence[Scene], index: Sequence[SceneIndex], table: ClassTable, config: DatasetConfig
    ) -> None:
        self.table = table
        self.dtype = np.result_type(*{scene.image.dtype for scene in scenes})
        self.bands = len(scenes[0].bands)
        self.unreadable: Counter[str] = Counter()
        self._scenes = scenes
        self._index = index
        self._config = config
        self._max_handles = max(_MAX_OPEN_FILES // (2 * config.num_threads), 4)
        self._local = threading.local()

    def read(self, scene_window: SceneWindow) -> WindowArrays:
        """Read a window into new arrays; see read_into."""
        pixels = WindowArrays(
            *(part[0].numpy() for part in self.allocate(1, scene_window[1].height, scene_window[1].width))
        )
        self.read_into(scene_window, pixels)
        return pixels

    def read_into(self, scene_window: SceneWindow, into: WindowArrays) -> None:
        """Read a window, which may extend beyond its scene at the bottom and on the right.

        Raises:
            DataError: a file can't be read there, and on_read_error is "raise".
        """
        index, window = scene_window
        try:
            self._open(index).read_into(window, into)
        except DataError:
            if self._config.on_read_error == "raise":
                raise
            fill_invalid(into, self.table.ignore_index)
            self.unreadable[self._scenes[index].name] += 1

    def read_labels(self, scene_window: SceneWindow) -> NDArray[Any]:
        """Read the labels (height, width) of a window inside its scene; see read_into."""
        index, window = scene_window
        try:
            return self._open(index).labels(window)
        except DataError:
            if self._config.on_read_error == "raise":
                raise
            self.unreadable[self._scenes[index].name] += 1
            return np.full((window.height, window.width), self.table.ignore_index, label_dtype(self.table))

    def read_with_border(self, scene_window: SceneWindow, border: int, into: WindowArrays) -> None:
        """Read a window and a border around it; excluded rectangles of the scene become invalid.

        Args:
            scene_window: the window, without its border.
            border: pixels to read around it.
            into: arrays of the size of the window with its border.

        Raises:
            DataError: see read_into.
        """
        index, window = scene_window
        if not border:
            self.read_into(scene_window, into)
            return
        top, left = window.row - border, window.col - border
        above, before = max(-top, 0), max(-left, 0)
        if above or before:
            fill_invalid(into, self.table.ignore_index)
        height, width = into.labels.shape
        clipped = Window(top + above, left + before, height - above, width - before)
        self.read_into((index, clipped), WindowArrays(*(part[..., above:, before:] for part in into)))
        for row, col, rows, cols in self._scenes[index].excluded:
            hidden = (
                ...,
                slice(max(row - top, 0), max(row + rows - top, 0)),
                slice(max(col - left, 0), max(col + cols - left, 0)),
            )
            fill_invalid(WindowArrays(*(part[hidden] for part in into)), self.table.ignore_index)

    def allocate(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Allocate tensors for image, labels and valid of windows, pinned if there is a GPU."""
        pinned = torch.cuda.is_available()
        shape = (count, height, width)
        layout = (
            (self.dtype, (count, self.bands, height, width)),
            (label_dtype(self.table), shape),
            (np.dtype(bool), shape),
        )
        return tuple(
            torch.empty(size, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=pinned)
            for dtype, size in layout
        )

    def _open(self, index: int) -> SceneReader:
        handles: OrderedDict[int, SceneReader] = self._local.__dict__.setdefault("handles", OrderedDict())
        if index in handles:
            handles.move_to_end(index)
            return handles[index]
        if len(handles) >= self._max_handles:
            handles.popitem(last=False)[1].close()
        scene, scene_index = self._scenes[index], self._index[index]
        all_valid = scene_index.bands.pixels == scene.image.height * scene.image.width
        handles[index] = (
            MemmapSceneReader(scene_index.decoded_path, scene, self.table, all_valid)
            if scene_index.decoded_path
            else RasterSceneReader(scene, self.table, self._config, all_valid)
        )
        return handles[index]
