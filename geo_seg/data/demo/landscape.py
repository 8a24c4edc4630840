"""Synthetic landscape: farmland, woods, a river and ponds, roads and buildings."""

import numpy as np
from numpy.typing import NDArray

from geo_seg.data.demo.canvas import (
    CROPS,
    FIELD,
    FOREST,
    NUMBER,
    ROAD,
    WATER,
    Floats,
    Landscape,
    Mask,
    curve,
    distance,
    noise,
    stroke,
)
from geo_seg.data.demo.settlement import (
    build,
    draw_roads,
    draw_streets,
    draw_villages,
    garden,
    village_ground,
)

_CROP_SHARES = (0.2, 0.12, 0.22, 0.06, 0.13, 0.09, 0.1, 0.08)
_PARCEL = (70, 130)  # longest side of a parcel, pixels
_FOREST_SHARE = 0.3  # of the area outside of roads, water and villages
_SLIM = 1.9  # length of a parcel over its width


def draw_landscape(draw: np.random.Generator, shape: tuple[int, int]) -> Landscape:
    """Draw a landscape: farmland, woods, a river with ponds, roads, villages and farms.

    Args:
        draw: random generator that determines everything.
        shape: rows and columns, 256 or more.
    """
    land, lanes = _farmland(draw, shape)
    river = _river(draw, shape)
    villages = draw_villages(draw, shape, river)
    roads, streets = draw_roads(draw, shape, villages), draw_streets(draw, villages)
    flow = stroke(shape, *river)
    ponds = _ponds(draw, shape, np.concatenate([river[0], *(way.points[::4] for way in roads + streets)]))
    water = ponds | flow
    ground = village_ground(draw, shape, villages)
    land.cover(stroke(shape, river[0], river[1] + 2.5), FIELD, "verge")
    garden(draw, land, streets, ground)
    _plant(draw, land, ground | water)
    land.cover(lanes & ~ground, ROAD, "gravel")
    land.cover(ponds, WATER, "pond")
    land.cover(flow, WATER, "river")
    for way in streets:
        land.cover(stroke(shape, way.points, way.radius) & ~water, ROAD, way.material)
    for way in roads:  # over bridges
        land.cover(stroke(shape, way.points, way.radius), ROAD, way.material)
    build(draw, land, roads + streets, villages)
    return land


def _farmland(draw: np.random.Generator, shape: tuple[int, int]) -> tuple[Landscape, Mask]:
    """Return parcels in four directions, and a mask of the lanes between them."""
    rows, cols = np.indices(shape, dtype=np.float32)
    bend = 9 * noise(draw, shape, 130)
    seeds = draw.uniform(0.1, 0.9, (4, 2)) * shape
    region = np.argmin([(rows - r + bend) ** 2 + (cols - c - bend) ** 2 for r, c in seeds], axis=0)
    parcel, across = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    lanes = np.zeros(shape, bool)
    side = int(np.hypot(*shape)) + 120  # room for the bends
    for number, angle in enumerate(draw.uniform(0, np.pi, len(seeds))):
        down, right = rows - shape[0] / 2, cols - shape[1] / 2
        u = down * np.cos(angle) + right * np.sin(angle) + bend + side / 2
        v = right * np.cos(angle) - down * np.sin(angle) + bend + side / 2
        plan, paths = _parcels(draw, side)
        in_region = region == number
        position = u[in_region].astype(int), v[in_region].astype(int)
        parcel[in_region] = plan[position] + parcel.max() + 1
        across[in_region] = u[in_region]
        lanes[in_region] = paths[position]
    crops = draw.choice([NUMBER[name] for name in CROPS], parcel.max() + 1, p=_CROP_SHARES)
    material = crops.astype(np.uint8)[parcel]
    edge = (parcel != np.roll(parcel, 1, 0)) | (parcel != np.roll(parcel, 1, 1))
    material[edge] = NUMBER["verge"]
    flat = np.zeros(shape, np.float32)
    return Landscape(np.full(shape, FIELD, np.uint8), material, parcel, across, flat), lanes


def _parcels(draw: np.random.Generator, side: int) -> tuple[NDArray[np.int32], Mask]:
    """Cut a square into parcels, wider than high; return their numbers and the lanes along early cuts."""
    plan, lanes = np.zeros((side, side), np.int32), np.zeros((side, side), bool)
    uncut, done = [(0, 0, side, side, 0)], 0
    while uncut:
        top, left, height, width, depth = uncut.pop()
        if max(_SLIM * height, width) < draw.uniform(*_PARCEL):
            plan[top : top + height, left : left + width] = done
            done += 1
            continue
        across = _SLIM * height > width
        cut = int((height if across else width) * draw.uniform(0.36, 0.64))
        if across:
            uncut += [(top, left, cut, width, depth + 1), (top + cut, left, height - cut, width, depth + 1)]
            line = np.s_[top + cut - 2 : top + cut + 2, left : left + width]
        else:
            uncut += [(top, left, height, cut, depth + 1), (top, left + cut, height, width - cut, depth + 1)]
            line = np.s_[top : top + height, left + cut - 2 : left + cut + 2]
        lanes[line] |= 2 <= depth <= 3
    return plan, lanes


def _river(draw: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return a meandering river, down the frame or across it: its points and the radius at each point."""
    along = int(draw.integers(2))
    length, breadth = shape[along], shape[1 - along]
    count = round(length / draw.uniform(60, 100)) + 3
    waypoints = np.empty((count, 2), np.float32)
    waypoints[:, along] = np.linspace(-60, length + 60, count) + draw.uniform(-12, 12, count)
    swing = draw.uniform(12, 48, count) * np.where(np.arange(count) % 2, 1, -1)
    start, end = draw.uniform(0.25, 0.75, 2) * breadth
    waypoints[:, 1 - along] = np.linspace(start, end, count) + swing
    line = curve(waypoints)[::2]
    radius = 10.5 + 2.2 * noise(draw, (len(line), 1), 30)[:, 0]
    return line, np.clip(radius, 6, 17)


def _ponds(draw: np.random.Generator, shape: tuple[int, int], lines: Floats) -> Mask:
    """Return a mask of three ponds, placed away from the river and the roads."""
    ponds = np.zeros(shape, bool)
    rows, cols = np.indices(shape, dtype=np.float32)
    shore = 1 + 0.3 * noise(draw, shape, 13)
    for _ in range(3):
        candidates = (draw.uniform(0.15, 0.85, (30, 2)) * shape).astype(np.float32)
        middle = candidates[np.argmax(np.minimum(distance(candidates, lines), 45))]
        size, slim = draw.uniform(10, 21), draw.uniform(0.75, 1.3)
        ponds |= np.hypot((rows - middle[0]) * slim, (cols - middle[1]) / slim) < size * shore
    return ponds


def _plant(draw: np.random.Generator, land: Landscape, treeless: Mask) -> None:
    """Plant woods where the soil is poor, in part along the edges of parcels; trees have heights."""
    shape = land.labels.shape
    poor = noise(draw, shape, 75) + 0.45 * noise(draw, shape, 22)
    poor += 0.55 * draw.standard_normal(land.parcel.max() + 1, dtype=np.float32)[land.parcel]
    woods = (poor > np.quantile(poor[~treeless], 1 - _FOREST_SHARE)) & ~treeless
    needles = noise(draw, shape, 50) + 0.3 * noise(draw, shape, 4) > 0.3
    crowns = 4 + 1.1 * noise(draw, shape, 2.2) + 0.9 * noise(draw, shape, 5)
    land.cover(woods, FOREST, "deciduous")
    land.material[woods & needles] = NUMBER["conifer"]
    land.height[woods] = np.maximum(crowns, 0.5)[woods]
