"""How much ground the pixels of a raster cover."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_seg.writing import Geometry

_A = 6378137.0  # WGS 84: equatorial radius in metres
_E2 = 6.69437999014e-3  # and squared eccentricity; other ellipsoids of the earth differ by less than 0.1 %


def row_areas(geometry: Geometry) -> NDArray[np.float64] | None:
    """Square metres of a pixel in each row of a raster.

    On the ellipsoid where the CRS is geographic or web Mercator, which stretches areas by more than 2 at
    45 degrees; in the plane of any other CRS. Of a rotated geographic raster, the mean over the row.

    Args:
        geometry: grid of the raster.

    Returns:
        (height,), or None without a CRS.
    """
    crs, transform = geometry.crs, geometry.transform
    if not crs:
        return None
    if crs.is_geographic:
        return _on_ellipsoid(geometry, crs.units_factor[1])
    if crs.to_epsg() == 3857:
        return _on_ellipsoid(geometry, None)
    metres = crs.linear_units_factor[1]
    return np.full(geometry.height, abs(transform.determinant) * metres**2)


def _on_ellipsoid(geometry: Geometry, radians: float | None) -> NDArray[np.float64]:
    """Areas of rows whose coordinates are angles of so many radians, or web Mercator's metres for None."""
    rows = np.arange(geometry.height + 1.0)
    edges = []
    for column in (0, geometry.width):
        x, y = geometry.transform * (np.full_like(rows, column), rows)
        east, north = (x / _A, np.arctan(np.sinh(y / _A))) if radians is None else (x * radians, y * radians)
        edges.append((east, _equal_area(north)))
    (left, left_up), (right, right_up) = edges
    # corners of each row, in order; half the sum of cross products is the area of what they enclose
    x = np.stack([left[:-1], right[:-1], right[1:], left[1:]])
    y = np.stack([left_up[:-1], right_up[:-1], right_up[1:], left_up[1:]])
    x = x - x[:1]
    doubled = (x * np.roll(y, -1, 0) - np.roll(x, -1, 0) * y).sum(0)
    return np.abs(doubled) / 2 / geometry.width


def _equal_area(latitude: Any) -> Any:
    """A height for a latitude in radians, so that longitude times height is the area in square metres.

    Source: Snyder, Map Projections: A Working Manual, 1987, equation 3-12 (authalic latitude).
    """
    e, sine = np.sqrt(_E2), np.sin(np.clip(latitude, -np.pi / 2, np.pi / 2))
    q = sine / (1 - _E2 * sine**2) + np.arctanh(e * sine) / e
    return _A**2 * (1 - _E2) / 2 * q
