"""Drawing tools of the synthetic landscape: materials, smooth noise, and lines with a width."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

FIELD, FOREST, WATER, ROAD, BUILDING = range(5)

MATERIALS = {
    # reflectance x 10000 in blue, green, red and near infrared
    "cereal": (400, 700, 480, 3500),
    "maize": (330, 590, 380, 4000),
    "pasture": (450, 800, 620, 3000),
    "rapeseed": (480, 1250, 1120, 3500),
    "ripe": (760, 1150, 1480, 2600),
    "stubble": (880, 1230, 1620, 2250),
    "soil": (700, 920, 1200, 1750),
    "pale soil": (1020, 1330, 1680, 2250),
    "verge": (420, 700, 560, 2600),
    "deciduous": (270, 520, 310, 3300),
    "conifer": (210, 370, 240, 2050),
    "river": (560, 760, 660, 560),
    "pond": (340, 500, 330, 380),
    "asphalt": (820, 900, 960, 1080),
    "concrete": (1250, 1380, 1480, 1620),
    "gravel": (1080, 1360, 1640, 2050),
    "tile": (600, 800, 1600, 1900),
    "brown roof": (560, 620, 1000, 1080),
    "slate": (560, 570, 590, 620),
    "fibre": (1600, 1600, 1560, 1480),
    "metal": (2300, 2400, 2450, 2450),
}
NUMBER = {name: number for number, name in enumerate(MATERIALS)}
CROPS = ("cereal", "maize", "pasture", "rapeseed", "ripe", "stubble", "soil", "pale soil")


@dataclass
class Landscape:
    """The surface of a scene as arrays (H, W).

    Attributes:
        labels: class, 0 to 4.
        material: index into MATERIALS.
        parcel: number of the parcel.
        across: distance perpendicular to the crop rows, in pixels.
        height: height above the ground, in pixels of shadow.
    """

    labels: NDArray[np.uint8]
    material: NDArray[np.uint8]
    parcel: NDArray[np.int32]
    across: Floats
    height: Floats

    def cover(self, where: Mask, label: int, material: str) -> None:
        """Cover a mask of pixels with a material of a class."""
        self.labels[where] = label
        self.material[where] = NUMBER[material]
        self.height[where] = 0


@dataclass(frozen=True)
class Way:
    """A line through the landscape.

    Attributes:
        points: (n, 2) rows and columns, spaced by roughly one pixel.
        radius: half of the width in pixels.
        material: name of the surface material.
    """

    points: Floats
    radius: float
    material: str


def noise(draw: np.random.Generator, shape: Sequence[int], scale: float) -> Floats:
    """Return smooth noise (H, W) with mean 0 and std 1, whose features have a size of `scale` pixels."""
    field = draw.standard_normal([int(n / scale) + 4 for n in shape], dtype=np.float32)
    for axis, length in enumerate(shape):
        index, t = np.divmod(np.arange(length) / scale, 1)
        # cubic B-spline
        weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        field = sum(
            np.take(field, index.astype(int) + k, axis) * np.expand_dims(w.astype(np.float32), 1 - axis)
            for k, w in enumerate(weights)
        )
    result: Floats = (field - field.mean()) / field.std()
    return result


def stroke(shape: Sequence[int], points: Floats, radius: float | Floats) -> Mask:
    """Return a mask of the pixels within a radius of a line.

    Args:
        shape: rows and columns of the mask.
        points: (n, 2) rows and columns, spaced closely compared to the radius.
        radius: radius in pixels, of the whole line or of each point (n,).
    """
    reach = int(np.max(radius)) + 1
    brush = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, 1, -1)
    pixel = np.floor(points)
    down, right = brush - (points - pixel).T[:, :, None]  # (n, brush) each
    within = down * down + right * right <= np.reshape(np.square(radius), (-1, 1))
    rows, cols = ((pixel.T[:, :, None].astype(int) + brush)[axis][within] for axis in (0, 1))
    inside = (rows >= 0) & (rows < shape[0]) & (cols >= 0) & (cols < shape[1])
    mask = np.zeros(shape, bool)
    mask[rows[inside], cols[inside]] = True
    return mask


def curve(waypoints: Floats) -> Floats:
    """Return a smooth line through waypoints (Catmull-Rom spline), with one point per pixel."""
    ends = np.concatenate([waypoints[:1], waypoints, waypoints[-1:]])
    parts = []
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        t = np.linspace(0, 1, int(np.hypot(*(c - b))) + 2, endpoint=False)[:, None]
        parts.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    return np.concatenate(parts).astype(np.float32)


def distance(points: Floats, others: Floats) -> Floats:
    """Return the distance from each point to the nearest of the others."""
    result: Floats = np.hypot(*np.moveaxis(points[:, None] - others, 2, 0)).min(axis=1)
    return result
