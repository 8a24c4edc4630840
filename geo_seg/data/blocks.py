"""Spatial blocks: parts of big scenes that validate or test, and the distance that training keeps."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from geo_seg.data.grids import ground_sides
from geo_seg.data.scene import Scene
from geo_seg.dataset_config import SplitConfig
from geo_seg.errors import DataError
from geo_seg.raster import RasterInfo
from geo_seg.tiling import Window

_MOST = 100_000
"""Blocks of a scene."""


def split_by_blocks(scenes: Sequence[Scene], config: SplitConfig, seed: int) -> dict[str, list[Scene]]:
    """Cuts every scene into blocks of one size, and draws those that validate and test.

    A scene comes into each split that it has blocks in. What is neither in a block of val or test nor in
    the buffer around one is for training.

    Args:
        scenes: to be cut.
        config: size of the blocks, buffer, and the shares of val and test.
        seed: of the draw.

    Raises:
        DataError: there are fewer blocks than splits, more than anybody means in a scene, or a
            length in metres has no georeference to go by.
    """
    blocks = [
        (number, block)
        for number, scene in enumerate(scenes)
        for block in _blocks(scene.image, config.block or 0, config.unit)
    ]
    random.Random(seed).shuffle(blocks)  # noqa: S311 - a reproducible split, not a secret
    total = sum(block.height * block.width for _, block in blocks)
    held: dict[str, dict[int, list[Window]]] = {"val": {}, "test": {}}
    for name, parts in held.items():
        wanted = (getattr(config, name) or 0) * total
        least = 1 if wanted else 0
        while len(blocks) > 1 and (least or blocks[-1][1].height * blocks[-1][1].width / 2 < wanted):
            number, block = blocks.pop()
            parts.setdefault(number, []).append(block)
            wanted -= block.height * block.width
            least = 0
        if least:
            raise DataError(
                f"no block is left for {name}: blocks of {config.block:g} {config.unit} are too large for "
                f"{len(scenes)} scenes; see dataset.split.block"
            )
    training = {number for number, _ in blocks}
    found = {
        name: [replace(scenes[number], parts=tuple(sorted(parts[number]))) for number in sorted(parts)]
        for name, parts in held.items()
    }
    found["train"] = []
    for number in sorted(training):
        back = [block for parts in held.values() for block in parts.get(number, [])]
        barred = _barred(scenes[number].image, back, config)
        found["train"].append(replace(scenes[number], barred=barred))
    return found


def pixels_of(length: float, unit: str, image: RasterInfo) -> float:
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
    sides = ground_sides(image)
    if sides is None:
        raise DataError(
            f"{image.path}: has no CRS to measure metres by; give dataset.split.block and buffer in pixels"
        )
    return length / min(sides)


def _blocks(image: RasterInfo, length: float, unit: str) -> list[Window]:
    """Parts of a raster that are as near to a length as equal ones can be: no slivers at the edges."""
    side = pixels_of(length, unit, image)
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


def _barred(image: RasterInfo, held: Sequence[Window], config: SplitConfig) -> tuple[Window, ...]:
    """The blocks of a scene that are held back, each with the buffer around it."""
    buffer = math.ceil(pixels_of(config.buffer, config.unit, image))
    barred = []
    for row, col, height, width in held:
        top, left = max(row - buffer, 0), max(col - buffer, 0)
        bottom, right = min(row + height + buffer, image.height), min(col + width + buffer, image.width)
        barred.append(Window(top, left, bottom - top, right - left))
    return tuple(sorted(barred))
