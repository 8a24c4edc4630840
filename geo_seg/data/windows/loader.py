"""Batches of windows, read by a pool of threads into memory that is used again."""

import copy
import threading
import time
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
from geo_seg.data.windows.sampler import RandomWindowSampler, SceneWindow
from geo_seg.errors import DataError
from geo_seg.tiling import Window

Batch = dict[str, Tensor]
_MAX_OPEN_FILES = 256  # rasters that all threads together keep open; systems allow some 1000 open files
_MAX_REDRAWS = 100  # draws for a window with a labelled pixel


class WindowReader:
    """Reads windows of scenes; each thread has its own handles.

    Args:
        scenes: where windows come from.
        index: of each scene.
        table: turns mask values into labels.
        config: says what is nodata, what becomes of windows that can't be read, and how many threads read.

    Attributes:
        table: the classes.
        dtype: NumPy type that holds the values of all the images.
        bands: how many bands the model sees.
        unreadable: per scene name, how many windows could not be read and became ignored pixels.
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
        self._most = max(_MAX_OPEN_FILES // (2 * config.num_threads), 4)
        self._local = threading.local()

    def read(self, place: SceneWindow) -> WindowArrays:
        """Reads a window into new arrays; see read_into."""
        pixels = WindowArrays(
            *(part[0].numpy() for part in self.allocate(1, place[1].height, place[1].width))
        )
        self.read_into(place, pixels)
        return pixels

    def read_into(self, place: SceneWindow, into: WindowArrays) -> None:
        """Reads a window, which may reach past its scene below and on the right.

        Raises:
            DataError: a file can't be read there, and on_read_error is "raise".
        """
        index, window = place
        try:
            self._open(index).read_into(window, into)
        except DataError:
            if self._config.on_read_error == "raise":
                raise
            fill_invalid(into, self.table.ignore_index)
            self.unreadable[self._scenes[index].name] += 1

    def read_labels(self, place: SceneWindow) -> NDArray[Any]:
        """Read the labels (height, width) of a window inside its scene; see read_into."""
        index, window = place
        try:
            return self._open(index).labels(window)
        except DataError:
            if self._config.on_read_error == "raise":
                raise
            self.unreadable[self._scenes[index].name] += 1
            return np.full((window.height, window.width), self.table.ignore_index, label_dtype(self.table))

    def read_with_border(self, place: SceneWindow, margin: int, into: WindowArrays) -> None:
        """Reads a window and what lies around it; nothing is seen of what is barred in the scene.

        Args:
            place: of the window.
            margin: pixels beside each side of it.
            into: of the window with its margin.

        Raises:
            DataError: see read_into.
        """
        index, window = place
        if not margin:
            self.read_into(place, into)
            return
        top, left = window.row - margin, window.col - margin
        above, before = max(-top, 0), max(-left, 0)
        if above or before:
            fill_invalid(into, self.table.ignore_index)
        height, width = into.labels.shape
        around = Window(top + above, left + before, height - above, width - before)
        self.read_into((index, around), WindowArrays(*(part[..., above:, before:] for part in into)))
        for row, col, rows, cols in self._scenes[index].excluded:
            hidden = (
                ...,
                slice(max(row - top, 0), max(row + rows - top, 0)),
                slice(max(col - left, 0), max(col + cols - left, 0)),
            )
            fill_invalid(WindowArrays(*(part[hidden] for part in into)), self.table.ignore_index)

    def allocate(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Memory for the image, labels and valid of windows, pinned where there is a GPU."""
        pinned = torch.cuda.is_available()
        shape = (count, height, width)
        wanted = (
            (self.dtype, (count, self.bands, height, width)),
            (label_dtype(self.table), shape),
            (np.dtype(bool), shape),
        )
        return tuple(
            torch.empty(size, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=pinned)
            for dtype, size in wanted
        )

    def _open(self, index: int) -> SceneReader:
        handles: OrderedDict[int, SceneReader] = self._local.__dict__.setdefault("handles", OrderedDict())
        if index in handles:
            handles.move_to_end(index)
            return handles[index]
        if len(handles) >= self._most:
            handles.popitem(last=False)[1].close()
        scene, found = self._scenes[index], self._index[index]
        whole = found.bands.pixels == scene.image.height * scene.image.width
        handles[index] = (
            MemmapSceneReader(found.decoded_path, scene, self.table, whole)
            if found.decoded_path
            else RasterSceneReader(scene, self.table, self._config, whole)
        )
        return handles[index]


class WindowLoader:
    """An iterable of batches, in an order that does not depend on the number of threads.

    A batch is a dict of image (N, bands, S, S) in the rasters' dtype, labels (N, S, S) uint8 or int16, valid
    (N, S, S) bool and place (N, 3) int64: number of the scene, first row and first column of the window, that
    is without its margin. Its memory is filled again once nobody holds any of its tensors.

    Args:
        reader: reads windows.
        windows: what an epoch consists of: random windows, or the same places every time.
        size: number of windows in an epoch, over all ranks.
        window: their side.
        batch_size: windows of a batch.
        drop_last: leaves out a batch that isn't full.
        threads: how many read.
        epoch: tells the number of the epoch that begins.
        start: tells how many of its batches a resumed run has done before.
        rank: of this process.
        world_size: number of processes; each reads its own share of an epoch.
        margin: pixels that are read beside each side of random windows; the scene's, but for what is barred.

    Attributes:
        wait_seconds: seconds that whoever takes batches has waited for them so far.
    """

    def __init__(
        self,
        reader: WindowReader,
        windows: RandomWindowSampler | Sequence[SceneWindow],
        *,
        size: int,
        window: int,
        batch_size: int,
        drop_last: bool,
        threads: int,
        epoch: Callable[[], int],
        start: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
        margin: int = 0,
    ) -> None:
        self.wait_seconds = 0.0
        self._reader = reader
        self._windows = windows
        self._margin = margin
        self._side = window + 2 * margin
        self._batch_size = batch_size
        self._epoch = epoch
        self._start = start
        self._threads = threads
        # threads outlive an epoch, and with them the files that they hold open and the blocks that GDAL keeps
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="windows")
        self._free: deque[tuple[Tensor, ...]] = deque()
        mine = range(rank, size, world_size)
        if drop_last:
            mine = mine[: size // world_size // batch_size * batch_size]
        self._batches = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        epoch, windows = self._epoch(), self._windows
        places = windows.epoch(epoch) if isinstance(windows, RandomWindowSampler) else windows
        waiting: deque[Future[Batch]] = deque()
        try:
            for numbers in self._batches[self._start() :]:
                waiting.append(self._pool.submit(self._fill, epoch, places, numbers))
                if len(waiting) > self._threads:
                    yield self._wait(waiting.popleft())
            while waiting:
                yield self._wait(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()

    def full_epoch(self) -> "WindowLoader":
        """The epoch as a whole, for something beside training: waiting for it isn't counted here."""
        whole = copy.copy(self)
        whole._start = lambda: 0
        return whole

    def _wait(self, future: Future[Batch]) -> Batch:
        begun = time.perf_counter()
        batch = future.result()
        self.wait_seconds += time.perf_counter() - begun
        return batch

    def _fill(self, epoch: int, places: Sequence[SceneWindow], numbers: range) -> Batch:
        try:
            memory = self._free.popleft()
        except IndexError:
            memory = self._reader.allocate(self._batch_size, self._side, self._side)
        arrays = [part.numpy() for part in memory]
        read = []
        for slot, number in enumerate(numbers):
            into = WindowArrays(*(part[slot] for part in arrays))
            place = places[number]
            if isinstance(self._windows, RandomWindowSampler):
                place = self._draw(self._windows, epoch, number, place, into)
            else:
                self._read(place, into)
            read.append((place[0], place[1].row, place[1].col))
        return {**self._reuse_when_freed(memory, len(numbers)), "place": torch.tensor(read)}

    def _read(self, place: SceneWindow, into: WindowArrays) -> None:
        """Reads a window that may be smaller than the memory for it: nothing beside its part is seen."""
        _, (_, _, height, width) = place
        if into.labels.shape != (height, width):
            fill_invalid(into, self._reader.table.ignore_index)
        self._reader.read_into(place, WindowArrays(*(part[..., :height, :width] for part in into)))

    def _draw(
        self, windows: RandomWindowSampler, epoch: int, number: int, place: SceneWindow, into: WindowArrays
    ) -> SceneWindow:
        """Reads a training window and says which; one without a labelled pixel is drawn again."""
        inside = slice(self._margin, self._side - self._margin)
        for attempt in range(1, _MAX_REDRAWS):
            if not windows.is_unlabelled(place):
                self._reader.read_with_border(place, self._margin, into)
                # the middle alone answers for most windows
                ignored = self._reader.table.ignore_index
                middle = into.labels[self._side // 2, self._side // 2]
                if middle != ignored or np.any(into.labels[inside, inside] != ignored):
                    return place
            place = windows.redraw(epoch, number, attempt)
        self._reader.read_with_border(place, self._margin, into)
        return place

    def _reuse_when_freed(self, memory: tuple[Tensor, ...], count: int) -> Batch:
        """A batch in this memory, which comes back when the last tensor that shows it is gone."""
        if memory[0].is_pinned():  # torch uses pinned memory again itself, once copies from it have ended
            return _batch(memory, count)
        views = [part.numpy() for part in memory]
        left = [len(views)]

        def gone() -> None:
            left[0] -= 1
            if not left[0]:
                self._free.append(memory)

        for view in views:
            weakref.finalize(view, gone).atexit = False
        return _batch([torch.from_numpy(view) for view in views], count)


def _batch(tensors: Sequence[Tensor], count: int) -> Batch:
    image, labels, valid = tensors
    return {"image": image[:count], "labels": labels[:count], "valid": valid[:count]}
