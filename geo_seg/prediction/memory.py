"""How much memory a map takes, and how large windows and panels may be for it."""

import os
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geo_seg.prediction.predictor import Predictor
from geo_seg.prediction.row_buffer import CHUNK, buffer_height
from geo_seg.prediction.window_reader import PREFETCH, RasterInput, cache_size
from geo_seg.raster.writer import BLOCK
from geo_seg.tiling import Grid

_PROBE = 128  # side of the window that shows what the operations of a model hold, in pixels
# U-Net, U-Net++, DeepLabV3+ and SegFormer with windows of 768 to 1536 px take 1.1 to 1.7 times that: what
# operations need for themselves, and the allocator
_OVERHEAD = 1.7


def free_memory(device: torch.device) -> int:
    """Bytes that are free where the model runs; a container's own limit counts as the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, StopIteration):  # Linux knows better
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    limits = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        limit = int((limits / "memory.max").read_text())
        free = min(free, limit - int((limits / "memory.current").read_text()))
    return max(free, 0)


@torch.inference_mode()
def bytes_per_pixel(predictor: Predictor) -> float:
    """What the largest model takes for a pixel of the input, in bytes of float32.

    Beside what its operations hold lie the image (cast, normalised, in the model's layout) and its
    probabilities (logits, softmax, weighted), and where several votes are averaged, their sum.

    Args:
        predictor: with the models.
    """
    shape = (1, predictor.bands, _PROBE, _PROBE)
    most = 0
    for model in predictor.models:
        with PeakMemory() as held:
            model(torch.zeros(shape, device=predictor.device))
        most = max(most, held.most)
    beside = 3 * predictor.bands + (3 + (predictor.n_passes > 1)) * predictor.task.num_classes
    return 4 * beside + _OVERHEAD * most / _PROBE**2


class PeakMemory(TorchDispatchMode):
    """Adds up what the operations within it return, for as long as somebody holds it.

    Attributes:
        most: bytes that were held at the same time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._sizes: dict[int, int] = {}  # of the storages that are held

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and looks at the memory behind what it returns."""
        found = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._sizes.pop, storage._cdata)
                self.most = max(self.most, sum(self._sizes.values()))
        return found


def estimate_part_bytes(
    source: RasterInput, grid: Grid, classes: int, batch_size: int, per_pixel: float, written: int
) -> int:
    """Bytes beyond the model that a part takes at most.

    Args:
        source: the raster.
        grid: windows of the part.
        classes: number of classes.
        batch_size: windows that the model sees at once.
        per_pixel: see bytes_per_pixel.
        written: bytes of a pixel that wait to be written, beside its class.
    """
    depth = len(source.bands) * np.dtype(source.info.dtype).itemsize + 1
    window = grid.rows.window * grid.cols.window
    width = grid.cols.length
    band = buffer_height(grid) * width * (4 * classes + 1)  # sums and validity
    deciding = CHUNK * width * (4 * classes + 16) + 2 * BLOCK * width * (written + 4)
    reading = cache_size(source.info, grid) + (PREFETCH + 2) * batch_size * window * depth
    if not source.scale.is_identity:  # pixels and logits in float32 on both sides
        reading += PREFETCH * batch_size * int(window * source.scale.pixel_ratio) * 4 * len(source.bands)
        deciding += window * (4 * len(source.bands) + batch_size * 8 * classes)
    seen = batch_size * window * source.scale.pixel_ratio * per_pixel
    # the allocator keeps a fifth of what is freed, as measured by benchmarks/inference.py memory
    return int(1.2 * (1.1 * band + deciding + reading + seen))
