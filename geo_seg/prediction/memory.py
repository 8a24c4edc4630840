"""Memory estimates: free memory, bytes per pixel of a model, peak bytes of a part of a map."""

import os
import weakref
from collections.abc import Callable, Sequence
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

_UNKNOWN_MEMORY = 4 * 10**9  # bytes, on Windows, which doesn't say: max_memory= allows more
_PROBE_SIDE = 128  # side in pixels of the window on which the memory of a model is measured
# U-Net, U-Net++, DeepLabV3+ and SegFormer with windows of 768 to 1536 px take 1.1 to 1.7 times that: what
# operations need for themselves, and the allocator
_OVERHEAD = 1.7


def free_memory(device: torch.device) -> int:
    """Return the free bytes on the device; on a CPU at most what the limit of the container leaves."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _UNKNOWN_MEMORY
    if hasattr(os, "sysconf"):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, StopIteration):  # Linux is more precise
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    limits = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        limit = int((limits / "memory.max").read_text())
        free = min(free, limit - int((limits / "memory.current").read_text()))
    return max(free, 0)


@torch.inference_mode()
def bytes_per_pixel(predictor: Predictor) -> float:
    """Return the peak bytes per input pixel of the largest model in float32.

    Beside the tensors of its operations these are the image (cast, normalized, in channels_last) and the
    probabilities (logits, softmax, weighted), and for several passes their sum.

    Args:
        predictor: holds the models.
    """
    shape = (1, predictor.bands, _PROBE_SIDE, _PROBE_SIDE)
    peak_bytes = 0
    for model in predictor.models:
        with PeakMemory() as peak:
            model(torch.zeros(shape, device=predictor.device))
        peak_bytes = max(peak_bytes, peak.peak_bytes)
    extra_values = 3 * predictor.bands + (3 + (predictor.n_passes > 1)) * predictor.task.num_classes
    return 4 * extra_values + _OVERHEAD * peak_bytes / _PROBE_SIDE**2


class PeakMemory(TorchDispatchMode):
    """Dispatch mode that tracks the peak of the bytes in live storages returned by operations.

    Attributes:
        peak_bytes: maximum of the bytes alive at the same time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._sizes: dict[int, int] = {}  # bytes of the live storages, by address

    def __torch_dispatch__(
        self,
        operation: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Run an operation and record the storages that it returns."""
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._sizes.pop, storage._cdata)
                self.peak_bytes = max(self.peak_bytes, sum(self._sizes.values()))
        return result


def estimate_part_bytes(
    source: RasterInput, grid: Grid, classes: int, batch_size: int, model_bytes: float, output_bytes: int
) -> int:
    """Return the peak bytes of predicting a part of a raster, parameters of the model excluded.

    Args:
        source: the raster.
        grid: windows of the part.
        classes: number of classes.
        batch_size: windows per batch.
        model_bytes: bytes per pixel of the model, see bytes_per_pixel.
        output_bytes: bytes per pixel buffered for writing, beside the class id.
    """
    bytes_per_pixel_read = len(source.bands) * np.dtype(source.info.dtype).itemsize + 1
    window = grid.rows.window * grid.cols.window
    width = grid.cols.length
    buffer = buffer_height(grid) * width * (4 * classes + 1)  # sums and validity
    decoding = CHUNK * width * (4 * classes + 16) + 2 * BLOCK * width * (output_bytes + 4)
    reading = cache_size(source.info, grid) + (PREFETCH + 2) * batch_size * window * bytes_per_pixel_read
    if not source.scale.is_identity:  # pixels and logits in float32 on both sides
        reading += PREFETCH * batch_size * int(window * source.scale.pixel_ratio) * 4 * len(source.bands)
        decoding += window * (4 * len(source.bands) + batch_size * 8 * classes)
    model = batch_size * window * source.scale.pixel_ratio * model_bytes
    # the allocator keeps a fifth of what is freed, as measured by benchmarks/inference.py memory
    return int(1.2 * (1.1 * buffer + decoding + reading + model))
