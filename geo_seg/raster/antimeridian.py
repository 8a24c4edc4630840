"""Coordinates at the antimeridian: CRSs in which a point has several x, a full turn apart."""

import math

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform

from geo_seg.raster.writer import GDAL_ERRORS

_POINTS_PER_SIDE = 22
_DEGREES = np.array([0.0, 1.0, 120.0, -120.0])


def full_turn(crs: CRS | None) -> float | None:
    """Return the x distance of a full turn around the earth; None where the CRS has no such distance.

    Args:
        crs: geographic or cylindrical (as web Mercator) CRSs have one.
    """
    if crs is None:
        return None
    if crs.is_geographic:
        return 2 * math.pi / float(crs.units_factor[1])
    lon, lat = np.tile(_DEGREES, 2), np.repeat([0.0, 50.0], len(_DEGREES))
    try:
        x = np.array(transform("EPSG:4326", crs, lon, lat)[0]).reshape(2, -1)
    except GDAL_ERRORS:
        return None
    turn = 360 * float(x[0, 1] - x[0, 0])
    if not np.isfinite(x).all() or not turn > 0:
        return None
    turns = (x - x[:1, :1]) / turn - _DEGREES / 360
    return turn if np.allclose(turns, turns.round(), atol=1e-6) else None


def unwrap_longitudes(
    x: NDArray[np.float64], near: NDArray[np.float64] | float, turn: float
) -> NDArray[np.float64]:
    """Return x moved by full turns to within half a turn of `near`."""
    return x + turn * np.round((near - x) / turn)


def bounds_around(
    crs: CRS, target: CRS, turn: float, bounds: tuple[float, float, float, float]
) -> tuple[float, float, float, float] | None:
    """Return bounds transformed to a CRS with a full turn, in one piece also across the antimeridian.

    Args:
        crs: of the bounds.
        target: CRS of the result.
        turn: of the target, see full_turn.
        bounds: left, bottom, right and top.

    Returns:
        None where a pole is inside, or some of it has no coordinates in the target.
    """
    left, low, right, high = bounds
    x, y = np.meshgrid(np.linspace(left, right, _POINTS_PER_SIDE), np.linspace(low, high, _POINTS_PER_SIDE))
    try:
        points = np.array(transform(crs, target, x.ravel(), y.ravel())[:2]).reshape(
            2, _POINTS_PER_SIDE, _POINTS_PER_SIDE
        )
    except GDAL_ERRORS:
        return None
    if not np.isfinite(points).all():
        return None
    xs = points[0]
    outline = np.concatenate([xs[0], xs[1:, -1], xs[-1, -2::-1], xs[-2::-1, 0]])
    unwrapped = np.unwrap(outline, period=turn)
    if abs(unwrapped[-1] - unwrapped[0]) > turn / 2:  # once around a pole
        return None
    xs = np.unwrap(np.unwrap(xs, period=turn, axis=1), period=turn, axis=0)
    return float(xs.min()), float(points[1].min()), float(xs.max()), float(points[1].max())
