"""Polygons made strip by strip are those of the whole class raster."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio.features
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.crs import CRS
from rasterio.transform import Affine

from geo_seg.errors import DataError
from geo_seg.vectorize import region_table
from geo_seg.vectorize.geopackage import PolygonOptions, write_polygons
from geo_seg.vectorize.region_table import ConfidenceRaster
from geo_seg.vectorize.regions import connected_components
from tests.conftest import write_raster

NODATA = 255
COLORS = ((60, 16, 152), (132, 41, 246), (110, 193, 228))
PIXEL = {"crs": None, "transform": None, "nodata": NODATA}
CLASSES = arrays(
    np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.sampled_from([0, 1, 2, NODATA])
)
SLOW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def strips(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes strips as high as asked for."""

    def of(rows: int) -> None:
        def spans(self: Any, *given: Any) -> None:
            init(self, *given)
            height = self._classes.info.height
            self.spans = tuple((top, min(top + rows, height)) for top in range(0, height, rows))

        monkeypatch.setattr(region_table.RasterStrips, "__init__", spans)

    init = region_table.RasterStrips.__init__
    return of


def polygons(
    classes: np.ndarray,
    folder: Path,
    how: PolygonOptions,
    certainty: ConfidenceRaster | None = None,
    **profile: Any,
) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Geometries and attributes of a class raster."""
    raster = write_raster(folder / "map.tif", classes, **{**PIXEL, **profile})
    count = write_polygons(folder / "map.gpkg", raster, NODATA, ("a", "b", "c"), COLORS, certainty, how)
    meta, _, geometry, columns = pyogrio.raw.read(folder / "map.gpkg", layer="classes")
    assert len(geometry) == count
    return list(shapely.from_wkb(geometry)), dict(zip(meta["fields"], columns, strict=True))


def whole(classes: np.ndarray) -> list[tuple[int, Any]]:
    """What rasterio makes of all of it at once."""
    shapes = rasterio.features.shapes(classes, mask=classes != NODATA, connectivity=4)
    return [(int(value), shapely.geometry.shape(shape)) for shape, value in shapes]


@SLOW
@given(CLASSES, st.integers(1, 9))
def test_polygons_in_strips_of_any_height_are_those_of_the_whole_raster(
    strips: Any, tmp_path: Path, classes: np.ndarray, rows: int
) -> None:
    strips(rows)
    found, table = polygons(classes, tmp_path, PolygonOptions(0, 0))
    expected = whole(classes)
    assert len(found) == len(expected)
    for polygon, value, pixels in zip(found, table["class"], table["pixels"], strict=True):
        assert polygon.area == pixels
        assert sum(other == value and polygon.equals(shape) for other, shape in expected) == 1
    assert shapely.is_valid(found).all()


@SLOW
@given(CLASSES, st.integers(1, 9), st.sampled_from([0.0, 1.0, 3.0]), st.integers(0, 12))
def test_neighbours_fit_without_gap_or_overlap_whatever_is_simplified_and_joined(
    strips: Any, tmp_path: Path, classes: np.ndarray, rows: int, tolerance: float, least: int
) -> None:
    strips(rows)
    big = np.kron(classes, np.ones((2, 2), np.uint8))
    found, table = polygons(big, tmp_path, PolygonOptions(least, tolerance))
    assert shapely.is_valid(found).all()
    assert shapely.coverage_is_valid(found)
    assert (table["pixels"] >= least).all()


def test_simplification_takes_the_stairs_away_and_keeps_the_shape(strips: Any, tmp_path: Path) -> None:
    rows, cols = np.mgrid[:200, :200]
    disk = ((rows - 99.5) ** 2 + (cols - 99.5) ** 2 < 80**2).astype(np.uint8)
    strips(64)
    exact, _ = polygons(disk, tmp_path, PolygonOptions(0, 0))
    plain, _ = polygons(disk, tmp_path, PolygonOptions(0, 2))
    before, after = (shapely.get_num_coordinates(p).sum() for p in (exact, plain))
    assert after < before / 4
    assert (
        max(p.symmetric_difference(q).area for p, q in zip(exact, plain, strict=True)) < 0.02 * 80**2 * np.pi
    )


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_small_polygons_join_the_neighbour_with_the_longest_border(
    strips: Any, tmp_path: Path, rows: int
) -> None:
    classes = np.zeros((6, 8), np.uint8)
    classes[:, 5:] = 1
    classes[1:5, 4] = 2  # 4 sides beside class 1; as many beside class 0, and both ends
    classes[0, 6] = 2  # within class 1
    strips(rows)
    found, table = polygons(classes, tmp_path, PolygonOptions(5, 0))
    assert table["class"].tolist() == [0, 1]
    assert table["pixels"].tolist() == [30, 18]
    assert [p.area for p in found] == [30, 18]


def test_small_polygons_that_lie_together_become_one_of_the_largest_class(tmp_path: Path) -> None:
    classes = np.array([[0, 0, 1, NODATA, 2]], np.uint8)
    _, table = polygons(classes, tmp_path, PolygonOptions(3, 0))
    assert (table["class"].tolist(), table["pixels"].tolist()) == ([0], [3])  # the last one has no neighbour


def test_polygons_lie_on_the_raster_and_say_what_they_are(tmp_path: Path) -> None:
    classes = np.array([[0, 0, 1], [NODATA, 0, 1]], np.uint8)
    sure = np.array([[[100, 200, 50], [255, 150, 70]], [[0, 0, 250], [255, 200, 30]]], np.uint8)
    certainty = ConfidenceRaster(write_raster(tmp_path / "sure.tif", sure), 1 / 250)
    place = {"crs": "EPSG:3035", "transform": Affine(3, 1, 4321500, 1, -3, 3210900)}
    found, table = polygons(classes, tmp_path, PolygonOptions(0, 0), certainty, **place)
    assert list(table) == ["class", "name", "pixels", "area_m2", "confidence"]
    assert table["name"].tolist() == ["a", "b"]
    np.testing.assert_allclose(table["area_m2"], [30, 20])
    np.testing.assert_allclose([p.area for p in found], [30, 20])
    np.testing.assert_allclose(table["confidence"], [(0.4 + 0.8 + 0.6) / 3, (1 + 0.12) / 2])
    assert found[1].equals(
        shapely.Polygon([(4321506, 3210902), (4321509, 3210903), (4321511, 3210897), (4321508, 3210896)])
    )
    info = pyogrio.read_info(tmp_path / "map.gpkg", layer="classes")
    assert (CRS.from_user_input(info["crs"]), info["geometry_type"]) == (CRS.from_epsg(3035), "Polygon")


def test_a_raster_without_data_gives_an_empty_layer(tmp_path: Path) -> None:
    found, table = polygons(np.full((4, 5), NODATA, np.uint8), tmp_path, PolygonOptions(0, 1))
    assert (found, list(table)) == ([], ["class", "name", "pixels"])


def test_a_disk_that_takes_no_polygons_is_an_error_and_leaves_the_old_ones(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "map.tif", np.zeros((4, 5), np.uint8), nodata=NODATA)
    with pytest.raises(DataError, match=r"map\.gpkg: cannot be written"):
        write_polygons(
            tmp_path / "no" / "map.gpkg", raster, NODATA, ("a",), ((1, 2, 3),), None, PolygonOptions(0, 0)
        )


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60))
@settings(max_examples=50, deadline=None)
def test_components_are_what_a_walk_along_the_pairs_reaches(count: int, pairs: list[tuple[int, int]]) -> None:
    known = np.array([p for p in pairs if max(p) < count], np.int64).reshape(-1, 2)
    root = list(range(count))
    for a, b in known.tolist():
        old, new = max(root[a], root[b]), min(root[a], root[b])
        root = [new if r == old else r for r in root]
    expected = np.unique(root, return_inverse=True)[1]
    np.testing.assert_array_equal(connected_components(count, known[:, 0], known[:, 1]), expected)


def test_qgis_finds_the_colours_of_the_classes_in_the_geopackage(tmp_path: Path) -> None:
    polygons(np.array([[0, 1], [2, NODATA]], np.uint8), tmp_path, PolygonOptions(0, 0))
    meta, _, _, columns = pyogrio.raw.read(tmp_path / "map.gpkg", layer="layer_styles")
    row = dict(zip(meta["fields"], (column[0] for column in columns), strict=True))
    assert (row["f_table_name"], row["f_geometry_column"], row["useAsDefault"]) == ("classes", "geom", True)
    style = ET.fromstring(row["styleQML"])  # noqa: S314 - our own file
    assert style.find("renderer-v2").attrib["attr"] == "class"
    fills = {s.attrib["name"]: s.find("layer/prop[@k='color']").attrib["v"] for s in style.iter("symbol")}
    assert [
        (c.attrib["label"], c.attrib["value"], fills[c.attrib["symbol"]]) for c in style.iter("category")
    ] == [("a", "0", "60,16,152,255"), ("b", "1", "132,41,246,255"), ("c", "2", "110,193,228,255")]
