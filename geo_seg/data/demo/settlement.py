"""Roads, villages and farms of the synthetic landscape."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from geo_seg.data.demo.canvas import (
    BUILDING,
    FIELD,
    NUMBER,
    ROAD,
    WATER,
    Floats,
    Landscape,
    Mask,
    Way,
    curve,
    distance,
    noise,
    stroke,
)

VILLAGE = 72
"""Radius of a village in pixels."""

_ROAD_OVERHANG = 20  # pixels beyond the frame at which roads end
_ROOFS = ("tile", "brown roof", "slate", "fibre", "metal")
_ROOF_SHARES = (0.44, 0.18, 0.14, 0.14, 0.1)


def draw_villages(draw: np.random.Generator, shape: tuple[int, int], river: tuple[Floats, Floats]) -> Floats:
    """Return (3, 2) centres of villages, away from the river and from one another."""
    margin = 0.16
    villages = np.empty((0, 2), np.float32)
    line = river[0][::2]
    while len(villages) < 3:
        candidates = (draw.uniform(margin, 1 - margin, (60, 2)) * shape).astype(np.float32)
        river_distance = np.minimum(distance(candidates, line), 90)  # farther from the water is no better
        village_distance = distance(candidates, villages) if len(villages) else np.full(60, 200.0)
        best = np.argmax(river_distance + np.minimum(village_distance, 260) + draw.uniform(0, 30, 60))
        villages = np.concatenate([villages, candidates[best][None]])
    return villages


def draw_roads(draw: np.random.Generator, shape: tuple[int, int], villages: Floats) -> list[Way]:
    """Return a main road through the villages, and a minor road from each of them to another edge."""
    along = int(draw.integers(2))
    order = villages[np.argsort(villages[:, along])]
    begin, end = order[[0, -1]] + draw.uniform(-60, 60, (2, 2))
    begin[along], end[along] = -_ROAD_OVERHANG, shape[along] + _ROAD_OVERHANG
    ways = [Way(_wind(draw, np.array([begin, *order, end])), 3.1, "asphalt")]
    for village in order:
        edge = village + draw.uniform(-90, 90, 2)
        edge[1 - along] = draw.choice([-_ROAD_OVERHANG, shape[1 - along] + _ROAD_OVERHANG])
        material = str(draw.choice(["asphalt", "concrete"]))
        ways.append(Way(_wind(draw, np.array([village, edge])), 2.5, material))
    return ways


def _wind(draw: np.random.Generator, stops: NDArray[np.float64]) -> Floats:
    """Return a road that passes some stops and bends between them."""
    waypoints = [stops[0]]
    for a, b in pairwise(stops):
        count = int(np.hypot(*(b - a)) / 80) + 1
        inner = np.linspace(a, b, count + 1)[1:]
        inner[:-1] += draw.normal(0, 9, (count - 1, 2))
        waypoints += list(inner)
    return curve(np.array(waypoints, np.float32))


def draw_streets(draw: np.random.Generator, villages: Floats) -> list[Way]:
    """Return the village streets, in a bent grid around each centre."""
    ways = []
    for middle in villages:
        angle = draw.uniform(0, np.pi)
        ahead = np.array([np.sin(angle), np.cos(angle)])
        side = np.array([ahead[1], -ahead[0]])
        for turn, (u, v) in enumerate(((ahead, side), (side, ahead))):
            for step in (-1, 1) if turn else (-1.1, 0.1, 1.2):
                reach = draw.uniform(0.5, 0.95, 2) * VILLAGE
                start = middle + v * step * 33 - u * reach[0]
                line = _wind(draw, np.array([start, start + u * reach.sum()]))
                ways.append(Way(line, 2.1, "concrete" if draw.random() < 0.4 else "asphalt"))
    return ways


def village_ground(draw: np.random.Generator, shape: tuple[int, int], villages: Floats) -> Mask:
    """Return a mask of the villages, in which there are no woods and lanes."""
    rows, cols = np.indices(shape, dtype=np.float32)
    nearest = np.min([np.hypot(rows - r, cols - c) for r, c in villages], axis=0)
    ground: Mask = nearest < VILLAGE * (1 + 0.15 * noise(draw, shape, 40))
    return ground


def garden(draw: np.random.Generator, land: Landscape, streets: Sequence[Way], ground: Mask) -> None:
    """Add lawns, bushes and beds along the streets."""
    beds = noise(draw, ground.shape, 4)
    lines = np.concatenate([way.points[::4] for way in streets])
    land.cover(stroke(ground.shape, lines, 17) & ground, FIELD, "pasture")
    lawn = stroke(ground.shape, lines, 15) & ground
    land.material[lawn & (beds > 0.4)] = NUMBER["verge"]
    land.material[lawn & (beds < -1.2)] = NUMBER["soil"]


def build(draw: np.random.Generator, land: Landscape, ways: Sequence[Way], villages: Floats) -> None:
    """Add houses and barns along the ways, in the villages and at a few farms."""
    occupied = (land.labels == ROAD) | (land.labels == WATER)
    for way in ways:
        inside = distance(way.points, villages) < VILLAGE
        position = 4.0
        while position < len(way.points) - 3:
            point, ahead = (
                way.points[int(position)],
                way.points[int(position) + 2] - way.points[int(position)],
            )
            village = bool(inside[int(position)])
            if village or draw.random() < 0.02:
                for sign in (-1, 1):
                    if draw.random() < (0.9 if village else 0.6):
                        _house(draw, land, occupied, point, ahead * sign, way.radius, barn=not village)
            position += draw.uniform(9, 12) if village else 12


def _house(
    draw: np.random.Generator,
    land: Landscape,
    occupied: Mask,
    street: Floats,
    ahead: Floats,
    radius: float,
    barn: bool,
) -> None:
    """Add a building beside a street, unless the ground is occupied."""
    big = barn or draw.random() < 0.13
    length, depth = draw.uniform((14, 9), (26, 15)) if big else draw.uniform((7, 6), (12, 9))
    u = ahead / np.hypot(*ahead)
    v = np.array([u[1], -u[0]])
    middle = street + v * (radius + depth / 2 + draw.uniform(1.5, 5)) + u * draw.uniform(-2, 2)
    reach = int(np.hypot(length, depth) / 2) + 3
    top, left = (middle.astype(int) - reach).tolist()
    bottom, right = top + 2 * reach + 1, left + 2 * reach + 1
    if min(top, left) < 0 or bottom > occupied.shape[0] or right > occupied.shape[1]:
        return
    box = np.s_[top:bottom, left:right]
    down, right = np.mgrid[box] - middle[:, None, None]
    along, aside = (np.abs(down * axis[0] + right * axis[1]) for axis in (u, v))
    if np.any(occupied[box] & (along < length / 2 + 1.5) & (aside < depth / 2 + 1.5)):
        return
    walls = (along <= length / 2) & (aside <= depth / 2)
    occupied[box] |= walls
    roof = str(draw.choice(_ROOFS, p=_ROOF_SHARES[::-1] if big else _ROOF_SHARES))
    land.labels[box][walls] = BUILDING
    land.material[box][walls] = NUMBER[roof]
    gable = 0.0 if roof in {"fibre", "metal"} else draw.uniform(1.0, 2.0)
    height = draw.uniform(2.4, 3.8) + gable * (1 - 2 * aside / depth)
    land.height[box][walls] = height[walls].astype(np.float32)
