"""Which images lie at one place: by words in their names, and by the ground that they show."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import shapely
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from geo_seg.begin.words import tokens
from geo_seg.raster.georeference import corner_coordinates
from geo_seg.raster.reader import RasterInfo

_TAIL = r"(?:[_-][A-Za-z]+\d*)?\.\w+$"  # such as _sat.jpg
_DATE = r"(?:19|20)\d\d[-_]?(?:0\d|1[0-2])[-_]?[0-3]\d"
_CROP = r"(?:part|crop|patch|chip|tile|sub|split|piece|window|win|block|row|r|p|x)"
_PATTERNS = {
    rf"([^/]+?)[_-]?{_DATE}[^/]*$": "the same name on several dates",
    rf"{_DATE}(?:T\d+)?[_-]([^/]+)\.\w+$": "the same name on several dates",
    rf"([^/]+?)[_-](?:date|time|day|month|year|t)[_-]?\d+{_TAIL}": "the same name at several times",
    rf"([^/]+?)[_-]{_CROP}[_-]?\d+[^/]*$": "parts of one scene",
    rf"([^/]+?)[_-]\d+[_-]\d+{_TAIL}": "names that differ in a row and column",
    rf"([^/]+?)[_-]\d+{_TAIL}": "names that differ in their last number",
}
_MIN_GROUPS = 2
_MAX_SHARE = 0.75  # of the images at one place
_TOLERANCE = 0.5  # pixels by which neighbours may overlap through rounding


def groups_in_names(names: Sequence[str], roles: Sequence[str]) -> tuple[str, str] | None:
    """Return a regular expression whose group captures the place of each image, and what it rests on.

    Args:
        names: of the images, paths.
        roles: names of folders that say no place: images, train ...

    Returns:
        None if no part of the names tells at least two places of several images apart.
    """
    return _folder_group(names, roles) or next(
        (
            (pattern, why)
            for pattern, why in _PATTERNS.items()
            if (groups := group_by(pattern, names)) and _can_be_split(groups, len(names))
        ),
        None,
    )


def group_by(pattern: str, names: Sequence[str]) -> dict[str, list[str]] | None:
    """Return the images of each place; None if the expression doesn't match all of them."""
    groups: dict[str, list[str]] = defaultdict(list)
    expression = re.compile(pattern)
    for name in names:
        match = expression.search(name)
        if match is None:
            return None
        groups[match[1]].append(name)
    return groups


def overlapping(headers: Mapping[str, RasterInfo]) -> list[list[str]]:
    """Return groups of two or more images that show the same ground."""
    boxes = {name: box for name, header in headers.items() if (box := _box(header)) is not None}
    names = [*boxes]
    if len(names) < 2:
        return []
    crs_of = {headers[name].crs for name in names}
    shapes = [_shape(boxes[name], headers[name], geographic=len(crs_of) > 1) for name in names]
    tree = shapely.STRtree(shapes)
    parent = {name: name for name in names}

    def find(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for i, j in zip(*tree.query(shapes, predicate="intersects"), strict=True):
        if i < j:
            parent[find(names[j])] = find(names[i])
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[find(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def shows_ground(header: RasterInfo, bounds: Sequence[float], crs: str | None) -> bool:
    """Return whether an image overlaps a box; an image without georeference overlaps none.

    Args:
        header: of the image.
        bounds: left, bottom, right and top.
        crs: of the bounds, as GDAL understands it.
    """
    box = _box(header)
    if box is None or crs is None:
        return box is not None
    try:
        left, bottom, right, top = transform_bounds(crs, CRS.from_wkt(str(header.crs)), *bounds)
    except RasterioError:
        return True
    return left < box[2] and right > box[0] and bottom < box[3] and top > box[1]


def largest_apart(headers: Mapping[str, RasterInfo], groups: Sequence[Sequence[str]]) -> list[str]:
    """Return the images without those that show the ground of a larger one."""
    dropped: set[str] = set()
    for group in groups:
        order = sorted(group, key=lambda name: (-headers[name].width * headers[name].height, name))
        dropped |= {*order[1:]}
    return [name for name in headers if name not in dropped]


def _can_be_split(groups: Mapping[str, Sequence[str]], images: int) -> bool:
    """Return whether there are several places, and none that leaves little to train on when held out."""
    largest = max(map(len, groups.values()), default=images)
    return _MIN_GROUPS <= len(groups) < images and largest <= _MAX_SHARE * images


def _folder_group(names: Sequence[str], roles: Sequence[str]) -> tuple[str, str] | None:
    depth = min(name.count("/") for name in names)
    for level in range(depth):
        pattern = rf"^(?:[^/]+/){{{level}}}([^/]+)/" if level else "^([^/]+)/"
        groups = group_by(pattern, names) or {}
        says_role = any({t.lower() for t in tokens(folder)} & {*roles} for folder in groups)
        if not says_role and _can_be_split(groups, len(names)):
            return pattern, f"folders {', '.join(sorted(groups)[:3])} ..."
    return None


def _box(header: RasterInfo) -> tuple[float, float, float, float] | None:
    if header.transform is None or header.crs is None:
        return None
    xs, ys = corner_coordinates(header, 0, header.height)
    a, b, _, d, e, _ = header.transform
    shrink_x, shrink_y = _TOLERANCE * (abs(a) + abs(b)), _TOLERANCE * (abs(d) + abs(e))
    return xs.min() + shrink_x, ys.min() + shrink_y, xs.max() - shrink_x, ys.max() - shrink_y


def _shape(box: tuple[float, float, float, float], header: RasterInfo, geographic: bool) -> shapely.Geometry:
    if geographic and header.crs:
        try:
            box = transform_bounds(CRS.from_wkt(header.crs), "EPSG:4326", *box)
        except RasterioError:
            return shapely.box(0, 0, 0, 0)
    return shapely.box(*box)
