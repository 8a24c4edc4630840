"""Spatial blocks: parts of big scenes that validate or test, and the distance that training keeps."""

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

_MOST = 100_000
"""Blocks of a scene."""
_HELD = ("val", "test")
_DRAWS = 10  # of blocks, as long as training windows don't reach a class


def split_by_blocks(
    scenes: Sequence[Scene],
    config: SplitConfig,
    seed: int,
    window: int,
    cells: Sequence[NDArray[np.uint16]] = (),
) -> dict[str, list[Scene]]:
    """Cut every scene into blocks of one size, and draw those that validate and test.

    A scene comes into each split that it has blocks in. What is neither in a block of val or test nor in
    the buffer around one is for training. Where labels are known, every split gets labels of every class as
    far as there are blocks that hold some, and no more of a class than its share if that can be; of several
    draws the first one is taken in which training windows reach all classes, or the one that lacks least.

    Args:
        scenes: to be cut.
        config: size of the blocks, buffer, and the shares of val and test.
        seed: of the draw.
        window: side of training windows.
        cells: of each scene, (rows, columns, classes) labelled pixels; () draws without regard to labels.

    Raises:
        DataError: there are fewer blocks, or blocks with labels, than splits, more blocks than anybody means
            in a scene, or a length in metres has no georeference to go by.
    """
    blocks = [
        (number, block)
        for number, scene in enumerate(scenes)
        for block in _blocks(scene.image, config.block or 0, config.unit)
    ]
    shares = {name: float(getattr(config, name) or 0) for name in _HELD}
    labels = _labels_of(blocks, cells)
    _check_number(labels, shares, config)
    holding = (labels > 0).sum(axis=0)  # blocks of each class
    least = int(np.maximum(1 + np.count_nonzero([*shares.values()]) - holding, 0)[holding > 0].sum())
    areas = np.array([block.height * block.width for _, block in blocks], np.int64)
    draw = random.Random(seed)  # noqa: S311 - a reproducible split, not a secret
    known = {scene.name: own for scene, own in zip(scenes, cells, strict=bool(len(cells)))}
    tried = []
    for _ in range(_DRAWS if len(cells) else 1):
        order = list(range(len(blocks)))
        draw.shuffle(order)
        order.reverse()
        held = _choose_held_out(order, areas, labels, shares)
        for name in (name for name, own in held.items() if not own):
            raise DataError(
                f"no block is left for {name}: blocks of {config.block:g} {config.unit} are too large for "
                f"{len(scenes)} scenes; see dataset.split.block"
            )
        found = _divide_scenes(scenes, blocks, held, config)
        lacking = _missing_classes(found, labels, held, window, known)
        tried.append((lacking, found))
        if lacking <= least:
            break
    return min(tried, key=lambda one: one[0])[1]


def _labels_of(
    blocks: Sequence[tuple[int, Window]], cells: Sequence[NDArray[np.uint16]]
) -> NDArray[np.int64]:
    """Return (blocks, classes) labelled pixels, to whole cells: those whose middle lies in a block."""
    if not len(cells):
        return np.zeros((len(blocks), 0), np.int64)
    return np.stack(
        [cells[number][cells_in(block)].sum(axis=(0, 1), dtype=np.int64) for number, block in blocks]
    )


def _check_number(labels: NDArray[np.int64], shares: Mapping[str, float], config: SplitConfig) -> None:
    holding = int(np.count_nonzero(labels.any(axis=1)))
    wanted = ["train", *(name for name, share in shares.items() if share)]
    if 0 < holding < len(wanted) <= len(labels):
        raise DataError(
            f"the {labels.sum():,} labelled pixels lie in {holding} of {len(labels)} blocks of "
            f"{config.block:g} {config.unit}, and {', '.join(wanted)} need one each: take smaller blocks "
            "(dataset.split.block), or label more"
        )


def _choose_held_out(
    order: Sequence[int],
    areas: NDArray[np.int64],
    labels: NDArray[np.int64],
    shares: Mapping[str, float],
) -> dict[str, list[int]]:
    """Choose the blocks of val and test, each by its number, in an order that was drawn."""
    held: dict[str, list[int]] = {name: [] for name, share in shares.items() if share}
    free = [*order]
    total = labels.sum(axis=0)
    rarest_first = np.count_nonzero(labels, axis=0).argsort(kind="stable").tolist()
    for one in rarest_first:
        for name, own in held.items():
            able = [block for block in free if labels[block, one]]
            if len(able) > 1 and not labels[own, one].any():  # the last one is left to training
                most = max(2 * shares[name] * total[one], labels[able, one].min())
                own.append(next(block for block in able if labels[block, one] <= most))
                free.remove(own[-1])
    for name, own in held.items():
        wanted = shares[name] * areas.sum() - areas[own].sum()
        has, left = labels[own].sum(axis=0), np.count_nonzero(labels[free], axis=0)
        kept: list[int] = []
        for place, pick in enumerate(free):  # what takes too much once does so ever after
            if len(free) - place + len(kept) < 2 or (own and areas[pick] / 2 >= wanted):
                kept += free[place:]
                break
            if _surplus(has, left, labels[[pick]], total, shares[name])[0] > 0:
                kept.append(pick)
                continue
            own.append(pick)
            wanted -= areas[pick]
            has, left = has + labels[pick], left - (labels[pick] > 0)
        else:
            while len(kept) > 1:  # all that is left takes more than its share: that which takes least
                pick = kept[int(_surplus(has, left, labels[kept], total, shares[name]).argmin())]
                if own and areas[pick] / 2 >= wanted:
                    break
                own.append(pick)
                kept.remove(pick)
                wanted -= areas[pick]
                has, left = has + labels[pick], left - (labels[pick] > 0)
        free = kept
    return held


def _surplus(
    has: NDArray[np.int64],
    left: NDArray[np.int64],
    labels: NDArray[np.int64],
    total: NDArray[np.int64],
    share: float,
) -> NDArray[np.float64]:
    """Return by how much a split would exceed its share of any class with each of some blocks.

    Args:
        has: (classes,) labelled pixels of the split.
        left: (classes,) how many free blocks have some; 1 more for a block that takes the last one.
        labels: (blocks, classes) labelled pixels.
        total: (classes,) of all blocks.
        share: of the split.
    """
    over = np.maximum((has + labels) / np.maximum(total, 1) - share, 0).max(axis=1, initial=0)
    excess: NDArray[np.float64] = over + np.any((left == 1) & (labels > 0), axis=1)
    return excess


def _divide_scenes(
    scenes: Sequence[Scene],
    blocks: Sequence[tuple[int, Window]],
    held: Mapping[str, Sequence[int]],
    config: SplitConfig,
) -> dict[str, list[Scene]]:
    """Turn numbers of blocks into scenes with their parts, and those of training with what is barred."""
    found: dict[str, list[Scene]] = {}
    for name in _HELD:
        parts: dict[int, list[Window]] = {}
        for block in held.get(name, ()):
            parts.setdefault(blocks[block][0], []).append(blocks[block][1])
        found[name] = [replace(scenes[n], blocks=tuple(sorted(parts[n]))) for n in sorted(parts)]
    taken = {block for own in held.values() for block in own}
    back: dict[int, list[Window]] = {}
    for block in taken:
        back.setdefault(blocks[block][0], []).append(blocks[block][1])
    found["train"] = [
        replace(scenes[number], excluded=_buffered(scenes[number].image, back.get(number, []), config))
        for number in sorted({number for block, (number, _) in enumerate(blocks) if block not in taken})
    ]
    return found


def _missing_classes(
    found: Mapping[str, Sequence[Scene]],
    labels: NDArray[np.int64],
    held: Mapping[str, Sequence[int]],
    window: int,
    cells: Mapping[str, NDArray[np.uint16]],
) -> int:
    """Count the classes that splits lack, over all splits."""
    there = labels.any(axis=0)
    lacking = sum(int(np.count_nonzero(there & ~labels[[*own]].any(axis=0))) for own in held.values())
    reached = np.zeros_like(there)
    for scene in found["train"] if cells else ():
        own = cells[scene.name]
        allowed = (
            AllowedOffsets(scene, window).is_allowed(*own.shape[:2])
            if scene.excluded
            else np.ones(own.shape[:2], bool)
        )
        reached |= own[allowed].any(axis=0)
    return lacking + int(np.count_nonzero(there & ~reached))


def length_in_pixels(length: float, unit: str, image: RasterInfo) -> float:
    """A length on an image in pixels, by the shorter side of its pixels.

    Args:
        length: 0 or more.
        unit: "pixels" or "metres".
        image: gives the size of the pixels, on the ground at its middle.

    Raises:
        DataError: metres, and the image has no CRS to measure them by.
    """
    if unit == "pixels" or not length:
        return length
    sides = ground_pixel_size(image)
    if sides is None:
        raise DataError(
            f"{image.path}: has no CRS to measure metres by; give dataset.split.block and buffer in pixels"
        )
    return length / min(sides)


def _blocks(image: RasterInfo, length: float, unit: str) -> list[Window]:
    """Parts of a raster that are as near to a length as equal ones can be: no slivers at the edges."""
    side = length_in_pixels(length, unit, image)
    counts = [max(round(pixels / side), 1) for pixels in (image.height, image.width)]
    if math.prod(counts) > _MOST:
        raise DataError(
            f"dataset.split.block={length:g}: cuts {image.path} into {counts[0]} x {counts[1]} blocks, more "
            f"than {_MOST}; expected the side of a block in {unit}, some windows"
        )
    edges = []
    for pixels, count in zip((image.height, image.width), counts, strict=True):
        edges.append([pixels * number // count for number in range(count + 1)])
    rows, cols = ([*pairwise(found)] for found in edges)
    return [Window(top, left, bottom - top, right - left) for top, bottom in rows for left, right in cols]


def _buffered(image: RasterInfo, held: Sequence[Window], config: SplitConfig) -> tuple[Window, ...]:
    """The blocks of a scene that are held back, each with the buffer around it."""
    buffer = math.ceil(length_in_pixels(config.buffer, config.unit, image))
    barred = []
    for row, col, height, width in held:
        top, left = max(row - buffer, 0), max(col - buffer, 0)
        bottom, right = min(row + height + buffer, image.height), min(col + width + buffer, image.width)
        barred.append(Window(top, left, bottom - top, right - left))
    return tuple(sorted(barred))
