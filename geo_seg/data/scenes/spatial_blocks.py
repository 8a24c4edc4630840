"""Split by spatial blocks: parts of large scenes held out for val and test, with a buffer around them."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from geo_seg.config.dataset import SplitConfig
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.windows.allowed_offsets import AllowedOffsets, cells_in
from geo_seg.errors import DataError
from geo_seg.raster.georeference import ground_pixel_size
from geo_seg.raster.reader import RasterInfo
from geo_seg.tiling import Window

_MAX_BLOCKS = 100_000  # of a scene
_HELD_OUT = ("val", "test")
_MAX_DRAWS = 10  # of blocks, until training windows reach every class


def split_by_blocks(
    scenes: Sequence[Scene],
    config: SplitConfig,
    seed: int,
    window: int,
    cells: Sequence[NDArray[np.uint16]] = (),
) -> dict[str, list[Scene]]:
    """Cut every scene into blocks of one size, and draw those of val and test.

    A scene is in each split in which it has blocks. Training gets everything outside of the blocks of val
    and test and of the buffer around them. With class counts, every split gets labels of every class if
    enough blocks hold some, and not more of a class than its share if possible; of several draws, the first
    one is taken in which training windows reach all classes, or the one that misses the fewest.

    Args:
        scenes: scenes to cut.
        config: size of the blocks, buffer, and the shares of val and test.
        seed: of the draw.
        window: side of training windows.
        cells: (rows, columns, classes) labelled pixels of each scene; () draws regardless of labels.

    Raises:
        DataError: there are fewer blocks, or labelled blocks, than splits, a scene has more than 100,000
            blocks, or a length is given in metres and an image has no CRS.
    """
    blocks = [
        (number, block)
        for number, scene in enumerate(scenes)
        for block in _blocks(scene.image, config.block or 0, config.unit)
    ]
    shares = {name: float(getattr(config, name) or 0) for name in _HELD_OUT}
    labels = _block_labels(blocks, cells)
    _check_labelled_blocks(labels, shares, config)
    holding = (labels > 0).sum(axis=0)  # blocks of each class
    unavoidable = int(np.maximum(1 + np.count_nonzero([*shares.values()]) - holding, 0)[holding > 0].sum())
    areas = np.array([block.height * block.width for _, block in blocks], np.int64)
    draw = random.Random(seed)  # noqa: S311 - a reproducible split, not a secret
    cells_by_name = {
        scene.name: scene_cells for scene, scene_cells in zip(scenes, cells, strict=bool(len(cells)))
    }
    candidates = []
    for _ in range(_MAX_DRAWS if len(cells) else 1):
        order = list(range(len(blocks)))
        draw.shuffle(order)
        order.reverse()
        held_out = _choose_held_out(order, areas, labels, shares)
        for name in (name for name, numbers in held_out.items() if not numbers):
            raise DataError(
                f"no block is left for {name}: blocks of {config.block:g} {config.unit} are too large for "
                f"{len(scenes)} scenes; see dataset.split.block"
            )
        splits = _divide_scenes(scenes, blocks, held_out, config)
        missing = _missing_classes(splits, labels, held_out, window, cells_by_name)
        candidates.append((missing, splits))
        if missing <= unavoidable:
            break
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _block_labels(
    blocks: Sequence[tuple[int, Window]], cells: Sequence[NDArray[np.uint16]]
) -> NDArray[np.int64]:
    """Return (blocks, classes) labelled pixels, counted in the cells whose centre lies in a block."""
    if not len(cells):
        return np.zeros((len(blocks), 0), np.int64)
    return np.stack(
        [cells[number][cells_in(block)].sum(axis=(0, 1), dtype=np.int64) for number, block in blocks]
    )


def _check_labelled_blocks(
    labels: NDArray[np.int64], shares: Mapping[str, float], config: SplitConfig
) -> None:
    labelled = int(np.count_nonzero(labels.any(axis=1)))
    names = ["train", *(name for name, share in shares.items() if share)]
    if 0 < labelled < len(names) <= len(labels):
        raise DataError(
            f"the {labels.sum():,} labelled pixels lie in {labelled} of {len(labels)} blocks of "
            f"{config.block:g} {config.unit}, and {', '.join(names)} need one each: take smaller blocks "
            "(dataset.split.block), or label more"
        )


def _choose_held_out(
    order: Sequence[int],
    areas: NDArray[np.int64],
    labels: NDArray[np.int64],
    shares: Mapping[str, float],
) -> dict[str, list[int]]:
    """Choose the blocks of val and test, by number, in an order that was drawn."""
    chosen: dict[str, list[int]] = {name: [] for name, share in shares.items() if share}
    free = [*order]
    total = labels.sum(axis=0)
    rarest_first = np.count_nonzero(labels, axis=0).argsort(kind="stable").tolist()
    for label in rarest_first:
        for name, numbers in chosen.items():
            candidates = [block for block in free if labels[block, label]]
            if len(candidates) > 1 and not labels[numbers, label].any():  # the last block is left to training
                limit = max(2 * shares[name] * total[label], labels[candidates, label].min())
                numbers.append(next(block for block in candidates if labels[block, label] <= limit))
                free.remove(numbers[-1])
    for name, numbers in chosen.items():
        area_left = shares[name] * areas.sum() - areas[numbers].sum()
        counts, blocks_left = labels[numbers].sum(axis=0), np.count_nonzero(labels[free], axis=0)
        deferred: list[int] = []
        for position, number in enumerate(free):  # a block that once exceeds the share always will
            if len(free) - position + len(deferred) < 2 or (numbers and areas[number] / 2 >= area_left):
                deferred += free[position:]
                break
            if _surplus(counts, blocks_left, labels[[number]], total, shares[name])[0] > 0:
                deferred.append(number)
                continue
            numbers.append(number)
            area_left -= areas[number]
            counts, blocks_left = counts + labels[number], blocks_left - (labels[number] > 0)
        else:
            while len(deferred) > 1:  # all exceed the share: take the least excess
                number = deferred[
                    int(_surplus(counts, blocks_left, labels[deferred], total, shares[name]).argmin())
                ]
                if numbers and areas[number] / 2 >= area_left:
                    break
                numbers.append(number)
                deferred.remove(number)
                area_left -= areas[number]
                counts, blocks_left = counts + labels[number], blocks_left - (labels[number] > 0)
        free = deferred
    return chosen


def _surplus(
    counts: NDArray[np.int64],
    blocks_left: NDArray[np.int64],
    labels: NDArray[np.int64],
    total: NDArray[np.int64],
    share: float,
) -> NDArray[np.float64]:
    """Return (blocks,) by how much a split would exceed its share of any class with each block.

    Taking the last free block of a class adds 1.

    Args:
        counts: (classes,) labelled pixels of the split.
        blocks_left: (classes,) number of free blocks that hold the class.
        labels: (blocks, classes) labelled pixels of the blocks.
        total: (classes,) labelled pixels of all blocks.
        share: share of the split, 0 to 1.
    """
    over = np.maximum((counts + labels) / np.maximum(total, 1) - share, 0).max(axis=1, initial=0)
    excess: NDArray[np.float64] = over + np.any((blocks_left == 1) & (labels > 0), axis=1)
    return excess


def _divide_scenes(
    scenes: Sequence[Scene],
    blocks: Sequence[tuple[int, Window]],
    held_out: Mapping[str, Sequence[int]],
    config: SplitConfig,
) -> dict[str, list[Scene]]:
    """Return the scenes of each split, with their blocks or, for training, with the excluded rectangles."""
    splits: dict[str, list[Scene]] = {}
    for name in _HELD_OUT:
        parts: dict[int, list[Window]] = {}
        for block in held_out.get(name, ()):
            parts.setdefault(blocks[block][0], []).append(blocks[block][1])
        splits[name] = [replace(scenes[n], blocks=tuple(sorted(parts[n]))) for n in sorted(parts)]
    evaluated = {block for numbers in held_out.values() for block in numbers}
    excluded: dict[int, list[Window]] = {}
    for block in evaluated:
        excluded.setdefault(blocks[block][0], []).append(blocks[block][1])
    splits["train"] = [
        replace(scenes[number], excluded=_buffered(scenes[number].image, excluded.get(number, []), config))
        for number in sorted({number for block, (number, _) in enumerate(blocks) if block not in evaluated})
    ]
    return splits


def _missing_classes(
    splits: Mapping[str, Sequence[Scene]],
    labels: NDArray[np.int64],
    held_out: Mapping[str, Sequence[int]],
    window: int,
    cells: Mapping[str, NDArray[np.uint16]],
) -> int:
    """Return the number of classes without labels, summed over the splits."""
    present = labels.any(axis=0)
    missing = sum(
        int(np.count_nonzero(present & ~labels[[*numbers]].any(axis=0))) for numbers in held_out.values()
    )
    reached = np.zeros_like(present)
    for scene in splits["train"] if cells else ():
        scene_cells = cells[scene.name]
        allowed = (
            AllowedOffsets(scene, window).is_allowed(*scene_cells.shape[:2])
            if scene.excluded
            else np.ones(scene_cells.shape[:2], bool)
        )
        reached |= scene_cells[allowed].any(axis=0)
    return missing + int(np.count_nonzero(present & ~reached))


def length_in_pixels(length: float, unit: str, image: RasterInfo) -> float:
    """Convert a length on an image to pixels, by the shorter side of a pixel.

    Args:
        length: 0 or more.
        unit: "pixels" or "metres".
        image: header of the image, whose pixel size on the ground is taken at its centre.

    Raises:
        DataError: the unit is metres, and the image has no CRS.
    """
    if unit == "pixels" or not length:
        return length
    sides = ground_pixel_size(image)
    if sides is None:
        raise DataError(
            f"{image.path}: has no CRS to measure metres in; give dataset.split.block and buffer in pixels"
        )
    return length / min(sides)


def _blocks(image: RasterInfo, length: float, unit: str) -> list[Window]:
    """Cut a raster into blocks of nearly equal size, as close to a side length as possible: no slivers."""
    side = length_in_pixels(length, unit, image)
    counts = [max(round(pixels / side), 1) for pixels in (image.height, image.width)]
    if math.prod(counts) > _MAX_BLOCKS:
        raise DataError(
            f"dataset.split.block={length:g}: cuts {image.path} into {counts[0]} x {counts[1]} blocks, more "
            f"than {_MAX_BLOCKS}; expected the side of a block in {unit}, some windows"
        )
    edges = []
    for pixels, count in zip((image.height, image.width), counts, strict=True):
        edges.append([pixels * number // count for number in range(count + 1)])
    rows, cols = ([*pairwise(bounds)] for bounds in edges)
    return [Window(top, left, bottom - top, right - left) for top, bottom in rows for left, right in cols]


def _buffered(image: RasterInfo, blocks: Sequence[Window], config: SplitConfig) -> tuple[Window, ...]:
    """Return blocks with the buffer around them, clipped to the image."""
    buffer = math.ceil(length_in_pixels(config.buffer, config.unit, image))
    buffered = []
    for row, col, height, width in blocks:
        top, left = max(row - buffer, 0), max(col - buffer, 0)
        bottom, right = min(row + height + buffer, image.height), min(col + width + buffer, image.width)
        buffered.append(Window(top, left, bottom - top, right - left))
    return tuple(sorted(buffered))
