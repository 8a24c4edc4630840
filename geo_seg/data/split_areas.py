"""What a split has of a scene, to the pixel: its ground, and what is counted on it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.band_statistics import Counts
from geo_seg.data.class_table import ClassTable
from geo_seg.data.index import CELL, SceneIndex
from geo_seg.data.scene_reader import WindowArrays
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.windows.allowed_offsets import AllowedOffsets, cells_in
from geo_seg.data.windows.reader import WindowReader
from geo_seg.tiling import Window

Read = Callable[[Window], WindowArrays]
"""Reads a window of a scene."""


def split_rectangles(scene: Scene, window: int) -> list[Window]:
    """Return the rectangles that make up what a split has of a scene.

    Blocks of val and test, of training all that a window can show without reaching into what is barred (these
    rectangles overlap), else the whole scene.

    Args:
        scene: of the split.
        window: side of training windows.
    """
    if scene.excluded:
        return [
            Window(a, b, c - a, d - b)
            for a, b, c, d in AllowedOffsets(scene, window).visible_boxes().tolist()
        ]
    return [*scene.blocks] or [Window(0, 0, scene.image.height, scene.image.width)]


def inside_rectangles(rectangles: Sequence[Window], window: Window) -> NDArray[np.bool_]:
    """Return (height, width): which pixels of a window lie in any of some rectangles."""
    inside = np.zeros((window.height, window.width), bool)
    for row, col, height, width in rectangles:
        top, left = max(row - window.row, 0), max(col - window.col, 0)
        inside[top : max(row + height - window.row, 0), left : max(col + width - window.col, 0)] = True
    return inside


def split_counts(
    scenes: Sequence[Scene], found: Sequence[SceneIndex], table: ClassTable, config: DatasetConfig
) -> list[SceneIndex]:
    """Return the index of what a split has of each of its scenes; see scene_counts.

    Args:
        scenes: of the split.
        found: index of each whole scene.
        table: see WindowReader.
        config: see WindowReader.
    """
    if not any(scene.blocks or scene.excluded for scene in scenes):
        return [*found]
    reader = WindowReader(scenes, found, table, config)

    def own(number: int) -> SceneIndex:
        return scene_counts(
            scenes[number], found[number], config.window, lambda window: reader.read((number, window))
        )

    with ThreadPoolExecutor(config.num_threads) as pool:
        return [*pool.map(own, range(len(scenes)))]


def scene_counts(scene: Scene, found: SceneIndex, window: int, read: Read) -> SceneIndex:
    """Return the index of what a split has of a scene.

    The cells of training are those that a window is allowed around, those of val and test the ones whose
    middle lies in a block; what is counted is exact. Statistics of the bands stay those of the whole scene.

    Args:
        scene: as the split has it.
        found: index of the whole scene.
        window: side of training windows.
        read: reads the cells that the border of the ground cuts.
    """
    if not scene.excluded and not scene.blocks:
        return found
    rows, cols = found.cells.shape[:2]
    if scene.excluded:
        kept = AllowedOffsets(scene, window).is_allowed(rows, cols)
    else:
        kept = np.zeros((rows, cols), bool)
        for part in scene.blocks:
            kept[cells_in(part)] = True
    cells = np.where(kept[..., None], found.cells, np.uint16(0))
    return replace(
        found, cells=cells, class_counts=_counted(scene, found, split_rectangles(scene, window), read)
    )


def _counted(scene: Scene, found: SceneIndex, ground: Sequence[Window], read: Read) -> Counts:
    """Count whole cells from the index, and those that are cut pixel by pixel."""
    height, width = scene.image.height, scene.image.width
    starts = np.arange(0, width, CELL)
    pixels = valid = 0
    classes = np.zeros(found.cells.shape[2], np.int64)
    for number, top in enumerate(range(0, height, CELL)):
        strip = Window(top, 0, min(CELL, height - top), width)
        inside = inside_rectangles([part for part in ground if part.row < top + CELL], strip)
        covered = np.add.reduceat(inside.sum(axis=0), starts)
        whole = covered == strip.height * np.diff([*starts, width])
        pixels += int(covered.sum())
        valid += int(found.valid[number][whole].sum())
        classes += found.cells[number][whole].sum(axis=0, dtype=np.int64)
        for first, end in _runs((covered > 0) & ~whole & (found.valid[number] > 0)):
            part = strip._replace(col=int(starts[first]), width=min(end * CELL, width) - int(starts[first]))
            _, labels, measured = read(part)
            here = inside[:, part.col : part.col + part.width]
            valid += int(np.count_nonzero(measured & here))
            known = labels[here & (labels >= 0) & (labels < len(classes))]  # the others are ignored
            classes += np.bincount(known, minlength=len(classes))
    return Counts(pixels, valid, classes)


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
