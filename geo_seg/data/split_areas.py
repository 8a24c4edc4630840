"""Parts of scenes that belong to a split: their rectangles, and exact pixel counts inside them."""

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

ReadWindow = Callable[[Window], WindowArrays]
"""Function that reads a window of a scene."""


def split_rectangles(scene: Scene, window: int) -> list[Window]:
    """Return the rectangles of a scene that belong to a split.

    These are the blocks of val and test; for training, all that allowed windows can show (these rectangles
    overlap); without spatial blocks the whole scene.

    Args:
        scene: scene of the split.
        window: side of training windows.
    """
    if scene.excluded:
        return [
            Window(a, b, c - a, d - b)
            for a, b, c, d in AllowedOffsets(scene, window).visible_boxes().tolist()
        ]
    return [*scene.blocks] or [Window(0, 0, scene.image.height, scene.image.width)]


def inside_rectangles(rectangles: Sequence[Window], window: Window) -> NDArray[np.bool_]:
    """Return (height, width) a mask of the pixels of a window that lie in any of the rectangles."""
    inside = np.zeros((window.height, window.width), bool)
    for row, col, height, width in rectangles:
        top, left = max(row - window.row, 0), max(col - window.col, 0)
        inside[top : max(row + height - window.row, 0), left : max(col + width - window.col, 0)] = True
    return inside


def split_counts(
    scenes: Sequence[Scene], index: Sequence[SceneIndex], table: ClassTable, config: DatasetConfig
) -> list[SceneIndex]:
    """Return the index of each scene of a split, restricted to the split's part; see scene_counts.

    Args:
        scenes: scenes of the split.
        index: index of each whole scene.
        table: see WindowReader.
        config: see WindowReader.
    """
    if not any(scene.blocks or scene.excluded for scene in scenes):
        return [*index]
    reader = WindowReader(scenes, index, table, config)

    def split_index(number: int) -> SceneIndex:
        return scene_counts(
            scenes[number], index[number], config.window, lambda window: reader.read((number, window))
        )

    with ThreadPoolExecutor(config.num_threads) as pool:
        return [*pool.map(split_index, range(len(scenes)))]


def scene_counts(scene: Scene, index: SceneIndex, window: int, read: ReadWindow) -> SceneIndex:
    """Return the index of a scene, restricted to the part that belongs to a split.

    Cells of training are those that an allowed window can contain, cells of val and test those whose centre
    lies in a block; pixel counts are exact. Band statistics remain those of the whole scene.

    Args:
        scene: scene of the split.
        index: index of the whole scene.
        window: side of training windows.
        read: reads the cells that the outline of the part cuts.
    """
    if not scene.excluded and not scene.blocks:
        return index
    rows, cols = index.cells.shape[:2]
    if scene.excluded:
        inside = AllowedOffsets(scene, window).is_allowed(rows, cols)
    else:
        inside = np.zeros((rows, cols), bool)
        for block in scene.blocks:
            inside[cells_in(block)] = True
    cells = np.where(inside[..., None], index.cells, np.uint16(0))
    return replace(
        index, cells=cells, class_counts=_count_pixels(scene, index, split_rectangles(scene, window), read)
    )


def _count_pixels(scene: Scene, index: SceneIndex, rectangles: Sequence[Window], read: ReadWindow) -> Counts:
    """Count whole cells from the index, and cut cells pixel by pixel."""
    height, width = scene.image.height, scene.image.width
    starts = np.arange(0, width, CELL)
    pixels = valid = 0
    classes = np.zeros(index.cells.shape[2], np.int64)
    for cell_row, top in enumerate(range(0, height, CELL)):
        strip = Window(top, 0, min(CELL, height - top), width)
        inside = inside_rectangles([part for part in rectangles if part.row < top + CELL], strip)
        covered = np.add.reduceat(inside.sum(axis=0), starts)
        complete = covered == strip.height * np.diff([*starts, width])
        pixels += int(covered.sum())
        valid += int(index.valid[cell_row][complete].sum())
        classes += index.cells[cell_row][complete].sum(axis=0, dtype=np.int64)
        for first, end in _runs((covered > 0) & ~complete & (index.valid[cell_row] > 0)):
            part = strip._replace(col=int(starts[first]), width=min(end * CELL, width) - int(starts[first]))
            _, labels, is_valid = read(part)
            inside_part = inside[:, part.col : part.col + part.width]
            valid += int(np.count_nonzero(is_valid & inside_part))
            counted = labels[inside_part & (labels >= 0) & (labels < len(classes))]  # the rest is ignored
            classes += np.bincount(counted, minlength=len(classes))
    return Counts(pixels, valid, classes)


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return start and end of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
