"""Class rasters as polygons in a GeoPackage, strip by strip of rows."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import shapely
from numpy.typing import NDArray
from pyogrio.util import vsi_path

from geo_seg.errors import DataError
from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.pixel_areas import pixel_areas
from geo_seg.raster.sidecars import STYLES, Color, layer_style_row
from geo_seg.raster.writer import remove_leftovers, write_error
from geo_seg.vectorize.polygonize import polygonize
from geo_seg.vectorize.region_table import (
    ConfidenceRaster,
    RasterStrips,
    RegionTable,
    build_region_table,
    regions_by_strip,
)
from geo_seg.vectorize.regions import Ids, label_regions

LAYER = "classes"
"""Name of the layer of polygons."""

_CLASS = "class"
_BATCH = 20_000  # polygons that are written at once
_FAILURES = (
    OSError,
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FeatureError,
    pyogrio.errors.GeometryError,
)


@dataclass(frozen=True)
class PolygonOptions:
    """How to make polygons.

    Attributes:
        min_area: square metres (pixels without a CRS) below which a polygon becomes a part of a neighbour.
        simplify: tolerance in pixels; 0 keeps every corner.
    """

    min_area: float
    simplify: float


def write_polygons(
    file: Path,
    raster: Path,
    nodata: float,
    names: tuple[str, ...],
    colors: tuple[Color, ...],
    certainty: ConfidenceRaster | None,
    how: PolygonOptions,
) -> int:
    """Write the polygons of a class raster; memory follows its width and their number, not its height.

    Polygons are connected pixels of a class; pixels that touch at a corner only are not connected.
    Neighbours have all vertices of a common border in common, simplified or not.

    Args:
        file: GeoPackage to be written, over what is there.
        raster: class ids.
        nodata: id that stands for none.
        names: of the classes.
        colors: of the classes, in which QGIS shows them.
        certainty: of the classes, if known.
        how: options.

    Returns:
        The number of polygons.

    Raises:
        DataError: it can't be written, or the rasters can't be read.
    """
    geobox = GeoBox.from_raster(raster)
    ground = pixel_areas(geobox)
    written = 0
    with RasterStrips(raster, certainty) as strips:
        table, selected = build_region_table(strips, ground, nodata, how.min_area)
        layer = _PolygonLayer(file, geobox, table, names, ground is not None, certainty is not None)
        try:
            remove_leftovers(file)
            for regions, polygons in _batches(_outlines(strips, table, selected, how)):
                written += layer.append(regions, polygons)
            if not written:
                layer.append(np.empty(0, np.int64), np.empty(0, object))
            _write_style(file, names, colors)
            if pyogrio.read_info(file, layer=LAYER, force_feature_count=True)["features"] != written:
                raise write_error(file, None)
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        except _FAILURES as error:
            raise write_error(file, error) from error
    return written


def prove_geopackages(folder: Path) -> None:
    """Raise unless the writer of GeoPackages takes a path as a plain folder, not as an archive or address.

    Raises:
        DataError: it would write elsewhere.
    """
    file = str(folder / "polygons.gpkg")
    if vsi_path(file) != file:
        raise DataError(
            f"polygons=true output={str(folder)!r}: no GeoPackage can be written there; choose a folder "
            "without ! and control characters in its path"
        )


class _PolygonLayer:
    """A layer of polygons with attributes.

    Args:
        file: GeoPackage.
        geobox: grid of the raster.
        table: its regions.
        names: of the classes.
        measured: whether areas are in square metres.
        with_confidence: whether confidences are known.
    """

    def __init__(
        self,
        file: Path,
        geobox: GeoBox,
        table: RegionTable,
        names: tuple[str, ...],
        measured: bool,
        with_confidence: bool,
    ) -> None:
        self._file = file
        self._geobox = geobox
        self._names = np.array(names, object)
        self._classes = table.classes.astype(np.int32)
        self._numbers: dict[str, NDArray[Any]] = {"pixels": table.pixels}
        if measured:
            self._numbers["area_m2"] = table.areas
        if with_confidence:
            self._numbers["confidence"] = table.confidence
        self._begun = False

    def append(self, regions: Ids, polygons: NDArray[Any]) -> int:
        """Write polygons, given in pixels, and return their number."""
        place = self._geobox.transform
        linear, shift = np.array([[place.a, place.d], [place.b, place.e]]), np.array([place.c, place.f])
        placed = shapely.transform(polygons, lambda points: points @ linear + shift)
        classes = self._classes[regions]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # the raster has none either
            pyogrio.raw.write(
                self._file,
                geometry=shapely.to_wkb(placed),
                field_data=[classes, self._names[classes], *(v[regions] for v in self._numbers.values())],
                fields=[_CLASS, "name", *self._numbers],
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                crs=self._geobox.crs.to_wkt() if self._geobox.crs else None,
                append=self._begun,
            )
        self._begun = True
        return len(polygons)


def _write_style(file: Path, names: tuple[str, ...], colors: tuple[Color, ...]) -> None:
    style = layer_style_row(LAYER, _CLASS, names, colors)
    columns = [np.array([value], bool if isinstance(value, bool) else object) for value in style.values()]
    pyogrio.raw.write(
        file,
        geometry=None,
        field_data=[*columns, np.array([np.datetime64("now", "ms")])],
        fields=[*style, "update_time"],
        layer=STYLES,
        driver="GPKG",
    )


def _outlines(
    strips: RasterStrips, table: RegionTable, selected: NDArray[np.bool_], how: PolygonOptions
) -> Iterator[tuple[Ids, NDArray[Any]]]:
    """Yield regions with their polygons in pixels, as soon as they are complete."""
    waiting: dict[int, list[shapely.Geometry]] = {}  # pieces of regions that reach over more than one strip
    within = table.first == table.last
    for strip, (regions, above, below) in enumerate(_with_edges(regions_by_strip(strips, table))):
        labels, count = label_regions(regions)
        owner = np.empty(count, np.int64)
        owner[labels.ravel()] = regions.ravel()
        pieces = polygonize(labels, above, below, strips.spans[strip][0])
        if how.simplify:
            # lines between strips stay as they are: what lies on the other side has the same vertices
            pieces = shapely.coverage_simplify(pieces, how.simplify, simplify_boundary=False)
        yield owner[complete_here := (within & selected)[owner]], pieces[complete_here]
        for piece in np.flatnonzero((~within & selected)[owner]).tolist():
            waiting.setdefault(int(owner[piece]), []).append(pieces[piece])
        complete = [region for region in waiting if table.last[region] == strip]
        joined = [shapely.coverage_union_all(waiting.pop(region)) for region in complete]
        yield np.array(complete, np.int64), np.array(joined, object)


def _with_edges(strips: Iterator[Ids]) -> Iterator[tuple[Ids, Ids | None, Ids | None]]:
    """Yield each strip with the row above and the row below it."""
    above, strip = None, next(strips)
    for following in strips:
        yield strip, above, following[0]
        above, strip = strip[-1], following
    yield strip, above, None


def _batches(items: Iterator[tuple[Ids, NDArray[Any]]]) -> Iterator[tuple[Ids, NDArray[Any]]]:
    """Group regions and polygons into batches for writing."""
    kept: list[tuple[Ids, NDArray[Any]]] = []
    for item in items:
        kept.append(item)
        if sum(len(regions) for regions, _ in kept) >= _BATCH:
            yield np.concatenate([r for r, _ in kept]), np.concatenate([p for _, p in kept])
            kept = []
    if any(len(regions) for regions, _ in kept):
        yield np.concatenate([r for r, _ in kept]), np.concatenate([p for _, p in kept])
