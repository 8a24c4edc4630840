"""Grids of rasters: CRS, affine transform and shape, and whether two grids are the same."""

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine

from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.pixel_areas import pixel_size_metres, transform_points
from geo_seg.raster.reader import RasterInfo

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
