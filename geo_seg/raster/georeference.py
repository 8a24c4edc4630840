"""Grids of rasters: whether two are the same, and coordinates at the antimeridian."""

import math

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.pixel_areas import pixel_size_metres, transform_points
from geo_seg.raster.reader import RasterInfo
from geo_seg.raster.writer import GDAL_ERRORS

_POINTS_PER_SIDE = 22
_DEGREES = np.array([0.0, 1.0, 120.0, -120.0])
_MAX_SHIFT = 0.1  # pixels: no nearest neighbour changes by that, while rounded coordinates do differ


def same_grid(image: RasterInfo, other: RasterInfo) -> bool:
    """Return whether two rasters have the same grid.

    Where one of them has no georeference, only sizes are compared. CRSs are compared by transforming the
    corners: the same one may be written in many ways.
    """
    if (image.height, image.width) != (other.height, other.width):
        return False
    if image.transform is None or other.transform is None:
        return True
    if (image.crs, image.transform) == (other.crs, other.transform):
        return True
    xs, ys = corner_coordinates(other, 0, other.height)
    if image.crs and other.crs and image.crs != other.crs:
        xs, ys = transform_points(CRS.from_wkt(other.crs), CRS.from_wkt(image.crs), xs, ys)
    # differences of map coordinates to differences of columns and rows
    shift = np.linalg.solve(
        _matrix(image)[:2, :2], np.stack([xs, ys]) - corner_coordinates(image, 0, image.height)
    )
    return bool(np.all(np.abs(shift) < _MAX_SHIFT))


def corner_coordinates(info: RasterInfo, top: int, bottom: int) -> NDArray[np.float64]:
    """Return (2, 4) map coordinates of the corners of the rows from top to bottom (exclusive)."""
    cols, rows = np.array([0, info.width, 0, info.width]), np.array([top, top, bottom, bottom])
    corners: NDArray[np.float64] = _matrix(info) @ np.stack([cols, rows, np.ones(4)])
    return corners[:2]


def affine_of(info: RasterInfo) -> Affine:
    """Return the transform from (column, row) to map coordinates."""
    return Affine(*info.transform) if info.transform else Affine.identity()


def ground_pixel_size(info: RasterInfo) -> tuple[float, float] | None:
    """Return metres on the ground along a row and along a column of the pixel in the middle."""
    crs = CRS.from_wkt(info.crs) if info.crs and info.transform else None
    return pixel_size_metres(GeoBox(info.width, info.height, crs, affine_of(info), ""))


def _matrix(info: RasterInfo) -> NDArray[np.float64]:
    return np.array([*(info.transform or (1, 0, 0, 0, 1, 0)), 0, 0, 1], float).reshape(3, 3)


def describe_grid(info: RasterInfo) -> str:
    """Return a short description of a raster's grid for messages."""
    size = f"{info.height} rows x {info.width} columns"
    if info.transform is None:
        return f"{size} without georeference"
    a, b, c, d, e, f = info.transform
    crs = CRS.from_wkt(info.crs) if info.crs else None
    name = crs.to_string() if crs else "no CRS"
    rotation = f", rotated ({b:g}, {d:g})" if b or d else ""
    # the name of a CRS without a code is long WKT
    short = name if len(name) < 40 else f"{name[:36]}..."
    return f"{size} from ({c:.10g}, {f:.10g}) in steps of ({a:g}, {e:g}){rotation}, {short}"


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
