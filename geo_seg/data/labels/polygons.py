"""Polygons of vector files, read and burnt window by window."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
from geo_seg.raster.antimeridian import bounds_around, full_turn, unwrap_longitudes
from geo_seg.raster.georeference import affine_of, corner_coordinates
from geo_seg.raster.paths import is_remote
from geo_seg.raster.reader import RasterInfo

_MARGIN = 0.02  # of a window's size: polygons are cut that far outside of it before they are reprojected
_TOUCH = 1e-9  # of a turn around the earth: what overlaps less only touches
_PIECES = 50  # of a window's size: straight edges are bent by a reprojection in pieces of that length


class Polygon(NamedTuple):
    """A polygon of a vector file.

    Attributes:
        shape: in the CRS of the image.
        key: the value of its attribute as text, "" where it has none, "1" where no attribute is asked for.
    """

    shape: Any
    key: str


class PolygonFile:
    """The polygons of a vector file, placed on an image.

    Attributes:
        mended: numbers of the invalid polygons that have been read and mended so far.
        read: numbers of all polygons that have been read so far.

    Args:
        path: the file.
        image: the raster that they are burnt onto.
        layer: its name; None takes the only one.
        attribute: of the features; None reads none.

    Raises:
        DataError: the file can't be opened, is empty, has no such layer or attribute, holds no polygons, or
            can't be placed on the image.
    """

    def __init__(self, path: str, image: RasterInfo, layer: str | None, attribute: str | None) -> None:
        self.path = path
        self.mended: set[int] = set()
        self.read: set[int] = set()
        self._image = image
        self._layer = _layer(path, layer)
        self._attribute = attribute
        info = _call_pyogrio(path, pyogrio.read_info, layer=self._layer)
        if info["features"] == 0:
            raise DataError(f"{path}: the layer {self._layer!r} is empty; expected polygons")
        if attribute is not None and attribute not in info["fields"]:
            raise DataError(
                f"{path}: no attribute {attribute!r} in the layer {self._layer!r}; "
                f"{did_you_mean(attribute, info['fields'])}; see dataset.label.attribute"
            )
        self._crs = _crs(path, info["crs"], image)
        target = CRS.from_wkt(image.crs) if image.crs else None
        self._turn, self._turn_of_image = full_turn(self._crs or target), full_turn(target)
        self._extent = None  # first and last x
        if self._turn is not None:
            left, _, right, _ = _call_pyogrio(
                path, pyogrio.read_info, layer=self._layer, force_total_bounds=True
            )["total_bounds"]
            self._extent = left, right

    def read_rows(self, top: int, bottom: int) -> list[Polygon]:
        """The polygons that meet the image's rows from top to below bottom, in the order of the file."""
        left, low, right, high = self._bounds(top, bottom)
        share = _MARGIN if self._crs else 1 / max(bottom - top, self._image.width)  # else a pixel
        margin = share * max(right - left, high - low)
        bounds = left - margin, low - margin, right + margin, high + margin
        found = [one for shift in self._shifts(left, right) for one in self._read(bounds, shift)]
        found.sort(key=lambda one: one[0])  # of a place that goes round the earth, some are found twice
        placed = self._placed([shape for _, shape, _ in found], bounds, top, bottom)
        return [Polygon(shape, key) for shape, (_, _, key) in zip(placed, found, strict=True) if shape]

    def _read(self, bounds: tuple[float, float, float, float], shift: float) -> list[tuple[int, Any, str]]:
        """Numbers, shapes and keys of the polygons that meet bounds once they are moved east."""
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
        found = list(self._parse(numbers, shapes, keys))
        return [(n, translate(shape, shift) if shift else shape, key) for n, shape, key in found]

    def coverage_mask(self, top: int, bottom: int) -> NDArray[np.bool_]:
        """(rows, width) of the image: the pixels whose centres lie in a polygon."""
        shapes = [(polygon.shape, 1) for polygon in self.read_rows(top, bottom)]
        return rasterize_polygons(shapes, self._image, top, bottom, np.dtype(np.uint8), 0, False) == 1

    def _bounds(self, top: int, bottom: int) -> tuple[float, float, float, float]:
        xs, ys = corner_coordinates(self._image, top, bottom)
        bounds = float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())
        if self._crs is None:
            return bounds
        image = CRS.from_wkt(self._image.crs)
        try:
            around = self._turn and bounds_around(image, self._crs, self._turn, bounds)
            return around or transform_bounds(image, self._crs, *bounds)
        except (RasterioError, CPLE_BaseError) as error:
            raise DataError(
                f"{self._image.path}: its place cannot be told in the CRS of {self.path} ({error})"
            ) from error

    def _shifts(self, left: float, right: float) -> list[float]:
        """By how much polygons are moved east, so that they lie where an image calls its place otherwise."""
        if self._turn is None or self._extent is None:
            return [0.0]
        first, last = self._extent
        shifts = [turns * self._turn for turns in range(-2, 3)]
        least = self._turn * _TOUCH
        return [s for s in shifts if min(last + s, right) - max(first + s, left) > least]

    def _parse(
        self, numbers: NDArray[Any], shapes: NDArray[Any], keys: NDArray[Any]
    ) -> Iterator[tuple[int, Any, str]]:
        for number, data, key in zip(numbers.tolist(), shapes, keys, strict=True):
            if data is None:  # a row of the attribute table without a place
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
                self.mended.add(number)
                shape = shapely.make_valid(shape)
            yield number, shape, _text(key)

    def _placed(
        self, shapes: list[Any], bounds: tuple[float, float, float, float], top: int, bottom: int
    ) -> Any:
        """The polygons, cut out along bounds, in the CRS of the image; others than polygons are left out."""
        if self._crs is None or not shapes:
            return [_areas(shape) for shape in shapes]
        cut = shapely.clip_by_rect(np.array(shapes, object), *bounds)
        fine = shapely.segmentize(cut, max(bounds[2] - bounds[0], bounds[3] - bounds[1]) / _PIECES)
        target, turn = CRS.from_wkt(self._image.crs), self._turn_of_image
        middle, here = (
            float(corner_coordinates(self._image, top, bottom)[0].mean()),
            (bounds[0] + bounds[2]) / 2,
        )

        def moved(places: NDArray[Any]) -> NDArray[Any]:
            x, y = np.array(transform(self._crs, target, places[:, 0], places[:, 1]))
            if turn is not None:
                beside = (places[:, 0] - here) / self._turn * turn if self._turn else 0.0
                x = unwrap_longitudes(x, middle + beside, turn)
            return np.stack([x, y], axis=1)

        return [_areas(shape) for shape in shapely.transform(fine, moved)]


def rasterize_polygons(
    shapes: list[tuple[Any, int]],
    image: RasterInfo,
    top: int,
    bottom: int,
    dtype: np.dtype[Any],
    fill: int,
    all_touched: bool,
) -> NDArray[Any]:
    """Burns polygons into the rows of an image from top to below bottom; later ones lie on top.

    Args:
        shapes: polygons in the CRS of the image, each with its value.
        image: the raster whose grid it is.
        top: first row.
        bottom: row after the last one.
        dtype: uint8 or int32.
        fill: where no polygon is.
        all_touched: every pixel that a polygon touches, not only those whose centre it covers.

    Returns:
        (rows, width) of dtype.
    """
    size = (bottom - top, image.width)
    if not shapes:
        return np.full(size, fill, dtype)
    place = window_transform(RasterWindow(0, top, image.width, bottom - top), affine_of(image))
    made: NDArray[Any] = rasterize(
        shapes, out_shape=size, transform=place, fill=fill, dtype=dtype.name, all_touched=all_touched
    )
    return made


def _layer(path: str, chosen: str | None) -> str:
    if not is_remote(path):
        if not Path(path).exists():
            raise DataError(f"{path}: no such file")
        if Path(path).is_file() and not Path(path).stat().st_size:
            raise DataError(f"{path}: cannot be opened as a vector file (the file is empty)")
    names = [str(name) for name, kind in _call_pyogrio(path, pyogrio.list_layers) if kind is not None]
    if chosen is None and len(names) == 1:
        return names[0]
    if chosen not in names:
        said = "several layers" if chosen is None else f"no layer {chosen!r} with polygons"
        raise DataError(f"{path}: {said}; {did_you_mean(chosen or '', names)}; see dataset.label.layer")
    return chosen


def _call_pyogrio(path: str, function: Any, **options: Any) -> Any:
    try:
        return function(path, **options)
    except (RuntimeError, ValueError) as error:  # what pyogrio raises derives from RuntimeError
        raise DataError(f"{path}: cannot be opened as a vector file ({error})") from error


def _crs(path: str, text: str | None, image: RasterInfo) -> CRS | None:
    """The CRS to come from, or None where it is the image's own."""
    if image.transform is None:
        raise DataError(
            f"{image.path}: has no georeference, so that the polygons of {path} cannot be placed on it"
        )
    if text is None and image.crs is None:
        return None
    if text is None or image.crs is None:
        bare, other = (path, image.path) if text is None else (image.path, path)
        raise DataError(
            f"{bare}: has no CRS, {other} has one; write it into the file (ogr2ogr -a_srs or "
            "gdal_edit.py -a_srs)"
        )
    try:
        found = CRS.from_user_input(text)
    except RasterioError as error:
        raise DataError(f"{path}: its CRS {text[:40]!r} is unknown ({error})") from error
    return None if found == CRS.from_wkt(image.crs) else found


def _text(value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124 - NaN is how a missing number is read
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _areas(shape: Any) -> Any:
    """The polygons of a shape, or None; mending leaves lines and points behind, too."""
    if shape.geom_type in {"Polygon", "MultiPolygon"}:
        return None if shape.is_empty else shape
    parts = [part for part in shapely.get_parts(shape) if part.geom_type in {"Polygon", "MultiPolygon"}]
    return shapely.union_all(parts) if parts else None
