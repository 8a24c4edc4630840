"""Batches of windows, read by a pool of threads into memory that is used again."""

import copy
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np
import torch
from torch import Tensor

from geo_seg.data.scene_reader import WindowArrays, fill_invalid
from geo_seg.data.windows.batch import Batch
from geo_seg.data.windows.reader import WindowReader
from geo_seg.data.windows.sampler import RandomWindowSampler, SceneWindow

_MAX_REDRAWS = 100  # draws for a window with a labelled pixel


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

    def full_epoch(self) -> Self:
        """Return a loader of the whole epoch, even in a resumed run; waiting for it isn't counted here."""
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
