"""How much memory a map takes, and how large windows and panels may be for it."""

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geo_seg.inference.band import CHUNK, band_height
from geo_seg.inference.predict import Predictor
from geo_seg.inference.reading import AHEAD, Source, cache_size
from geo_seg.tiling import Grid
from geo_seg.writing import BLOCK

_PROBE = 128  # side of the window that shows what the layers of a model hold, in pixels


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
    """What the layers of the largest model produce for a pixel of the input, in bytes of float32, added up.

    No more than that is ever alive at once; most of it is released on the way. Beside it lie the image
    (cast, normalised, in the model's layout) and its probabilities (logits, softmax, weighted), and where
    several votes are averaged, their sum.

    Args:
        predictor: with the models.
    """
    shape = (1, predictor.bands, _PROBE, _PROBE)
    most = max(_produced(model, torch.zeros(shape, device=predictor.device)) for model in predictor.models)
    beside = 3 * predictor.bands + (3 + (predictor.votes > 1)) * predictor.task.num_classes
    return 4 * beside + most / _PROBE**2


def _produced(model: nn.Module, image: Tensor) -> int:
    """Bytes of float32 that the layers of a model produce for an image."""
    total = 0

    def count(_module: Any, _inputs: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() * 4 if isinstance(output, Tensor) else 0

    with ExitStack() as stack:
        for module in model.modules():
            if not list(module.children()):
                stack.callback(module.register_forward_hook(count).remove)
        model(image)
    return total


def needed(source: Source, grid: Grid, classes: int, batch_size: int, per_pixel: float, written: int) -> int:
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
    band = band_height(grid) * width * (4 * classes + 1)  # sums and validity
    deciding = CHUNK * width * (4 * classes + 16) + 2 * BLOCK * width * (written + 4)
    reading = cache_size(source.info, grid) + (AHEAD + 2) * batch_size * window * depth
    if not source.scale.as_is:  # pixels and logits in float32 on both sides
        reading += AHEAD * batch_size * int(window * source.scale.share) * 4 * len(source.bands)
        deciding += window * (4 * len(source.bands) + batch_size * 8 * classes)
    seen = batch_size * window * source.scale.share * per_pixel
    # the allocator keeps a fifth of what is freed, as measured by benchmarks/inference.py memory
    return int(1.2 * (1.1 * band + deciding + reading + seen))
