"""Batches of windows, read by a pool of threads straight from the rasters."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.data.classes import ClassTable
from geo_seg.data.scenes import Scene
from geo_seg.raster import RasterReader
from geo_seg.tiling import Window

Batch = dict[str, Tensor]
Place = tuple[int, Window]
_OPEN = 64  # scenes that a thread keeps open; systems allow some 1000 open files
_AHEAD = 2  # batches read ahead
_DRAWS = 20  # tries to find a window with a labelled pixel


class WindowReader:
    """Reads an image window with its labels; each thread has its own handles.

    Args:
        scenes: where windows come from.
        table: turns mask values into labels.
        nodata: overrides what the images declare.
    """

    def __init__(self, scenes: Sequence[Scene], table: ClassTable, nodata: float | None) -> None:
        self.scenes = scenes
        self.table = table
        self._nodata = nodata
        self._local = threading.local()

    def read(self, place: Place) -> tuple[NDArray[Any], NDArray[np.int16], NDArray[np.bool_]]:
        """Reads one window.

        Returns:
            image: (bands, height, width) in the file's dtype.
            labels: (height, width), ignore_index outside the scene and where the image is nodata.
            valid: (height, width), whether the image holds a measurement.

        Raises:
            DataError: a file can't be read there.
        """
        index, window = place
        image, mask = self._open(index)
        pixels, valid = image.read(window)
        values, _ = mask.read(window)
        labels = self.table.labels(values[0])
        labels[~valid] = self.table.ignore_index
        return pixels, labels, valid

    def _open(self, index: int) -> tuple[RasterReader, RasterReader]:
        handles: OrderedDict[int, tuple[RasterReader, RasterReader]] = self._local.__dict__.setdefault(
            "handles", OrderedDict()
        )
        if index in handles:
            handles.move_to_end(index)
            return handles[index]
        if len(handles) >= _OPEN:
            for reader in handles.popitem(last=False)[1]:
                reader.close()
        scene = self.scenes[index]
        handles[index] = (
            RasterReader(scene.image.path, scene.bands, self._nodata),
            RasterReader(scene.mask.path),
        )
        return handles[index]


class WindowBatches:
    """An iterable of batches, in an order that does not depend on the number of threads.

    A batch is a dict of image (N, bands, H, W) in the rasters' dtype, labels (N, H, W) int16 and valid
    (N, H, W) bool; with the scenes known, also scene (N,) int64.

    Args:
        reader: reads windows.
        size: number of windows in an epoch, over all ranks.
        sample: gives sample number i of an epoch: (epoch, i) to arrays as WindowReader.read gives them.
        batch_size: windows of a batch.
        drop_last: leaves out a batch that isn't full.
        threads: how many read.
        epoch: tells the number of the epoch that begins.
        rank: of this process.
        world_size: number of processes; each reads its own share of an epoch.
        scenes: per sample, the number of its scene, where it is the same in every epoch.
    """

    def __init__(
        self,
        sample: Callable[[int, int], tuple[NDArray[Any], NDArray[np.int16], NDArray[np.bool_]]],
        *,
        size: int,
        batch_size: int,
        drop_last: bool,
        threads: int,
        epoch: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
        scenes: Sequence[int] | None = None,
    ) -> None:
        self._sample = sample
        self._scenes = scenes
        self._epoch = epoch
        self._threads = threads
        mine = range(rank, size, world_size)
        if drop_last:
            mine = mine[: size // world_size // batch_size * batch_size]
        self._batches = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._epoch()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="windows") as pool:
            waiting: deque[tuple[range, list[Future[Any]]]] = deque()
            try:
                for numbers in self._batches:
                    futures = [pool.submit(self._sample, epoch, number) for number in numbers]
                    waiting.append((numbers, futures))
                    if len(waiting) > _AHEAD:
                        yield self._filled(*waiting.popleft())
                while waiting:
                    yield self._filled(*waiting.popleft())
            finally:
                for _, futures in waiting:
                    for future in futures:
                        future.cancel()

    def _filled(self, numbers: range, futures: Sequence[Future[Any]]) -> Batch:
        batch = _batch([future.result() for future in futures])
        if self._scenes is not None:
            batch["scene"] = torch.tensor([self._scenes[number] for number in numbers])
        return batch


def random_windows(
    reader: WindowReader, weights: Sequence[float], window: int, seed: int
) -> Callable[[int, int], tuple[NDArray[Any], NDArray[np.int16], NDArray[np.bool_]]]:
    """Training samples: a scene by weight, an offset at random; a window without labels is drawn again.

    Args:
        reader: reads windows.
        weights: per scene, its share of the samples (labelled pixels).
        window: side of the windows; a scene that is smaller is padded with ignored pixels.
        seed: with the epoch and the sample's number it decides everything.

    Returns:
        A function of the epoch and the sample's number.
    """
    shares = np.asarray(weights, float) / np.sum(weights)

    def sample(epoch: int, number: int) -> tuple[NDArray[Any], NDArray[np.int16], NDArray[np.bool_]]:
        draw = np.random.default_rng([seed, epoch, number])
        for _ in range(_DRAWS):
            index = int(draw.choice(len(shares), p=shares))
            header = reader.scenes[index].image
            row = int(draw.integers(0, max(header.height - window, 0) + 1))
            col = int(draw.integers(0, max(header.width - window, 0) + 1))
            found = reader.read((index, Window(row, col, window, window)))
            if np.any(found[1] != reader.table.ignore_index):
                break
        return found

    return sample


def grid_windows(scenes: Sequence[Scene], window: int) -> list[Place]:
    """Evaluation windows: side by side, so that every pixel of every scene is in exactly one."""
    return [
        (index, Window(row, col, window, window))
        for index, scene in enumerate(scenes)
        for row in range(0, scene.image.height, window)
        for col in range(0, scene.image.width, window)
    ]


def _batch(samples: Sequence[tuple[NDArray[Any], NDArray[np.int16], NDArray[np.bool_]]]) -> Batch:
    images, labels, valid = zip(*samples, strict=True)
    dtype = np.result_type(*images)
    batch = {
        "image": torch.from_numpy(np.stack(images, dtype=dtype)),  # (N, bands, H, W)
        "labels": torch.from_numpy(np.stack(labels)),  # (N, H, W)
        "valid": torch.from_numpy(np.stack(valid)),  # (N, H, W)
    }
    if torch.cuda.is_available():
        return {key: value.pin_memory() for key, value in batch.items()}
    return batch
