"""Coordinates that go round the earth: there, a place has more than one, and a map an edge at 180 degrees."""

import math

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform

from geo_seg.raster.writer import GDAL_ERRORS

_POINTS = 22  # along a side
_DEGREES = np.array([0.0, 1.0, 120.0, -120.0])


def full_turn(crs: CRS | None) -> float | None:
    """How far apart the first coordinates of a place are that differ by a turn around the earth.

    Args:
        crs: geographic, or cylindrical as web Mercator is; for all others there is no such distance.
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
    """First coordinates, moved by whole turns to within half a turn of others."""
    return x + turn * np.round((near - x) / turn)


def bounds_around(
    crs: CRS, other: CRS, turn: float, bounds: tuple[float, float, float, float]
) -> tuple[float, float, float, float] | None:
    """Bounds in a CRS that goes round the earth, in one piece wherever its edge lies.

    Args:
        crs: of the bounds.
        other: that they are wanted in.
        turn: of the other, see full_turn.
        bounds: left, low, right and high.

    Returns:
        The same in the other CRS; None where there is a pole within, or no place for some of it.
    """
    left, low, right, high = bounds
    x, y = np.meshgrid(np.linspace(left, right, _POINTS), np.linspace(low, high, _POINTS))
    try:
        found = np.array(transform(crs, other, x.ravel(), y.ravel())[:2]).reshape(2, _POINTS, _POINTS)
    except GDAL_ERRORS:
        return None
    if not np.isfinite(found).all():
        return None
    across = found[0]
    ring = np.concatenate([across[0], across[1:, -1], across[-1, -2::-1], across[-2::-1, 0]])
    whole = np.unwrap(ring, period=turn)
    if abs(whole[-1] - whole[0]) > turn / 2:  # once around a pole
        return None
    across = np.unwrap(np.unwrap(across, period=turn, axis=1), period=turn, axis=0)
    return float(across.min()), float(found[1].min()), float(across.max()), float(found[1].max())
