"""Polygons of vector files, read and rasterized in strips of rows."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window as RasterWindow
from rasterio.windows import transform as window_transform
from shapely.affinity import translate

from geo_seg.errors import DataError, did_you_mean
from geo_seg.raster.georeference import (
    affine_of,
    bounds_around,
    corner_coordinates,
    full_turn,
    unwrap_longitudes,
)
from geo_seg.raster.paths import is_remote
from geo_seg.raster.reader import RasterInfo

_T = TypeVar("_T")
_Feature = tuple[int, shapely.Geometry, str]  # number, shape and attribute value
_CLIP_MARGIN = 0.02  # around a window, as a share of its size: polygons are clipped there before reprojection
_MIN_OVERLAP_TURNS = 1e-9  # of a turn around the earth: extents that overlap less only touch
_SEGMENTS = 50  # per side of a window: edges are densified so that reprojection can bend them


class Polygon(NamedTuple):
    """A polygon of a vector file.

    Attributes:
        shape: geometry in the CRS of the image.
        key: attribute value as text; "" for a missing value, "1" if no attribute is read.
    """

    shape: shapely.Geometry
    key: str


class PolygonFile:
    """A vector file whose polygons are read in the CRS of an image.

    Args:
        path: the file.
        image: header of the raster onto which the polygons are rasterized.
        layer: name of the layer; None for the only one.
        attribute: attribute with the class; None reads none.

    Attributes:
        path: the file.
        repaired: numbers of the invalid polygons that were read and repaired so far.
        read: numbers of all polygons that were read so far.

    Raises:
        DataError: the file can't be opened, is empty, lacks the layer or attribute, holds no polygons, or its
            CRS or that of the image is missing.
    """

    def __init__(self, path: str, image: RasterInfo, layer: str | None, attribute: str | None) -> None:
        self.path = path
        self.repaired: set[int] = set()
        self.read: set[int] = set()
        self._image = image
        self._layer = _find_layer(path, layer)
        self._attribute = attribute
        info = _call_pyogrio(path, pyogrio.read_info, layer=self._layer)
        if info["features"] == 0:
            raise DataError(f"{path}: the layer {self._layer!r} is empty; expected polygons")
        if attribute is not None and attribute not in info["fields"]:
            raise DataError(
                f"{path}: no attribute {attribute!r} in the layer {self._layer!r}; "
                f"{did_you_mean(attribute, info['fields'])}; see dataset.label.attribute"
            )
        self._crs = _source_crs(path, info["crs"], image)
        target = CRS.from_wkt(image.crs) if image.crs else None
        self._turn, self._turn_of_image = full_turn(self._crs or target), full_turn(target)
        self._extent = None  # first and last x
        if self._turn is not None:
            left, _, right, _ = _call_pyogrio(
                path, pyogrio.read_info, layer=self._layer, force_total_bounds=True
            )["total_bounds"]
            self._extent = left, right

    def read_rows(self, top: int, bottom: int) -> list[Polygon]:
        """Return the polygons that intersect the image's rows [top, bottom), in the order of the file."""
        left, bottom_y, right, top_y = self._bounds(top, bottom)
        one_pixel = 1 / max(bottom - top, self._image.width)
        margin = (_CLIP_MARGIN if self._crs else one_pixel) * max(right - left, top_y - bottom_y)
        bounds = left - margin, bottom_y - margin, right + margin, top_y + margin
        features = [feature for shift in self._shifts(left, right) for feature in self._read(bounds, shift)]
        features.sort(key=lambda feature: feature[0])  # all around the earth, some are found twice
        shapes = self._to_image_crs([shape for _, shape, _ in features], bounds, top, bottom)
        return [Polygon(shape, key) for shape, (_, _, key) in zip(shapes, features, strict=True) if shape]

    def _read(self, bounds: tuple[float, float, float, float], shift: float) -> list[_Feature]:
        """Return number, shape and key of the polygons that intersect bounds after a shift to the east."""
        left, low, right, high = bounds
        columns = [] if self._attribute is None else [self._attribute]
        _, numbers, shapes, fields = _call_pyogrio(
            self.path,
            pyogrio.raw.read,
            layer=self._layer,
            columns=columns,
            bbox=(left - shift, low, right - shift, high),
            return_fids=True,
            force_2d=True,
        )
        keys = fields[0] if columns else np.ones(len(numbers), int)
        features = list(self._parse(numbers, shapes, keys))
        return [(n, translate(shape, shift) if shift else shape, key) for n, shape, key in features]

    def coverage_mask(self, top: int, bottom: int) -> NDArray[np.bool_]:
        """Return (rows, width) a mask of the pixels whose centres lie in a polygon."""
        shapes = [(polygon.shape, 1) for polygon in self.read_rows(top, bottom)]
        return rasterize_polygons(shapes, self._image, top, bottom, np.dtype(np.uint8), 0, False) == 1

    def _bounds(self, top: int, bottom: int) -> tuple[float, float, float, float]:
        xs, ys = corner_coordinates(self._image, top, bottom)
        bounds = float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
        if self._crs is None:
            return bounds
        image = CRS.from_wkt(self._image.crs)
        try:
            wrapped = self._turn and bounds_around(image, self._crs, self._turn, bounds)
            return wrapped or transform_bounds(image, self._crs, *bounds)
        except (RasterioError, CPLE_BaseError) as error:
            raise DataError(
                f"{self._image.path}: its bounds cannot be transformed to the CRS of {self.path} ({error})"
            ) from error

    def _shifts(self, left: float, right: float) -> list[float]:
        """Return the shifts to the east, in whole turns, by which polygons overlap the image's longitudes."""
        if self._turn is None or self._extent is None:
            return [0.0]
        west, east = self._extent
        shifts = [turns * self._turn for turns in range(-2, 3)]
        min_overlap = self._turn * _MIN_OVERLAP_TURNS
        return [s for s in shifts if min(east + s, right) - max(west + s, left) > min_overlap]

    def _parse(self, numbers: NDArray[Any], shapes: NDArray[Any], keys: NDArray[Any]) -> Iterator[_Feature]:
        for number, data, key in zip(numbers.tolist(), shapes, keys, strict=True):
            if data is None:  # a row of the attribute table without a geometry
                continue
            try:
                shape = shapely.from_wkb(data)
            except shapely.errors.ShapelyError as error:
                raise DataError(f"{self.path}: feature {number} cannot be read ({error})") from error
            if shape.is_empty:
                continue
            if shape.geom_type not in {"Polygon", "MultiPolygon", "GeometryCollection"}:
                raise DataError(
                    f"{self.path}: feature {number} is a {shape.geom_type}, expected polygons; give lines "
                    "and points a width (a buffer) first"
                )
            self.read.add(number)
            if not shape.is_valid:
                self.repaired.add(number)
                shape = shapely.make_valid(shape)
            yield number, shape, _attribute_key(key)

    def _to_image_crs(
        self, shapes: list[shapely.Geometry], bounds: tuple[float, float, float, float], top: int, bottom: int
    ) -> list[shapely.Geometry | None]:
        """Clip shapes to bounds and reproject them; None for a shape of which no polygon remains."""
        if self._crs is None or not shapes:
            return [_polygonal_part(shape) for shape in shapes]
        clipped = shapely.clip_by_rect(np.array(shapes, object), *bounds)
        densified = shapely.segmentize(clipped, max(bounds[2] - bounds[0], bounds[3] - bounds[1]) / _SEGMENTS)
        target, turn = CRS.from_wkt(self._image.crs), self._turn_of_image
        image_centre, centre = (
            float(corner_coordinates(self._image, top, bottom)[0].mean()),
            (bounds[0] + bounds[2]) / 2,
        )

        def reproject(points: NDArray[Any]) -> NDArray[Any]:
            x, y = np.array(transform(self._crs, target, points[:, 0], points[:, 1]))
            if turn is not None:
                offset = (points[:, 0] - centre) / self._turn * turn if self._turn else 0.0
                x = unwrap_longitudes(x, image_centre + offset, turn)
            return np.stack([x, y], axis=1)

        return [_polygonal_part(shape) for shape in shapely.transform(densified, reproject)]


def rasterize_polygons(
    shapes: list[tuple[shapely.Geometry, int]],
    image: RasterInfo,
    top: int,
    bottom: int,
    dtype: np.dtype[Any],
    fill: int,
    all_touched: bool,
) -> NDArray[Any]:
    """Rasterize polygons into the rows [top, bottom) of an image; later ones lie on top.

    Args:
        shapes: polygons in the CRS of the image, each with its value.
        image: header of the raster that defines the grid.
        top: first row.
        bottom: row after the last one.
        dtype: uint8 or int32.
        fill: value outside of all polygons.
        all_touched: set every pixel that a polygon touches, not only those whose centre it covers.

    Returns:
        (rows, width) values of dtype.
    """
    size = (bottom - top, image.width)
    if not shapes:
        return np.full(size, fill, dtype)
    affine = window_transform(RasterWindow(0, top, image.width, bottom - top), affine_of(image))
    values: NDArray[Any] = rasterize(
        shapes, out_shape=size, transform=affine, fill=fill, dtype=dtype.name, all_touched=all_touched
    )
    return values


def _find_layer(path: str, name: str | None) -> str:
    if not is_remote(path):
        if not Path(path).exists():
            raise DataError(f"{path}: no such file")
        if Path(path).is_file() and not Path(path).stat().st_size:
            raise DataError(f"{path}: cannot be opened as a vector file (the file is empty)")
    names = [
        str(name)
        for name, geometry_type in _call_pyogrio(path, pyogrio.list_layers)
        if geometry_type is not None
    ]
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        problem = "several layers" if name is None else f"no layer {name!r} with polygons"
        raise DataError(f"{path}: {problem}; {did_you_mean(name or '', names)}; see dataset.label.layer")
    return name


def _call_pyogrio(path: str, function: Callable[..., _T], **options: object) -> _T:
    try:
        return function(path, **options)
    except (RuntimeError, ValueError) as error:  # what pyogrio raises derives from RuntimeError
        raise DataError(f"{path}: cannot be opened as a vector file ({error})") from error


def _source_crs(path: str, definition: str | None, image: RasterInfo) -> CRS | None:
    """Return the CRS of the file, or None if it equals that of the image."""
    if image.transform is None:
        raise DataError(
            f"{image.path}: has no georeference, so that the polygons of {path} cannot be located on it"
        )
    if definition is None and image.crs is None:
        return None
    if definition is None or image.crs is None:
        without_crs, with_crs = (path, image.path) if definition is None else (image.path, path)
        raise DataError(
            f"{without_crs}: has no CRS, {with_crs} has one; write it into the file (ogr2ogr -a_srs or "
            "gdal_edit.py -a_srs)"
        )
    try:
        crs = CRS.from_user_input(definition)
    except RasterioError as error:
        raise DataError(f"{path}: its CRS {definition[:40]!r} is unknown ({error})") from error
    return None if crs == CRS.from_wkt(image.crs) else crs


def _attribute_key(value: object) -> str:
    if value is None or value != value:  # noqa: PLR0124 - NaN is how a missing number is read
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _polygonal_part(shape: shapely.Geometry) -> shapely.Geometry | None:
    """Return the polygonal part of a shape, or None; make_valid may yield lines and points, too."""
    if shape.geom_type in {"Polygon", "MultiPolygon"}:
        return None if shape.is_empty else shape
    parts = [part for part in shapely.get_parts(shape) if part.geom_type in {"Polygon", "MultiPolygon"}]
    return shapely.union_all(parts) if parts else None
