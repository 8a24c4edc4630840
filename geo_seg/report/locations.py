"""Where scenes and windows lie, in map coordinates where the files say so."""

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
"""Name of what is in no split, between blocks and training windows."""
Outlines = Mapping[str, Sequence[NDArray[np.float64]]]


def scene_outlines(
    scenes: Mapping[str, Sequence[Scene]], window: int
) -> tuple[Outlines, tuple[str, str]] | None:
    """The corners of what every split has of its scenes.

    Args:
        scenes: per split.
        window: side of training windows.

    Returns:
        Per split corners (4, 2), x and y, of rectangles that may overlap within it; where scenes are divided
        into blocks, first the whole scenes under BUFFER: what no split covers. Then what the axes are called:
        in the CRS of the scenes if they have one and the same, else in degrees. None if no scene has a
        georeference.
    """
    placed = [s for own in scenes.values() for s in own if s.image.transform]
    if not placed:
        return None
    systems = {scene.image.crs for scene in placed}
    if len(systems) > 1:
        placed = [scene for scene in placed if scene.image.crs]
    system = next(iter(systems)) if len(systems) == 1 else _LON_LAT
    known = {id(scene) for scene in placed}
    divided = {s.name: replace(s, excluded=(), blocks=()) for s in placed if s.excluded or s.blocks}
    drawn = {**({BUFFER: [*divided.values()]} if divided else {}), **scenes}
    known |= {id(scene) for scene in divided.values()}
    found = {
        split: [
            corners
            for scene in own
            if id(scene) in known
            for part in split_rectangles(scene, window)
            if (corners := _corners(scene, part, system)) is not None
        ]
        for split, own in drawn.items()
    }
    if not any(found.values()):
        return None
    if system is None:
        return found, ("x", "y")
    crs = CRS.from_user_input(system)
    if crs.is_geographic:
        return found, ("longitude", "latitude")
    return found, (f"x in {crs_unit(crs)} ({_name(crs)})", f"y in {crs_unit(crs)}")


def describe_location(scene: Scene, window: Window) -> str:
    """Where a window lies: rows and columns of its scene, and the coordinates of its middle."""
    row, col, height, width = window
    said = f"rows {row} to {row + height - 1}, columns {col} to {col + width - 1}"
    if scene.image.transform is None:
        return said
    a, b, c, d, e, f = scene.image.transform[:6]
    across, down = col + width / 2, row + height / 2
    x, y = a * across + b * down + c, d * across + e * down + f
    if scene.image.crs is None:
        return f"{said}; middle at {x:.1f}, {y:.1f}"
    crs = CRS.from_user_input(scene.image.crs)
    point = _to_system(crs, _LON_LAT, [x], [y])
    if point is None:
        return f"{said}; middle at {x:.1f}, {y:.1f} ({_name(crs)})"
    lon, lat = point[0].tolist()
    degrees = f"{abs(lat):.5f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.5f}° {'E' if lon >= 0 else 'W'}"
    if crs.is_geographic:
        return f"{said}; middle at {degrees}"
    return f"{said}; middle at {x:.1f}, {y:.1f} ({_name(crs)}), {degrees}"


def _corners(scene: Scene, part: Window, system: str | None) -> NDArray[np.float64] | None:
    assert scene.image.transform is not None  # noqa: S101 - only such scenes are asked for
    a, b, c, d, e, f = scene.image.transform[:6]
    rows = np.array([0, 0, 1, 1]) * part.height + part.row
    cols = np.array([0, 1, 1, 0]) * part.width + part.col
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    if system is not None and scene.image.crs != system:
        return _to_system(CRS.from_user_input(scene.image.crs), system, x.tolist(), y.tolist())
    return np.stack([x, y], axis=1)


def _to_system(crs: CRS, system: str, x: list[float], y: list[float]) -> NDArray[np.float64] | None:
    """Points (n, 2) in another CRS; None where they have no place in it, as those of a local grid."""
    try:
        found = np.array(rasterio.warp.transform(crs, system, x, y)[:2], float).T
    except Exception:  # of a private module of rasterio; a report must not end a run
        return None
    return found if np.isfinite(found).all() else None


def crs_unit(crs: CRS) -> str:
    """Return what the unit of map coordinates is called."""
    if crs.is_geographic:
        return "degrees"
    try:
        name = str(crs.linear_units)
    except CRSError:  # of a local grid without a unit
        return "map units"
    return {"metre": "m", "meter": "m", "unknown": "map units"}.get(name.lower(), name)


def _name(crs: CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else "the scenes' own CRS"
