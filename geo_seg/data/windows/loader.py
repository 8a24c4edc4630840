"""Loader of window batches, read by a pool of threads into recycled memory."""

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

_MAX_REDRAWS = 100  # until a window has a labelled pixel


class WindowLoader:
    """A Loader of windows, in an order that does not depend on the number of threads.

    A batch is a dict of image (N, bands, S, S) in the rasters' dtype, labels (N, S, S) uint8 or int16, valid
    (N, S, S) bool and place (N, 3) int64: scene number, first row and first column of the window, without its
    border. The memory of a batch is reused once none of its tensors is referenced.

    Args:
        reader: reader of windows.
        windows: windows of an epoch: a sampler, or a fixed list.
        size: number of windows in an epoch, over all ranks.
        window: side of the windows.
        batch_size: windows of a batch.
        drop_last: drop the last batch if it isn't full.
        threads: number of reading threads.
        epoch: returns the number of the current epoch.
        start: returns the number of batches that a resumed run has already done in this epoch.
        rank: of this process.
        world_size: number of processes; each reads its share of an epoch.
        border: pixels to read around random windows; excluded rectangles of the scene stay hidden.

    Attributes:
        wait_seconds: seconds that the consumer has waited for batches so far.
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
        border: int = 0,
    ) -> None:
        self.wait_seconds = 0.0
        self._reader = reader
        self._windows = windows
        self._border = border
        self._side = window + 2 * border
        self._batch_size = batch_size
        self._epoch = epoch
        self._start = start
        self._threads = threads
        # threads outlive an epoch, and with them their open files and the blocks in GDAL's cache
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="windows")
        self._free: deque[tuple[Tensor, ...]] = deque()
        of_rank = range(rank, size, world_size)
        if drop_last:
            of_rank = of_rank[: size // world_size // batch_size * batch_size]
        self._batches = [of_rank[i : i + batch_size] for i in range(0, len(of_rank), batch_size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        epoch, windows = self._epoch(), self._windows
        scene_windows = windows.epoch(epoch) if isinstance(windows, RandomWindowSampler) else windows
        pending: deque[Future[Batch]] = deque()
        try:
            for numbers in self._batches[self._start() :]:
                pending.append(self._pool.submit(self._fill, epoch, scene_windows, numbers))
                if len(pending) > self._threads:
                    yield self._wait(pending.popleft())
            while pending:
                yield self._wait(pending.popleft())
        finally:
            for future in pending:
                future.cancel()

    def full_epoch(self) -> Self:
        """Return a loader of the whole epoch, even in a resumed run; waiting for it isn't counted here."""
        loader = copy.copy(self)
        loader._start = lambda: 0
        return loader

    def _wait(self, future: Future[Batch]) -> Batch:
        started = time.perf_counter()
        batch = future.result()
        self.wait_seconds += time.perf_counter() - started
        return batch

    def _fill(self, epoch: int, scene_windows: Sequence[SceneWindow], numbers: range) -> Batch:
        try:
            memory = self._free.popleft()
        except IndexError:
            memory = self._reader.allocate(self._batch_size, self._side, self._side)
        arrays = [part.numpy() for part in memory]
        origins = []
        for slot, number in enumerate(numbers):
            into = WindowArrays(*(part[slot] for part in arrays))
            scene_window = scene_windows[number]
            if isinstance(self._windows, RandomWindowSampler):
                scene_window = self._draw(self._windows, epoch, number, scene_window, into)
            else:
                self._read(scene_window, into)
            origins.append((scene_window[0], scene_window[1].row, scene_window[1].col))
        return {**self._reuse_when_freed(memory, len(numbers)), "place": torch.tensor(origins)}

    def _read(self, scene_window: SceneWindow, into: WindowArrays) -> None:
        """Read a window that may be smaller than the memory for it; the rest becomes invalid pixels."""
        _, (_, _, height, width) = scene_window
        if into.labels.shape != (height, width):
            fill_invalid(into, self._reader.table.ignore_index)
        self._reader.read_into(scene_window, WindowArrays(*(part[..., :height, :width] for part in into)))

    def _draw(
        self,
        windows: RandomWindowSampler,
        epoch: int,
        number: int,
        scene_window: SceneWindow,
        into: WindowArrays,
    ) -> SceneWindow:
        """Read a training window and return it; redraw windows without a labelled pixel."""
        inside = slice(self._border, self._side - self._border)
        for attempt in range(1, _MAX_REDRAWS):
            if not windows.is_unlabelled(scene_window):
                self._reader.read_with_border(scene_window, self._border, into)
                # the centre pixel decides for most windows
                ignored = self._reader.table.ignore_index
                centre = into.labels[self._side // 2, self._side // 2]
                if centre != ignored or np.any(into.labels[inside, inside] != ignored):
                    return scene_window
            scene_window = windows.redraw(epoch, number, attempt)
        self._reader.read_with_border(scene_window, self._border, into)
        return scene_window

    def _reuse_when_freed(self, memory: tuple[Tensor, ...], count: int) -> Batch:
        """Return a batch in this memory, which becomes free with the last tensor that refers to it."""
        if memory[0].is_pinned():  # torch itself recycles pinned memory, once copies from it have ended
            return _batch(memory, count)
        views = [part.numpy() for part in memory]
        references = [len(views)]

        def release() -> None:
            references[0] -= 1
            if not references[0]:
                self._free.append(memory)

        for view in views:
            weakref.finalize(view, release).atexit = False
        return _batch([torch.from_numpy(view) for view in views], count)


def _batch(tensors: Sequence[Tensor], count: int) -> Batch:
    image, labels, valid = tensors
    return {"image": image[:count], "labels": labels[:count], "valid": valid[:count]}
