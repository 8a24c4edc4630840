"""Windows over a raster: the grids that they lie on, and the weights that blend their overlaps."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STRIDE = 32
"""Windows start at multiples of it: off the output stride of the models, a window samples another phase of
their pooling, and labels change everywhere (FACTS.md section 11)."""


class Window(NamedTuple):
    """A rectangle of pixels.

    Attributes:
        row: first row; negative above the raster.
        col: first column; negative left of the raster.
        height: rows, at least 1.
        width: columns, at least 1.
    """

    row: int
    col: int
    height: int
    width: int


class Tile(NamedTuple):
    """One window of a grid.

    Attributes:
        row: which of the grid's rows of windows it is in.
        col: which of the grid's columns of windows it is in.
        window: what a model sees; may reach past the raster below and on the right.
        inner: the part that counts: inside the raster, with weights above 0.
    """

    row: int
    col: int
    window: Window
    inner: Window


@dataclass(frozen=True)
class Axis:
    """Windows along one side of a raster, and the seams where each hands over to the next.

    A seam lies in the middle of the pixels that two neighbours share, as far from their edges as can be.
    Over a seam the weight rises along a raised cosine. Each window's weight is the difference of the rise at
    its first seam and the rise at its last one, so that the weights of all windows sum to 1 at every pixel,
    to float rounding, however many overlap there.

    Attributes:
        length: pixels of the raster along this side.
        window: pixels of a window.
        starts: first pixel of each window, increasing.
        seams: between neighbours, the first pixel of their seam.
        overlap: pixels of a seam.
    """

    length: int
    window: int
    starts: tuple[int, ...]
    seams: tuple[int, ...]
    overlap: int

    def __len__(self) -> int:
        return len(self.starts)

    def inner(self, index: int) -> tuple[int, int]:
        """First pixel of the raster, and the one after the last, that a window has a weight for."""
        begin = self.seams[index - 1] if index else 0
        end = self.seams[index] + self.overlap if index < len(self.seams) else self.length
        return begin, end

    def weights(self, index: int) -> NDArray[np.float32]:
        """The weights of a window over its inner pixels, from 0 to 1."""
        pixels = np.arange(*self.inner(index))
        rise = self._rise(pixels, self.seams[index - 1]) if index else np.ones(len(pixels))
        if index < len(self.seams):
            rise = rise - self._rise(pixels, self.seams[index])
        return rise.astype(np.float32)

    def finished(self, index: int) -> int:
        """Pixels that no window after this one has a weight for: all those before this number."""
        return self.seams[index] if index < len(self.seams) else self.length

    def _rise(self, pixels: NDArray[np.int64], seam: int) -> NDArray[np.float64]:
        if self.overlap == 0:
            return (pixels >= seam).astype(np.float64)
        share = np.clip((pixels - seam + 0.5) / self.overlap, 0, 1)
        return 0.5 - 0.5 * np.cos(np.pi * share)


def spread(length: int, window: int, overlap: int, multiple: int = STRIDE) -> Axis:
    """Spreads as few windows as cover a side evenly over it.

    Even spreading gives neighbours more than the overlap to share where that costs no further window. A side
    shorter than the window gets a smaller window.

    Args:
        length: pixels of the side, at least 1.
        window: pixels of a window, a multiple of `multiple`.
        overlap: pixels that neighbours share at least, and that they are blended over.
        multiple: windows start and end at multiples of it.

    Returns:
        The windows; the last one ends less than `multiple` pixels past the side.

    Raises:
        ValueError: the numbers don't fit each other.
    """
    if length < 1 or window < 1 or window % multiple or not 0 <= overlap <= window - multiple:
        raise ValueError(
            f"length={length}, window={window}, overlap={overlap}: expected a length of 1 or more, a window "
            f"that is a multiple of {multiple}, and an overlap from 0 to window - {multiple}"
        )
    cells = math.ceil(length / multiple)  # all below is counted in steps of `multiple`, then scaled
    size = min(window // multiple, cells)
    stride = (window - overlap) // multiple
    gaps = math.ceil((cells - size) / stride)
    starts = tuple(i * (cells - size) // gaps * multiple for i in range(gaps)) if gaps else ()
    starts = (*starts, (cells - size) * multiple)
    seams = tuple(after + (before + window - after - overlap) // 2 for before, after in pairwise(starts))
    return Axis(length, size * multiple, starts, seams, overlap)


class Grid:
    """Windows of one size over a raster, row by row.

    Args:
        height: rows of the raster.
        width: columns of the raster.
        window: side of the windows in pixels, a multiple of `multiple`.
        overlap: pixels that neighbours share at least, and that they are blended over.
        multiple: windows start and end at multiples of it.

    Raises:
        ValueError: the numbers don't fit each other.
    """

    def __init__(self, height: int, width: int, window: int, overlap: int, multiple: int = STRIDE) -> None:
        self.height = height
        self.width = width
        self.rows = spread(height, window, overlap, multiple)
        self.cols = spread(width, window, overlap, multiple)

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)

    def __iter__(self) -> Iterator[Tile]:
        for row, top in enumerate(self.rows.starts):
            upper, lower = self.rows.inner(row)
            for col, left in enumerate(self.cols.starts):
                begin, end = self.cols.inner(col)
                window = Window(top, left, self.rows.window, self.cols.window)
                yield Tile(row, col, window, Window(upper, begin, lower - upper, end - begin))
