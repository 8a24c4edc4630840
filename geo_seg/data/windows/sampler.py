"""Positions of training and evaluation windows, determined by seed, epoch and window number alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geo_seg.data.index import CELL, SceneIndex
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.windows.allowed_offsets import AllowedOffsets
from geo_seg.tiling import Window

SceneWindow = tuple[int, Window]
"""Number of a scene, and a window in it."""

_MAX_TRIES = 20  # redraws in the configured mode, then around a labelled pixel


class RandomWindowSampler:
    """Sampler of training windows at random offsets.

    Args:
        scenes: the scenes; no window reaches into their excluded rectangles.
        index: index of each scene, restricted to the split.
        mode: "uniform" (all offsets equally likely), "valid" (around a random labelled pixel) or "balanced"
            (around a random pixel of a random class; all classes that occur are equally likely).
        window: side of the windows; a smaller scene lies at the window's top left.
        size: windows in an epoch.
        seed: determines all windows, together with the epoch and the window's number.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        index: Sequence[SceneIndex],
        mode: str,
        window: int,
        size: int,
        seed: int,
    ) -> None:
        self._mode = mode
        self._window = window
        self._size = size
        self._seed = seed
        self._cells = [scene_index.cells for scene_index in index]
        self._shape = np.array([(s.image.height, s.image.width) for s in scenes])  # (scenes, 2)
        self._across = np.array([cells.shape[1] for cells in self._cells])
        self._first = np.cumsum([0, *(cells.shape[0] * cells.shape[1] for cells in self._cells)])
        self._offsets = {n: AllowedOffsets(scene, window) for n, scene in enumerate(scenes) if scene.excluded}
        fractions = np.array(
            [self._offsets[n].allowed_fraction if n in self._offsets else 1.0 for n in range(len(scenes))]
        )
        self._area = np.ceil(self._shape.prod(axis=1) * fractions).astype(np.int64).cumsum()
        flat = [cells.reshape(-1, cells.shape[2]) for cells in self._cells]
        labelled = [part.sum(axis=1, dtype=np.int64) for part in flat]
        self._full = [bool(part.all()) for part in labelled]
        self._labelled = np.concatenate(labelled).cumsum()
        self._by_class: list[NDArray[np.int64]] = []
        if mode == "balanced":
            counts = (np.concatenate([part[:, c] for part in flat]) for c in range(flat[0].shape[1]))
            sums = (count.cumsum(dtype=np.int64) for count in counts)
            self._by_class = [total for total in sums if total[-1]]

    def epoch(self, epoch: int) -> list[SceneWindow]:
        """Return the windows of an epoch."""
        return self._windows(np.random.default_rng([self._seed, epoch]).random((self._size, 6)), self._mode)

    def redraw(self, epoch: int, number: int, attempt: int) -> SceneWindow:
        """Return a replacement for a window without labelled pixels.

        Args:
            epoch: epoch of the window.
            number: number of the window in its epoch.
            attempt: 1, 2, ...
        """
        draw = np.random.default_rng([self._seed, epoch, number, attempt]).random((1, 6))
        return self._windows(draw, self._mode if attempt < _MAX_TRIES else "valid")[0]

    def is_unlabelled(self, scene_window: SceneWindow) -> bool:
        """Return True if a window certainly has no labelled pixel; False if it may have one."""
        index, (row, col, height, width) = scene_window
        if self._full[index]:
            return False
        rows = slice(row // CELL, -(-(row + height) // CELL))
        return not self._cells[index][rows, col // CELL : -(-(col + width) // CELL)].any()

    def _windows(self, draw: NDArray[np.float64], mode: str) -> list[SceneWindow]:
        """Return the windows for draws (n, 6) in [0, 1)."""
        if mode == "uniform":
            scene = _find(self._area, draw[:, 0])
            corner = [self._within(0, self._max_offset(scene, axis), draw[:, 1 + axis]) for axis in (0, 1)]
            for number in self._restricted(scene):
                in_scene = scene == number
                corner[0][in_scene], corner[1][in_scene] = (
                    self._offsets[number].sample_uniform(draw[in_scene, 1]).T
                )
        else:
            cell = self._cell(draw, mode)
            scene = np.searchsorted(self._first, cell, side="right") - 1
            cell_position = np.divmod(cell - self._first[scene], self._across[scene])
            corner = [
                self._around(scene, axis, cell_position[axis] * CELL, draw[:, 1 + axis], draw[:, 3 + axis])
                for axis in (0, 1)
            ]
            for number in self._restricted(scene):
                in_scene = scene == number
                cells = np.stack([axis[in_scene] for axis in cell_position], -1)
                corner[0][in_scene], corner[1][in_scene] = (
                    self._offsets[number].sample_around(cells, draw[in_scene, 1]).T
                )
        side = self._window
        columns = (scene.tolist(), corner[0].tolist(), corner[1].tolist())
        return [(index, Window(row, col, side, side)) for index, row, col in zip(*columns, strict=True)]

    def _restricted(self, scene: NDArray[np.int64]) -> list[int]:
        """Return the numbers of those scenes that have excluded rectangles."""
        return [number for number in np.unique(scene).tolist() if number in self._offsets]

    def _cell(self, draw: NDArray[np.float64], mode: str) -> NDArray[np.int64]:
        if mode == "valid":
            return _find(self._labelled, draw[:, 0])
        cell = np.zeros(len(draw), np.int64)
        chosen = (draw[:, 5] * len(self._by_class)).astype(int)
        for number, sums in enumerate(self._by_class):
            cell[chosen == number] = _find(sums, draw[chosen == number, 0])
        return cell

    def _around(
        self,
        scene: NDArray[np.int64],
        axis: int,
        start: NDArray[np.int64],
        pixel: NDArray[np.float64],
        offset: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """Return first rows (axis 0) or columns of windows around cells with the given start.

        A window with a side of two cells or more contains the whole cell, and so the pixel for which the
        cell was drawn, and can still have every offset. A smaller one contains a random pixel of the cell.
        """
        end = np.minimum(start + CELL, self._shape[scene, axis])
        first, last = start, end - 1
        if self._window < 2 * CELL:
            first = last = self._within(start, last, pixel)
        high = np.minimum(first, self._max_offset(scene, axis))
        return self._within(np.minimum(np.maximum(last - self._window + 1, 0), high), high, offset)

    def _max_offset(self, scene: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
        max_offset: NDArray[np.int64] = np.maximum(self._shape[scene, axis] - self._window, 0)
        return max_offset

    @staticmethod
    def _within(
        low: NDArray[np.int64] | int, high: NDArray[np.int64], draw: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        values: NDArray[np.int64] = low + (draw * (high - low + 1)).astype(np.int64)
        return values


def grid_windows(scenes: Sequence[Scene], window: int) -> list[SceneWindow]:
    """Return evaluation windows side by side: every pixel of a scene, or of its blocks, is in exactly one."""
    return [
        (index, Window(row, col, min(window, bottom - row), min(window, right - col)))
        for index, scene in enumerate(scenes)
        for top, left, bottom, right in _areas(scene)
        for row in range(top, bottom, window)
        for col in range(left, right, window)
    ]


def _areas(scene: Scene) -> list[tuple[int, int, int, int]]:
    parts = scene.blocks or (Window(0, 0, scene.image.height, scene.image.width),)
    return [(row, col, row + height, col + width) for row, col, height, width in parts]


def _find(sums: NDArray[np.int64], draw: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return positions drawn in proportion to the steps of a cumulative sum."""
    return np.searchsorted(sums, np.floor(draw * sums[-1]), side="right")
