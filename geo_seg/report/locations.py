"""Locations of scenes and windows, in map coordinates if the files have a georeference."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import rasterio.warp
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geo_seg.data.scenes.scene import Scene
from geo_seg.data.split_areas import split_rectangles
from geo_seg.tiling import Window

_LON_LAT = "EPSG:4326"
BUFFER = "buffer"
"""Key of the area in no split, between blocks and training windows."""
Outlines = Mapping[str, Sequence[NDArray[np.float64]]]


def scene_outlines(
    scenes: Mapping[str, Sequence[Scene]], window: int
) -> tuple[Outlines, tuple[str, str]] | None:
    """Return the corners of the areas that each split has of its scenes.

    Args:
        scenes: scenes of each split.
        window: side of training windows in pixels.

    Returns:
        For each split (4, 2) corners, x and y, of rectangles that may overlap. If scenes are divided into
        blocks, the first entry is BUFFER, with the whole scenes: what no split covers. Then the labels of the
        axes: in the CRS of the scenes if they share one, else in degrees. None if no scene has a
            georeference.
    """
    georeferenced = [
        scene for split_scenes in scenes.values() for scene in split_scenes if scene.image.transform
    ]
    if not georeferenced:
        return None
    crs_names = {scene.image.crs for scene in georeferenced}
    if len(crs_names) > 1:
        georeferenced = [scene for scene in georeferenced if scene.image.crs]
    crs_name = next(iter(crs_names)) if len(crs_names) == 1 else _LON_LAT
    drawn_ids = {id(scene) for scene in georeferenced}
    whole_scenes = {
        scene.name: replace(scene, excluded=(), blocks=())
        for scene in georeferenced
        if scene.excluded or scene.blocks
    }
    areas = {**({BUFFER: [*whole_scenes.values()]} if whole_scenes else {}), **scenes}
    drawn_ids |= {id(scene) for scene in whole_scenes.values()}
    outlines = {
        split: [
            corners
            for scene in split_scenes
            if id(scene) in drawn_ids
            for rectangle in split_rectangles(scene, window)
            if (corners := _corners(scene, rectangle, crs_name)) is not None
        ]
        for split, split_scenes in areas.items()
    }
    if not any(outlines.values()):
        return None
    if crs_name is None:
        return outlines, ("x", "y")
    crs = CRS.from_user_input(crs_name)
    if crs.is_geographic:
        return outlines, ("longitude", "latitude")
    return outlines, (f"x in {crs_unit(crs)} ({_crs_name(crs)})", f"y in {crs_unit(crs)}")


def describe_location(scene: Scene, window: Window) -> str:
    """Describe where a window lies: rows and columns of its scene, coordinates of its centre."""
    row, col, height, width = window
    pixels = f"rows {row} to {row + height - 1}, columns {col} to {col + width - 1}"
    if scene.image.transform is None:
        return pixels
    a, b, c, d, e, f = scene.image.transform[:6]
    center_col, center_row = col + width / 2, row + height / 2
    x, y = a * center_col + b * center_row + c, d * center_col + e * center_row + f
    if scene.image.crs is None:
        return f"{pixels}; middle at {x:.1f}, {y:.1f}"
    crs = CRS.from_user_input(scene.image.crs)
    lon_lat = _transform_points(crs, _LON_LAT, [x], [y])
    if lon_lat is None:
        return f"{pixels}; middle at {x:.1f}, {y:.1f} ({_crs_name(crs)})"
    lon, lat = lon_lat[0].tolist()
    degrees = f"{abs(lat):.5f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.5f}° {'E' if lon >= 0 else 'W'}"
    if crs.is_geographic:
        return f"{pixels}; middle at {degrees}"
    return f"{pixels}; middle at {x:.1f}, {y:.1f} ({_crs_name(crs)}), {degrees}"


def _corners(scene: Scene, rectangle: Window, crs_name: str | None) -> NDArray[np.float64] | None:
    assert scene.image.transform is not None  # noqa: S101 - only such scenes are asked for
    a, b, c, d, e, f = scene.image.transform[:6]
    rows = np.array([0, 0, 1, 1]) * rectangle.height + rectangle.row
    cols = np.array([0, 1, 1, 0]) * rectangle.width + rectangle.col
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    if crs_name is not None and scene.image.crs != crs_name:
        return _transform_points(CRS.from_user_input(scene.image.crs), crs_name, x.tolist(), y.tolist())
    return np.stack([x, y], axis=1)


def _transform_points(crs: CRS, target: str, x: list[float], y: list[float]) -> NDArray[np.float64] | None:
    """Return points (n, 2) in another CRS; None if they are not defined there, as those of a local grid."""
    try:
        points = np.array(rasterio.warp.transform(crs, target, x, y)[:2], float).T
    except Exception:  # its class is private to rasterio; a report must not end a run
        return None
    return points if np.isfinite(points).all() else None


def crs_unit(crs: CRS) -> str:
    """Return the name of the unit of map coordinates."""
    if crs.is_geographic:
        return "degrees"
    try:
        name = str(crs.linear_units)
    except CRSError:  # a local grid without a unit
        return "map units"
    return {"metre": "m", "meter": "m", "unknown": "map units"}.get(name.lower(), name)


def _crs_name(crs: CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else "the scenes' own CRS"
