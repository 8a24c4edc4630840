"""Windows over a raster: the grids that they lie on, and the weights that blend their overlaps."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

OUTPUT_STRIDE = 32
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

    def intersects(self, other: "Window") -> bool:
        """Return whether the two share a pixel."""
        return (
            self.row < other.row + other.height
            and other.row < self.row + self.height
            and self.col < other.col + other.width
            and other.col < self.col + self.width
        )


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
    Over a seam the weight rises from 0 to 1. Each window's weight is the difference of the rise at its first
    seam and the rise at its last one, so that the weights of all windows sum to 1 at every pixel, to float
    rounding, however many overlap there.

    Attributes:
        begin: first pixel that the windows answer for.
        end: the pixel after the last one.
        window: pixels of a window.
        starts: first pixel of each window, increasing.
        seams: between neighbours, the first pixel of their seam.
        overlap: pixels of a seam; 0 hands over at once.
        blend: how the weight rises over a seam: "linear" or "hann" (a raised cosine).
    """

    begin: int
    end: int
    window: int
    starts: tuple[int, ...]
    seams: tuple[int, ...]
    overlap: int
    blend: str

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def length(self) -> int:
        """Pixels that the windows answer for."""
        return self.end - self.begin

    def inner(self, index: int) -> tuple[int, int]:
        """Return the first pixel, and the one after the last, for which a window has a weight."""
        begin = self.seams[index - 1] if index else self.begin
        end = self.seams[index] + self.overlap if index < len(self.seams) else self.end
        return max(begin, self.begin), min(end, self.end)

    def weights(self, index: int) -> NDArray[np.float32]:
        """Return the weights of a window over its inner pixels, from 0 to 1."""
        pixels = np.arange(*self.inner(index))
        rise = self._rise(pixels, self.seams[index - 1]) if index else np.ones(len(pixels))
        if index < len(self.seams):
            rise = rise - self._rise(pixels, self.seams[index])
        return rise.astype(np.float32)

    def final_before(self, index: int) -> int:
        """Return the pixel before which no later window has a weight."""
        return self.seams[index] if index < len(self.seams) else self.end

    def split(self, size: int) -> "tuple[Axis, ...]":
        """Split the side into independent pieces.

        Neighbouring pieces meet in the middle of the seam between their windows, without blending, so that
        each can be made alone and no window is needed twice.

        Args:
            size: windows in a piece, at least 1; the last piece has what remains.
        """
        middles = [seam + self.overlap // 2 for seam in self.seams]
        lines = (self.begin, *middles, self.end)
        pieces = []
        for first in range(0, len(self), size):
            last = min(first + size, len(self))
            starts, seams = self.starts[first:last], self.seams[first : last - 1]
            pieces.append(
                Axis(lines[first], lines[last], self.window, starts, seams, self.overlap, self.blend)
            )
        return tuple(pieces)

    def _rise(self, pixels: NDArray[np.int64], seam: int) -> NDArray[np.float64]:
        if self.overlap == 0:
            return (pixels >= seam).astype(np.float64)
        share = np.clip((pixels - seam + 0.5) / self.overlap, 0, 1)
        return share if self.blend == "linear" else 0.5 - 0.5 * np.cos(np.pi * share)


@dataclass(frozen=True)
class BlendSpec:
    """How neighbouring windows meet.

    Attributes:
        margin: pixels along the edges of a window that never count, except at the edges of the raster.
        overlap: pixels between the margins of neighbours, over which they are blended.
        blend: "crop" (each window counts up to the middle of the overlap), "linear" or "hann".
    """

    margin: int
    overlap: int
    blend: str = "hann"

    @property
    def shared(self) -> int:
        """Pixels that neighbouring windows both see."""
        return 2 * self.margin + self.overlap


def place_windows(length: int, window: int, seams: BlendSpec, multiple: int = OUTPUT_STRIDE) -> Axis:
    """Place the fewest windows that cover a side, evenly spaced and no larger than needed.

    Args:
        length: pixels of the side, at least 1.
        window: largest size of a window in pixels, a multiple of `multiple`.
        seams: what neighbours share at least, and how they meet.
        multiple: windows start and end at multiples of it.

    Returns:
        The windows; the last one ends less than `multiple` pixels past the side.

    Raises:
        ValueError: the numbers don't fit each other.
    """
    fits = min(seams.margin, seams.overlap) >= 0 and seams.shared <= window - multiple
    if length < 1 or window < 1 or window % multiple or not fits:
        raise ValueError(
            f"length={length}, window={window}, {seams}: expected a length of 1 or more, a window that is a "
            f"multiple of {multiple}, and 2 margins and an overlap of 0 to window - {multiple} together"
        )
    cells = math.ceil(length / multiple)  # all below is counted in steps of `multiple`, then scaled
    largest, shared = window // multiple, math.ceil(seams.shared / multiple)
    gaps = max(0, math.ceil((cells - largest) / (largest - shared)))
    size = math.ceil((cells + gaps * shared) / (gaps + 1))
    starts = tuple(i * (cells - size) // max(gaps, 1) * multiple for i in range(gaps + 1))
    overlap = 0 if seams.blend == "crop" else seams.overlap
    middles = tuple(
        after + (before + size * multiple - after - overlap) // 2 for before, after in pairwise(starts)
    )
    return Axis(0, length, size * multiple, starts, middles, overlap, seams.blend)


@dataclass(frozen=True)
class Grid:
    """Windows of one size over a raster or a part of it, row by row.

    Attributes:
        rows: the windows from the top down.
        cols: the windows from left to right.
    """

    rows: Axis
    cols: Axis

    @classmethod
    def over(
        cls, height: int, width: int, window: int, seams: BlendSpec, multiple: int = OUTPUT_STRIDE
    ) -> Self:
        """Return the grid over a whole raster.

        Args:
            height: rows of the raster.
            width: columns of the raster.
            window: largest side of the windows in pixels, a multiple of `multiple`.
            seams: what neighbours share at least, and how they meet.
            multiple: windows start and end at multiples of it.

        Raises:
            ValueError: the numbers don't fit each other.
        """
        return cls(
            place_windows(height, window, seams, multiple), place_windows(width, window, seams, multiple)
        )

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)

    def __iter__(self) -> Iterator[Tile]:
        for row, top in enumerate(self.rows.starts):
            upper, lower = self.rows.inner(row)
            for col, left in enumerate(self.cols.starts):
                begin, end = self.cols.inner(col)
                window = Window(top, left, self.rows.window, self.cols.window)
                yield Tile(row, col, window, Window(upper, begin, lower - upper, end - begin))

    def own(self, tile: Tile) -> Window:
        """Return the inner pixels that are final after a window; every pixel belongs to one window."""
        (top, bottom), (left, right) = (
            (axis.final_before(number - 1) if number else axis.begin, axis.final_before(number))
            for axis, number in ((self.rows, tile.row), (self.cols, tile.col))
        )
        return Window(top, left, bottom - top, right - left)

    @property
    def area(self) -> Window:
        """The pixels that the windows answer for."""
        return Window(self.rows.begin, self.cols.begin, self.rows.length, self.cols.length)

    def split(self, rows: int, cols: int) -> "tuple[Grid, ...]":
        """Split the grid into independent parts: panel by panel, each from top to bottom.

        Args:
            rows: rows of windows in a part.
            cols: columns of windows in a panel.
        """
        return tuple(Grid(upper, panel) for panel in self.cols.split(cols) for upper in self.rows.split(rows))
