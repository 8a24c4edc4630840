"""Window offsets that avoid the excluded rectangles of a scene (blocks of val and test)."""

import numpy as np
from numpy.typing import NDArray

from geo_seg.data.index import CELL
from geo_seg.data.scenes.scene import Scene
from geo_seg.tiling import Window

_CHUNK_CELLS = 4096  # cells that are processed together


class AllowedOffsets:
    """The allowed offsets (first row and column) of windows in a scene.

    The excluded rectangles cut the rows and columns of offsets into intervals; each of the resulting pieces
    is allowed or excluded as a whole. So windows are drawn exactly uniformly, without rejection sampling.

    Args:
        scene: scene with its excluded rectangles.
        window: side of the windows; a window larger than the scene has the offset 0.

    Attributes:
        max_offset: largest row and column of an offset.
    """

    def __init__(self, scene: Scene, window: int) -> None:
        self._window = window
        self._size = (scene.image.height, scene.image.width)
        self.max_offset = tuple(max(size - window, 0) for size in self._size)
        # a window reaches into rows a to below b if it begins from a - window + 1 to below b
        spans = np.array(
            [
                (row - window + 1, row + height, col - window + 1, col + width)
                for row, col, height, width in scene.excluded
            ]
        ).reshape(-1, 2, 2)
        spans = np.clip(spans, 0, np.array(self.max_offset)[:, None] + 1)
        self._edges = [
            np.unique([0, max_offset + 1, *spans[:, axis].ravel()])
            for axis, max_offset in enumerate(self.max_offset)
        ]
        self._free = np.ones([len(edges) - 1 for edges in self._edges], bool)
        first, last = (
            np.stack([np.searchsorted(self._edges[axis], spans[:, axis, end]) for axis in (0, 1)], -1)
            for end in (0, 1)
        )
        for begin, end in zip(first.tolist(), last.tolist(), strict=True):
            self._free[begin[0] : end[0], begin[1] : end[1]] = False
        lengths = [np.diff(edges) for edges in self._edges]
        self._sums = (lengths[0][:, None] * lengths[1] * self._free).ravel().cumsum()

    @property
    def allowed_fraction(self) -> float:
        """Share of all offsets that is allowed, 0 to 1."""
        return float(self._sums[-1] / np.prod([max_offset + 1 for max_offset in self.max_offset]))

    def sample_uniform(self, draw: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return (n, 2) uniformly distributed offsets for draws (n,) in [0, 1)."""
        pick = np.floor(draw * self._sums[-1]).astype(np.int64)
        piece = np.searchsorted(self._sums, pick, side="right")
        row, col = np.divmod(piece, self._free.shape[1])
        rows, cols = self._edges
        remainder = pick - self._sums[piece] + (rows[row + 1] - rows[row]) * (cols[col + 1] - cols[col])
        down, right = np.divmod(remainder, cols[col + 1] - cols[col])
        return np.stack([rows[row] + down, cols[col] + right], -1)

    def sample_around(self, cells: NDArray[np.int64], draw: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return uniformly distributed offsets of windows around cells.

        A window with a side of two cells or more contains the whole cell, a smaller one a part of it.

        Args:
            cells: (n, 2) rows and columns of cells around which a window is allowed; see is_allowed.
            draw: (n,) draws in [0, 1).

        Returns:
            (n, 2) offsets.
        """
        begin, end, areas = self._pieces(cells)
        sums = areas.reshape(len(cells), -1).cumsum(axis=1)
        pick = np.floor(draw * sums[:, -1]).astype(np.int64)
        piece = (sums <= pick[:, None]).sum(axis=1)
        samples = np.arange(len(cells))
        remainder = pick - sums[samples, piece] + areas.reshape(len(cells), -1)[samples, piece]
        row, col = np.divmod(piece, areas.shape[2])
        down, right = np.divmod(remainder, (end[1] - begin[1])[samples, col])
        return np.stack([begin[0][samples, row] + down, begin[1][samples, col] + right], -1)

    def is_allowed(self, rows: int, cols: int) -> NDArray[np.bool_]:
        """Return (rows, cols) a mask of the cells around which a window is allowed."""
        cells = np.stack(np.divmod(np.arange(rows * cols), cols), -1)
        parts = range(0, len(cells), _CHUNK_CELLS)
        counts = [self._pieces(cells[i : i + _CHUNK_CELLS])[2].sum(axis=(1, 2)) for i in parts]
        return (np.concatenate(counts) > 0).reshape(rows, cols)

    def visible_boxes(self) -> NDArray[np.int64]:
        """Return (n, 4) boxes (first row and column, end row and column) that cover all allowed windows."""
        row, col = np.nonzero(self._free)
        rows, cols = self._edges
        sides = zip(self._edges, self._size, strict=True)
        ends = [np.minimum(edges[1:] - 1 + self._window, size) for edges, size in sides]
        return np.stack([rows[row], cols[col], ends[0][row], ends[1][col]], -1)

    def _pieces(
        self, cells: NDArray[np.int64]
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]], NDArray[np.int64]]:
        """Return starts and ends (n, pieces) of offset intervals per axis, and (n, rows, cols) areas."""
        begins, ends, numbers = [], [], []
        for axis, edges in enumerate(self._edges):
            start = cells[:, axis] * CELL
            last = np.minimum(start + CELL, self._size[axis]) - 1
            holds_cells = self._window >= 2 * CELL
            low = np.maximum((last if holds_cells else start) - self._window + 1, 0)
            high = np.minimum(start if holds_cells else last, self.max_offset[axis])
            low = np.minimum(low, high)
            first = np.searchsorted(edges, low, side="right") - 1
            count = int((np.searchsorted(edges, high, side="right") - first).max())
            number = np.minimum(first[:, None] + np.arange(count), len(edges) - 2)
            # a repeated interval, or one beyond the offsets, has no length
            is_new = np.diff(number, axis=1, prepend=-1) > 0
            begin = np.maximum(edges[number], low[:, None])
            end = np.minimum(edges[number + 1], high[:, None] + 1)
            begins.append(begin)
            ends.append(np.where(is_new, np.maximum(end, begin), begin))
            numbers.append(number)
        free = self._free[numbers[0][:, :, None], numbers[1][:, None, :]]
        lengths = [end - begin for begin, end in zip(begins, ends, strict=True)]
        return begins, ends, lengths[0][:, :, None] * lengths[1][:, None, :] * free


def cells_in(part: Window) -> tuple[slice, slice]:
    """Return the rows and columns of the cells whose centre lies in a part of a scene."""
    first = (part.row + CELL // 2 - 1) // CELL, (part.col + CELL // 2 - 1) // CELL
    end = (part.row + part.height + CELL // 2 - 1) // CELL, (part.col + part.width + CELL // 2 - 1) // CELL
    return slice(first[0], end[0]), slice(first[1], end[1])
