"""The rows of a map that windows still add to."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.tiling import Grid, Window

CHUNK = 128
"""Rows that are decided at once."""


class RowBuffer:
    """Sums of weighted probabilities for the rows that windows still add to, over the width of a part.

    Args:
        grid: the windows that will be added, in order.
        classes: number of classes.
        device: where the sums lie.
    """

    def __init__(self, grid: Grid, classes: int, device: torch.device) -> None:
        self.top = grid.rows.begin  # row of the raster that row 0 of the band stands for
        self.left = grid.cols.begin
        self.sums = torch.zeros(classes, buffer_height(grid), grid.cols.length, device=device)
        self.valid = np.zeros(self.sums.shape[1:], bool)

    def add(self, inner: Window, probabilities: Tensor, weights: Tensor, valid: NDArray[np.bool_]) -> None:
        """Adds the inner pixels of one window.

        Args:
            inner: where they are.
            probabilities: (classes, height, width).
            weights: (height, width).
            valid: (height, width).
        """
        rows = slice(inner.row - self.top, inner.row - self.top + inner.height)
        cols = slice(inner.col - self.left, inner.col - self.left + inner.width)
        self.sums[:, rows, cols].addcmul_(probabilities, weights)
        self.valid[rows, cols] = valid

    def pop_rows(self, end: int) -> Iterator[tuple[Tensor, NDArray[np.bool_]]]:
        """Gives the rows before a row of the raster away, some at a time, and makes room for as many.

        Args:
            end: the first row that stays.

        Yields:
            sums: (classes, rows, width), to be used before the next are asked for.
            valid: (rows, width).
        """
        count = end - self.top
        for begin in range(0, count, CHUNK):
            rows = slice(begin, min(begin + CHUNK, count))
            yield self.sums[:, rows], self.valid[rows]
        kept = self.sums.shape[1] - count
        self.sums[:, :kept] = self.sums[:, count:].clone()
        self.sums[:, kept:] = 0
        self.valid[:kept] = self.valid[count:].copy()
        self.valid[kept:] = False
        self.top = end


def buffer_height(grid: Grid) -> int:
    """Rows that a RowBuffer keeps: those that a window has a weight for."""
    inner = [grid.rows.inner(row) for row in range(len(grid.rows))]
    return max(end - begin for begin, end in inner)
