"""Areas and sizes of pixels on the ground, on the ellipsoid of the CRS."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform

from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.writer import GDAL_ERRORS
from geo_seg.tiling import Window

_HALF_STEP = 500.0  # metres to each side, over which a pixel's sides are measured
_NODE_SPACING = 20_000.0  # metres between places at which areas are measured; linear between them ...
_MAX_NODES = 128  # ... at most so many steps along a side
_PANEL_TOLERANCE = 2e-4  # relative difference of areas in a row that makes no further panel
_MAX_PANELS = 1024
_PLANE_TOLERANCE = 0.005  # relative difference of lengths in a plane that isn't worth odd numbers


@dataclass(frozen=True)
class PixelAreas:
    """Square metres of the pixels of a raster, equal within each row of a panel of columns.

    Attributes:
        areas: (height, panels) of each pixel.
        panel: (width,) number of the panel of each column.
    """

    areas: NDArray[np.float64]
    panel: NDArray[np.intp]

    def within(self, window: Window) -> Self:
        """Return the areas of a part of the raster."""
        row, col, height, width = window
        return type(self)(self.areas[row : row + height], self.panel[col : col + width])

    def of_rows(self, top: int, end: int) -> NDArray[np.float64]:
        """Return (rows, width) areas of the rows from top to end (exclusive)."""
        return self.areas[top:end][:, self.panel]


def pixel_areas(geometry: GeoBox) -> PixelAreas | None:
    """Return the square metres of the pixels of a raster, on the ellipsoid of its CRS.

    Planes stretch areas: web Mercator by 4 at 60 degrees, UTM by up to 0.2 %. Only where a CRS has no place
    on the earth (a local grid), areas are those in its plane. Pixels outside the projection have none.

    Args:
        geometry: grid of the raster.

    Returns:
        None without a CRS, or without a unit or any pixel on the ellipsoid.
    """
    if not geometry.crs:
        return None
    surface = _EarthSurface.of(geometry.crs)
    if surface is None:
        return None
    height, width = geometry.height, geometry.width
    across, down = surface.middle(geometry)
    rows, cols = (_nodes(length, side) for length, side in ((height, down), (width, across)))
    col, row = (nodes.ravel() for nodes in np.meshgrid(cols, rows))
    right, below = surface.sides(geometry.transform, col, row)
    areas = np.linalg.norm(np.cross(right, below), axis=-1).reshape(len(rows), len(cols))
    if not np.isfinite(areas).any():
        return None
    areas = np.nan_to_num(areas, nan=0.0)
    lowest = np.where(areas > 0, areas, np.inf).min(axis=1)
    spread = float((areas.max(axis=1) / lowest).max()) - 1
    panels = min(max(math.ceil(spread / _PANEL_TOLERANCE), 1), width, _MAX_PANELS)
    edges = np.linspace(0, width, panels + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    by_panel = np.stack(
        [np.interp(centres, cols, row_areas) for row_areas in areas]
    )  # (nodes of rows, panels)
    by_row = np.stack([np.interp(np.arange(height) + 0.5, rows, panel) for panel in by_panel.T], axis=1)
    return PixelAreas(by_row, np.searchsorted(edges, np.arange(width) + 0.5) - 1)


def pixel_size_metres(geometry: GeoBox) -> tuple[float, float] | None:
    """Return metres on the ground along a row and along a column of the pixel in the middle of a raster.

    Where a plane shows them as they are but for half a percent, as UTM does, they are those in the plane:
    round numbers stay round.

    Args:
        geometry: grid of the raster.

    Returns:
        None without a CRS, or where it has no unit or the middle lies outside its projection.
    """
    surface = _EarthSurface.of(geometry.crs) if geometry.crs else None
    if surface is None:
        return None
    affine = geometry.transform
    across, down = surface.middle(geometry)
    planar = math.hypot(affine.a, affine.d) * surface.unit, math.hypot(affine.b, affine.e) * surface.unit
    if np.allclose((across, down), planar, rtol=_PLANE_TOLERANCE, atol=0):
        return planar
    return (across, down) if math.isfinite(across + down) else None


@dataclass(frozen=True)
class _EarthSurface:
    """What map coordinates lie on: an ellipsoid, or a plane.

    Attributes:
        crs: horizontal part of a CRS.
        base: its geographic CRS, or None in a plane.
        radius: equatorial, in metres.
        squared: eccentricity of the ellipsoid.
        unit: metres of a map unit, about.
    """

    crs: CRS
    base: CRS | None
    radius: float
    squared: float
    unit: float

    @classmethod
    def of(cls, crs: CRS) -> Self | None:
        """Return the surface of a CRS; None where it has no unit."""
        content: Mapping[str, Any] = crs.to_dict(projjson=True) or {}
        while inner := content.get("source_crs") or next(iter(content.get("components", ())), None):
            content = inner  # bound to another datum, or compound with heights
        base = content
        while "base_crs" in base:
            base = base["base_crs"]
            if "type" not in base and base.get("coordinate_system", {}).get("subtype") == "ellipsoidal":
                base = {"type": "GeographicCRS", **base}  # PROJ 9.4 writes none
        try:
            horizontal = CRS.from_dict(content) if content else crs
            factor = horizontal.units_factor[1]
            datum = base.get("datum") or base.get("datum_ensemble") or {}
            if base.get("type") != "GeographicCRS" or "ellipsoid" not in datum:
                return cls(horizontal, None, 0.0, 0.0, factor)
            radius, squared = _ellipsoid(datum["ellipsoid"])
            unit = factor * radius if horizontal.is_geographic else factor
            return cls(horizontal, CRS.from_dict(base), radius, squared, unit)
        except CRSError:
            return None

    def middle(self, geometry: GeoBox) -> tuple[float, float]:
        """Return metres along a row and a column in the middle of a raster; NaN outside the projection."""
        col, row = np.array([geometry.width / 2]), np.array([geometry.height / 2])
        across, down = np.linalg.norm(self.sides(geometry.transform, col, row)[:, 0], axis=-1).tolist()
        return across, down

    def sides(
        self, affine: Affine, cols: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the vectors to the next column and the next row.

        Args:
            affine: from column and row to map coordinates.
            cols: (n,) of the places.
            rows: (n,) of the places.

        Returns:
            (2, n, 3) metres; NaN outside the projection.
        """
        reach = _HALF_STEP / (math.sqrt(abs(affine.determinant)) * self.unit)
        around = [(reach, 0.0), (-reach, 0.0), (0.0, reach), (0.0, -reach)]
        col = np.concatenate([cols + shift for shift, _ in around])
        row = np.concatenate([rows + shift for _, shift in around])
        x, y = affine.a * col + affine.b * row + affine.c, affine.d * col + affine.e * row + affine.f
        points = self._placed(x, y).reshape(4, len(cols), 3)
        vectors: NDArray[np.float64] = (points[::2] - points[1::2]) / (2 * reach)
        return vectors

    def _placed(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, 3) metres from the centre of the ellipsoid, or in the plane."""
        if self.base is None:
            return np.stack([x, y, np.zeros_like(x)], axis=1) * self.unit
        if self.crs != self.base:
            x, y = transform_points(self.crs, self.base, x, y)
        east, north = x * self.base.units_factor[1], y * self.base.units_factor[1]
        normal = self.radius / np.sqrt(1 - self.squared * np.sin(north) ** 2)
        flat = normal * np.cos(north)
        up = normal * (1 - self.squared) * np.sin(north)
        return np.stack([flat * np.cos(east), flat * np.sin(east), up], axis=1)


def _ellipsoid(content: Mapping[str, Any]) -> tuple[float, float]:
    """Return equatorial radius in metres and squared eccentricity from PROJJSON."""

    def metres(value: float | Mapping[str, Any]) -> float:
        if isinstance(value, Mapping):
            unit = value.get("unit", "metre")
            return float(value["value"]) * (unit["conversion_factor"] if isinstance(unit, Mapping) else 1)
        return float(value)

    if "radius" in content:
        return metres(content["radius"]), 0.0
    radius = metres(content["semi_major_axis"])
    if "semi_minor_axis" in content:
        return radius, 1 - (metres(content["semi_minor_axis"]) / radius) ** 2
    flattening = 1 / float(content["inverse_flattening"])
    return radius, flattening * (2 - flattening)


def transform_points(
    source: CRS, target: CRS, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points (n,) in another CRS; NaN where they have no place in it.

    For a single such point GDAL may refuse all of them, see findings/transform_raises_for_all_points.sh.
    """
    try:
        points = np.array(transform(source, target, x, y)[:2])
        points[~np.isfinite(points)] = np.nan
        return points[0], points[1]
    except GDAL_ERRORS:
        if len(x) == 1:
            return np.array([np.nan]), np.array([np.nan])
    half = len(x) // 2
    parts = [transform_points(source, target, x[part], y[part]) for part in (slice(half), slice(half, None))]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _nodes(length: int, side: float) -> NDArray[np.float64]:
    """Return the positions along a side of a raster at which areas are measured."""
    steps = length * side / _NODE_SPACING if math.isfinite(side) else _MAX_NODES
    return np.linspace(0, length, min(max(math.ceil(steps), 1), _MAX_NODES) + 1)
