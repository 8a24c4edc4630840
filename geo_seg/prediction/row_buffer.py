"""Rolling buffer of rows in which overlapping windows are blended."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.tiling import Grid, Window

CHUNK = 128
"""Rows that are decoded at once."""


class RowBuffer:
    """Weighted sums of probabilities for the unfinished rows of a part.

    Args:
        grid: windows of the part, in the order in which they are added.
        classes: number of classes.
        device: device of the sums.
    """

    def __init__(self, grid: Grid, classes: int, device: torch.device) -> None:
        self.top = grid.rows.begin  # row of the raster at row 0 of the buffer
        self.left = grid.cols.begin
        self.sums = torch.zeros(classes, buffer_height(grid), grid.cols.length, device=device)
        self.valid = np.zeros(self.sums.shape[1:], bool)

    def add(self, inner: Window, probabilities: Tensor, weights: Tensor, valid: NDArray[np.bool_]) -> None:
        """Add the inner pixels of one window.

        Args:
            inner: their rectangle in the raster.
            probabilities: (classes, height, width).
            weights: (height, width) blend weights.
            valid: (height, width), False for nodata.
        """
        rows = slice(inner.row - self.top, inner.row - self.top + inner.height)
        cols = slice(inner.col - self.left, inner.col - self.left + inner.width)
        self.sums[:, rows, cols].addcmul_(probabilities, weights)
        self.valid[rows, cols] = valid

    def pop_rows(self, end: int) -> Iterator[tuple[Tensor, NDArray[np.bool_]]]:
        """Yield the finished rows before a row of the raster in chunks, then shift the buffer.

        Args:
            end: first row of the raster that stays.

        Yields:
            sums: (classes, rows, width), a view that is valid until the next item.
            valid: (rows, width).
        """
        count = end - self.top
        for begin in range(0, count, CHUNK):
            rows = slice(begin, min(begin + CHUNK, count))
            yield self.sums[:, rows], self.valid[rows]
        remaining = self.sums.shape[1] - count
        self.sums[:, :remaining] = self.sums[:, count:].clone()
        self.sums[:, remaining:] = 0
        self.valid[:remaining] = self.valid[count:].copy()
        self.valid[remaining:] = False
        self.top = end


def buffer_height(grid: Grid) -> int:
    """Return the rows of a RowBuffer: the maximum height of the inner pixels of a window."""
    inner = [grid.rows.inner(row) for row in range(len(grid.rows))]
    return max(end - begin for begin, end in inner)
