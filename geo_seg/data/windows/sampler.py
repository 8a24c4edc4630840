"""Where training and evaluation windows lie: a matter of seed, epoch and number alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geo_seg.data.index import CELL, SceneIndex
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.windows.allowed_offsets import AllowedOffsets
from geo_seg.tiling import Window

SceneWindow = tuple[int, Window]
_TRIES = 20  # draws in the chosen way before a window is drawn around labelled pixels


class RandomWindowSampler:
    """Training windows at random offsets.

    Args:
        scenes: where windows come from; none reaches into what is barred there.
        index: of each scene, with what the split has of it.
        kind: "uniform" (every offset alike), "valid" (around a random labelled pixel) or "balanced" (around
            a random pixel of a random class; all classes that occur are alike).
        window: side of the windows; a scene that is smaller lies at the window's top left.
        size: windows in an epoch.
        seed: with the epoch and a window's number it decides everything.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        index: Sequence[SceneIndex],
        kind: str,
        window: int,
        size: int,
        seed: int,
    ) -> None:
        self._kind = kind
        self._window = window
        self._size = size
        self._seed = seed
        self._cells = [found.cells for found in index]
        self._shape = np.array([(s.image.height, s.image.width) for s in scenes])  # (scenes, 2)
        self._across = np.array([cells.shape[1] for cells in self._cells])
        self._first = np.cumsum([0, *(cells.shape[0] * cells.shape[1] for cells in self._cells)])
        self._offsets = {n: AllowedOffsets(scene, window) for n, scene in enumerate(scenes) if scene.excluded}
        share = np.array(
            [self._offsets[n].allowed_fraction if n in self._offsets else 1.0 for n in range(len(scenes))]
        )
        self._area = np.ceil(self._shape.prod(axis=1) * share).astype(np.int64).cumsum()
        flat = [cells.reshape(-1, cells.shape[2]) for cells in self._cells]
        labelled = [part.sum(axis=1, dtype=np.int64) for part in flat]
        self._full = [bool(part.all()) for part in labelled]
        self._labelled = np.concatenate(labelled).cumsum()
        self._by_class: list[NDArray[np.int64]] = []
        if kind == "balanced":
            counts = (np.concatenate([part[:, c] for part in flat]) for c in range(flat[0].shape[1]))
            sums = (count.cumsum(dtype=np.int64) for count in counts)
            self._by_class = [total for total in sums if total[-1]]

    def epoch(self, epoch: int) -> list[SceneWindow]:
        """The windows of an epoch."""
        return self._places(np.random.default_rng([self._seed, epoch]).random((self._size, 6)), self._kind)

    def redraw(self, epoch: int, number: int, attempt: int) -> SceneWindow:
        """Another window for one that holds no labelled pixel.

        Args:
            epoch: of the window.
            number: of the window in its epoch.
            attempt: 1, 2, ...
        """
        draw = np.random.default_rng([self._seed, epoch, number, attempt]).random((1, 6))
        return self._places(draw, self._kind if attempt < _TRIES else "valid")[0]

    def is_unlabelled(self, place: SceneWindow) -> bool:
        """Whether a window holds no labelled pixel for sure."""
        index, (row, col, height, width) = place
        if self._full[index]:
            return False
        rows = slice(row // CELL, -(-(row + height) // CELL))
        return not self._cells[index][rows, col // CELL : -(-(col + width) // CELL)].any()

    def _places(self, draw: NDArray[np.float64], kind: str) -> list[SceneWindow]:
        """Windows for draws (n, 6) from 0 to below 1."""
        if kind == "uniform":
            scene = _find(self._area, draw[:, 0])
            corner = [self._within(0, self._room(scene, axis), draw[:, 1 + axis]) for axis in (0, 1)]
            for number in self._barred(scene):
                mine = scene == number
                corner[0][mine], corner[1][mine] = self._offsets[number].sample_uniform(draw[mine, 1]).T
        else:
            cell = self._cell(draw, kind)
            scene = np.searchsorted(self._first, cell, side="right") - 1
            position = np.divmod(cell - self._first[scene], self._across[scene])
            corner = [
                self._around(scene, axis, position[axis] * CELL, draw[:, 1 + axis], draw[:, 3 + axis])
                for axis in (0, 1)
            ]
            for number in self._barred(scene):
                mine = scene == number
                cells = np.stack([axis[mine] for axis in position], -1)
                corner[0][mine], corner[1][mine] = self._offsets[number].sample_around(cells, draw[mine, 1]).T
        side = self._window
        columns = (scene.tolist(), corner[0].tolist(), corner[1].tolist())
        return [(index, Window(row, col, side, side)) for index, row, col in zip(*columns, strict=True)]

    def _barred(self, scene: NDArray[np.int64]) -> list[int]:
        """Which of these scenes are in part held back."""
        return [number for number in np.unique(scene).tolist() if number in self._offsets]

    def _cell(self, draw: NDArray[np.float64], kind: str) -> NDArray[np.int64]:
        if kind == "valid":
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
        """First rows (axis 0) or columns of windows around cells that start there.

        A window of two cells or more holds the whole cell, so that it holds what the cell was drawn for,
        and can still lie at every offset. A smaller one holds a random pixel of it.
        """
        end = np.minimum(start + CELL, self._shape[scene, axis])
        first, last = start, end - 1
        if self._window < 2 * CELL:
            first = last = self._within(start, last, pixel)
        high = np.minimum(first, self._room(scene, axis))
        return self._within(np.minimum(np.maximum(last - self._window + 1, 0), high), high, offset)

    def _room(self, scene: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
        room: NDArray[np.int64] = np.maximum(self._shape[scene, axis] - self._window, 0)
        return room

    @staticmethod
    def _within(
        low: NDArray[np.int64] | int, high: NDArray[np.int64], draw: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        found: NDArray[np.int64] = low + (draw * (high - low + 1)).astype(np.int64)
        return found


def grid_windows(scenes: Sequence[Scene], window: int) -> list[SceneWindow]:
    """Evaluation windows: side by side, so that every pixel of a scene or of its parts is in one."""
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
    """Positions drawn in proportion to the steps of a running sum."""
    return np.searchsorted(sums, np.floor(draw * sums[-1]), side="right")
