"""From a raster to rows of classes: windows through the model, blended in a rolling band of rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.checkpoint import Checkpoint
from geo_seg.errors import ConfigError
from geo_seg.inference.reading import Batch, Source, batches, inner_part
from geo_seg.tiling import Grid, Tile, Window

SCALE = 254
"""Probability 1 in the 8-bit maps of probabilities; 255 is left for nodata."""

_CHUNK = 128  # rows that are decided at once


@dataclass(frozen=True)
class Settings:
    """How to predict.

    Attributes:
        device: where the model runs.
        bf16: whether it computes in bfloat16 where that is safe.
        batch_size: windows that it sees at once.
        probabilities: "none", "top" (of the chosen class) or "all".
    """

    device: torch.device
    bf16: bool
    batch_size: int
    probabilities: str


@dataclass(frozen=True)
class Strip:
    """Finished rows of a map.

    Attributes:
        classes: (rows, width) class ids as integers.
        valid: (rows, width), False for nodata.
        probabilities: (bands, rows, width) uint8, probability times SCALE; no bands unless asked for.
    """

    classes: NDArray[Any]
    valid: NDArray[np.bool_]
    probabilities: NDArray[np.uint8]


class RowBand:
    """Sums of weighted probabilities for the rows that windows still add to, over the whole width.

    Args:
        grid: the windows that will be added, in order.
        classes: number of classes.
        device: where the sums lie.
    """

    def __init__(self, grid: Grid, classes: int, device: torch.device) -> None:
        inner = [grid.rows.inner(row) for row in range(len(grid.rows))]
        height = max(end - begin for begin, end in inner)
        self.top = 0  # row of the raster that row 0 of the band stands for
        self.sums = torch.zeros(classes, height, grid.width, device=device)
        self.valid = np.zeros((height, grid.width), bool)

    def add(self, inner: Window, probabilities: Tensor, weights: Tensor, valid: NDArray[np.bool_]) -> None:
        """Adds the inner pixels of one window.

        Args:
            inner: where they are.
            probabilities: (classes, height, width).
            weights: (height, width).
            valid: (height, width).
        """
        rows = slice(inner.row - self.top, inner.row - self.top + inner.height)
        cols = slice(inner.col, inner.col + inner.width)
        self.sums[:, rows, cols].addcmul_(probabilities, weights)
        self.valid[rows, cols] = valid

    def release(self, end: int) -> Iterator[tuple[Tensor, NDArray[np.bool_]]]:
        """Gives the rows before a row of the raster away, some at a time, and makes room for as many.

        Args:
            end: the first row that stays.

        Yields:
            sums: (classes, rows, width), to be used before the next are asked for.
            valid: (rows, width).
        """
        count = end - self.top
        for begin in range(0, count, _CHUNK):
            rows = slice(begin, min(begin + _CHUNK, count))
            yield self.sums[:, rows], self.valid[rows]
        kept = self.sums.shape[1] - count
        self.sums[:, :kept] = self.sums[:, count:].clone()
        self.sums[:, kept:] = 0
        self.valid[:kept] = self.valid[count:].copy()
        self.valid[kept:] = False
        self.top = end


class Predictor:
    """A model that maps rasters.

    Args:
        checkpoint: the model and what it needs to know.
        settings: how to run it.
    """

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        self.task = checkpoint.task
        self.settings = settings
        # torch's stubs know no memory_format in Module.to
        self._model = checkpoint.model.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._normalize = checkpoint.normalize.to(settings.device)

    def strips(self, source: Source, grid: Grid, advance: Callable[[int], object]) -> Iterator[Strip]:
        """Maps a raster from the top down; memory follows its width times the window, not its height.

        Args:
            source: the raster.
            grid: its windows.
            advance: told the number of windows that are done after each batch.

        Yields:
            Finished rows, without gaps.

        Raises:
            DataError: the raster can't be read.
        """
        band = RowBand(grid, self.task.num_classes, self.settings.device)
        weights = [
            [torch.from_numpy(axis.weights(i)).to(self.settings.device) for i in range(len(axis))]
            for axis in (grid.rows, grid.cols)
        ]
        for batch in batches(source, grid, self.settings.batch_size):
            probabilities = self._predict(batch)
            for tile, slot in zip(batch.tiles, batch.slots, strict=True):
                if slot is not None:
                    weight = weights[0][tile.row][:, None] * weights[1][tile.col]  # (height, width)
                    valid = inner_part(tile, batch.valid[slot])
                    band.add(tile.inner, probabilities[slot], weight, valid)
                if tile.col == len(grid.cols) - 1:
                    for sums, valid in band.release(grid.rows.finished(tile.row)):
                        yield self._decide(sums, valid)
            advance(len(batch.tiles))

    @torch.inference_mode()
    def _predict(self, batch: Batch) -> list[Tensor]:
        """Probabilities of the inner pixels of each window that the model sees: (classes, height, width)."""
        if not len(batch.image):
            return []
        device, cuda = self.settings.device, self.settings.device.type == "cuda"
        image, valid = (torch.from_numpy(a) for a in (batch.image, batch.valid))
        if cuda:
            image, valid = image.pin_memory(), valid.pin_memory()
        image, valid = image.to(device, non_blocking=cuda), valid.to(device, non_blocking=cuda)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.settings.bf16):
            pixels = self._normalize(image, valid).contiguous(memory_format=torch.channels_last)
            logits = self._model(pixels)  # (N, channels, height, width)
        seen = [tile for tile, slot in zip(batch.tiles, batch.slots, strict=True) if slot is not None]
        return [self._probabilities(tile, logits[i : i + 1]) for i, tile in enumerate(seen)]

    def _probabilities(self, tile: Tile, logits: Tensor) -> Tensor:
        inner: Any = inner_part(tile, logits)  # type: ignore[arg-type] # slices tensors as it does arrays
        # several times faster on a CPU than softmax over channels_last or bfloat16
        return self.task.probabilities(inner.to(torch.float32, memory_format=torch.contiguous_format))[0]

    @torch.inference_mode()
    def _decide(self, sums: Tensor, valid: NDArray[np.bool_]) -> Strip:
        best = sums.max(dim=0)
        shown = {"none": sums[:0], "top": best.values[None], "all": sums}[self.settings.probabilities]
        scaled = (shown * SCALE).round_().clamp_(0, SCALE).to(torch.uint8)
        small = torch.uint8 if len(sums) <= 256 else torch.int32
        return Strip(best.indices.to(small).cpu().numpy(), valid.copy(), scaled.cpu().numpy())


def choose_device(accelerator: str) -> torch.device:
    """The device for "auto", "cpu", "gpu" or "mps".

    Raises:
        ConfigError: this machine doesn't have it.
    """
    has = {
        "gpu": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if accelerator == "auto":
        accelerator = next(name for name, there in has.items() if there)
    if not has[accelerator]:
        there = ", ".join(name for name, present in has.items() if present)
        raise ConfigError(f"accelerator={accelerator}: torch finds none on this machine; there is: {there}")
    return torch.device({"gpu": "cuda"}.get(accelerator, accelerator))


def choose_bf16(precision: str, device: torch.device) -> bool:
    """Whether "auto", "32" or "bf16" computes in bfloat16; auto does where the hardware is fast at it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
