"""Polygons of any CRS become labels on the image's grid, once; what doesn't fit is said."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

import geo_seg.data.labels.prepare
from geo_seg.config.dataset import DatasetConfig, LabelConfig, SplitConfig
from geo_seg.data.labels.polygons import PolygonFile
from geo_seg.data.scenes.discovery import find_scenes
from geo_seg.data.scenes.scene import Scene
from geo_seg.errors import ConfigError, DataError
from geo_seg.raster.georeference import affine_of
from geo_seg.tiling import Window
from tests.conftest import read_window, write_raster

SIZE = (60, 50)
UTM = "EPSG:32633"
GRIDS = {
    "north up": Affine(2, 0, 500000, 0, -2, 5000000),
    "south up": Affine(2, 0, 500000, 0, 2, 4999880),
    "rotated": Affine(2, 0, 500000, 0, -2, 5000000) @ Affine.rotation(30),
}


def write_polygons(
    path: Path, shapes: list[Any], values: list[Any] | None, crs: str | None = UTM, **options: Any
) -> Path:
    """Writes polygons with the attribute kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = values and isinstance(values[0], str)
    data = [] if values is None else [np.array(values, object if text else np.int64)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a file without CRS is what some tests are about
        pyogrio.raw.write(
            path,
            np.array([shapely.to_wkb(shape) for shape in shapes], object),
            data,
            [] if values is None else ["kind"],
            crs=crs,
            **{"geometry_type": "Polygon", **options},
        )
    return path


def on_map(grid: Affine, *corners: tuple[float, float]) -> Any:
    """A polygon whose corners are given as columns and rows."""
    return shapely.Polygon([grid @ corner for corner in corners])


def box(left: float, top: float, right: float, bottom: float, grid: Affine = GRIDS["north up"]) -> Any:
    return on_map(grid, (left, top), (right, top), (right, bottom), (left, bottom))


@pytest.fixture
def config(tmp_path: Path) -> DatasetConfig:
    """Two images, labels.gpkg for both, which a test writes, and four classes."""
    for name in ("a", "b"):
        write_raster(tmp_path / "images" / f"{name}.tif", np.full(SIZE, 7, np.uint8))
    return DatasetConfig(
        name="polygons",
        root=str(tmp_path),
        images="images/*.tif",
        masks="labels.gpkg",
        classes=["ground", "water", "forest", "road"],
        label=LabelConfig(attribute="kind"),
        split=SplitConfig(by="pattern", val="images/b.tif"),
        cache_dir=str(tmp_path / "cache"),
    )


def train_scene(config: DatasetConfig) -> Scene:
    return find_scenes(config, 0)["train"][0]


def labels(config: DatasetConfig) -> np.ndarray:
    scene = train_scene(config)
    window = Window(0, 0, scene.image.height, scene.image.width)
    return read_window(config, scene, window).labels


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp", "fgb"])
def test_a_pixel_has_the_class_of_the_polygon_that_covers_its_centre(
    config: DatasetConfig, grid: Affine, crs: str, suffix: str
) -> None:
    if suffix == "geojson" and crs == UTM:
        crs = "EPSG:4326"  # as its standard says
    draw = np.random.default_rng(3)
    root = Path(config.root)
    for name in ("a", "b"):
        write_raster(root / "images" / f"{name}.tif", np.full(SIZE, 7, np.uint8), transform=grid)
    rows, cols = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    x, y = transform(UTM, crs, *(part.ravel() for part in grid @ (cols, rows)))
    shapes, values, expected = [], [], np.full(SIZE, 255)
    for value in (1, 2, 3):
        hull = shapely.MultiPoint(draw.uniform(-5, 60, (7, 2))).convex_hull
        place = np.array([grid @ tuple(corner) for corner in hull.exterior.coords])
        shapes.append(shapely.Polygon(np.stack(transform(UTM, crs, *place.T), axis=1)))
        values.append(value)
        inside = shapely.contains_xy(shapes[-1], np.array(x), np.array(y)).reshape(SIZE)
        expected[inside] = value
    ordered = {"SPATIAL_INDEX": "NO"} if suffix == "fgb" else {}  # its index sorts the polygons
    write_polygons(root / f"labels.{suffix}", shapes, values, crs, **ordered)
    config.masks = f"labels.{suffix}"
    found = labels(config)
    assert set(np.unique(expected)) > {1, 255}
    assert (found != expected).sum() <= 2  # centres that lie on an edge but for rounding


def test_the_later_polygon_of_the_file_or_of_the_class_table_is_on_top(config: DatasetConfig) -> None:
    write_polygons(Path(config.root) / "labels.gpkg", [box(0, 0, 30, 30), box(10, 10, 40, 40)], [3, 1])
    assert labels(config)[20, 20] == 1
    config.label.order = "class"
    assert labels(config)[20, 20] == 3
    config.classes, config.ignore_values = ["ground", {"name": "road", "values": [3]}], [1]
    assert labels(config)[20, 20] == 255


def test_through_a_hole_shows_what_lies_below(config: DatasetConfig) -> None:
    ring = box(10, 10, 40, 40).difference(box(20, 20, 30, 30))
    write_polygons(Path(config.root) / "labels.gpkg", [box(0, 0, 25, 50), ring], [1, 2])
    found = labels(config)
    assert (found[25, 15], found[25, 22], found[25, 28], found[5, 45]) == (2, 1, 255, 255)
    config.label.uncovered = "ground"
    assert labels(config)[25, 28] == 0
    config.label.uncovered = "grond"
    with pytest.raises(ConfigError, match=r"unknown class .*; did you mean 'ground'"):
        labels(config)


def test_all_touched_takes_every_pixel_that_a_polygon_touches(config: DatasetConfig) -> None:
    write_polygons(Path(config.root) / "labels.gpkg", [box(10.7, 10.7, 20.3, 20.3)], [1])
    assert (labels(config) == 1).sum() == 9 * 9
    config.label.all_touched = True
    assert (labels(config) == 1).sum() == 11 * 11


def test_a_label_is_burnt_strip_by_strip(config: DatasetConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(config.root)
    for name in ("a", "b"):
        write_raster(root / "images" / f"{name}.tif", np.full((1100, 90), 7, np.uint8))
    draw = np.random.default_rng(0)
    shapes = [
        shapely.Point(500000 + x, 5000000 - y).buffer(20) for x, y in draw.uniform(0, (180, 2200), (60, 2))
    ]
    write_polygons(root / "labels.gpkg", shapes, draw.integers(0, 4, 60).tolist())
    whole = labels(config)
    heights: list[int] = []
    within = PolygonFile.read_rows

    def watched(self: PolygonFile, top: int, bottom: int) -> Any:
        heights.append(bottom - top)
        return within(self, top, bottom)

    monkeypatch.setattr(PolygonFile, "read_rows", watched)
    monkeypatch.setattr(geo_seg.data.labels.prepare, "_STRIP_PIXELS", 90 * 300)
    config.cache_dir = str(root / "other")
    np.testing.assert_array_equal(labels(config), whole)
    assert len(np.unique(whole)) == 5
    assert max(heights) == 256


def test_texts_numbers_and_missing_values_name_classes(config: DatasetConfig) -> None:
    shapes = [box(i * 10, 0, i * 10 + 10, 10) for i in range(4)]
    write_polygons(Path(config.root) / "labels.gpkg", shapes, ["lake", "4", "", "sea"])
    config.classes = [{"name": "a", "values": [4]}, {"name": "b", "values": ["lake", "sea"]}]
    config.ignore_values = [""]
    assert labels(config)[5, 5:50:10].tolist() == [1, 0, 255, 1, 255]


def test_a_value_of_no_class_is_listed_with_its_pixels(config: DatasetConfig) -> None:
    shapes = [box(0, 0, 10, 10), box(0, 10, 10, 20), box(20, 0, 30, 10)]
    write_polygons(Path(config.root) / "labels.gpkg", shapes, ["shrub", "shrub", "2"])
    with pytest.raises(DataError, match=r"values of 'kind' in no class: 'shrub' \(200 px\);.*'0', '1', '2'"):
        labels(config)
    config.unlisted = "ignore"
    assert labels(config)[5, [5, 25]].tolist() == [255, 2]


def test_without_an_attribute_every_polygon_is_class_1(config: DatasetConfig) -> None:
    write_polygons(Path(config.root) / "labels.gpkg", [box(0, 0, 10, 10)], None)
    config.label = LabelConfig(uncovered="other")
    config.mode, config.classes = "binary", ["other", "building"]
    found = labels(config)
    assert (found == 1).sum() == 100
    assert (found == 0).sum() == found.size - 100


def test_invalid_polygons_are_mended_and_counted_also_when_the_label_was_kept(config: DatasetConfig) -> None:
    bow = on_map(GRIDS["north up"], (0, 0), (20, 20), (20, 0), (0, 20))
    write_polygons(Path(config.root) / "labels.gpkg", [bow, box(30, 0, 40, 10)], [1, 2])
    for _ in range(2):
        scene = train_scene(config)
        assert len(scene.notes) == 1
        assert "1 of 2 polygons" in scene.notes[0]
        assert "invalid and have been repaired" in scene.notes[0]
    found = labels(config)
    assert (found[10, 2], found[10, 17], found[2, 10], found[5, 35]) == (1, 1, 255, 2)


def test_an_image_without_a_polygon_is_noted(config: DatasetConfig) -> None:
    write_polygons(Path(config.root) / "labels.gpkg", [box(200, 200, 210, 210)], [1])
    assert "no polygon of" in train_scene(config).notes[0]


def test_a_label_is_made_once_until_the_file_or_an_option_changes(config: DatasetConfig) -> None:
    path = write_polygons(Path(config.root) / "labels.gpkg", [box(0, 0, 10, 10)], [1])
    first = Path(train_scene(config).mask.path)
    made = first.stat().st_mtime_ns
    assert Path(train_scene(config).mask.path) == first
    assert first.stat().st_mtime_ns == made
    config.label.all_touched = True
    assert Path(train_scene(config).mask.path) != first
    config.label.all_touched = False
    path.unlink()
    write_polygons(path, [box(0, 0, 20, 10)], [1])
    assert (labels(config) == 1).sum() == 200
    assert not list(first.parent.glob(".*")), "no half of a label is left behind"


def test_outside_the_area_of_interest_labels_are_ignored(config: DatasetConfig) -> None:
    root = Path(config.root)
    write_polygons(root / "labels.gpkg", [box(0, 0, 50, 60)], [1])
    write_polygons(root / "aoi.geojson", [box(0, 0, 50, 20)], None)
    config.aoi = "aoi.geojson"
    found = labels(config)
    assert (found[:20] == 1).all()
    assert (found[20:] == 255).all()
    for name in ("a", "b"):
        write_raster(root / "masks" / f"{name}.tif", np.full(SIZE, 2, np.uint8))
    raster = replace(config, masks="masks/*.tif", label=LabelConfig())
    found = labels(raster)
    assert (found[:20] == 2).all()
    assert (found[20:] == 255).all()


def ruin(config: DatasetConfig, how: str) -> None:
    path = Path(config.root) / "labels.gpkg"
    write_polygons(path, [box(0, 0, 10, 10)], [1])
    if how == "attribute":
        config.label.attribute = "kid"
    elif how == "layer":
        config.label.layer = "lables"
    elif how == "two layers":
        write_polygons(path, [box(0, 0, 10, 10)], [1], layer="more", append=False)
    elif how == "no CRS":
        write_polygons(path.with_suffix(".shp"), [box(0, 0, 10, 10)], [1], None)
        config.masks = "labels.shp"
    elif how == "no georeference":
        write_raster(
            Path(config.root) / "images" / "a.tif", np.ones(SIZE, np.uint8), crs=None, transform=None
        )
    else:
        replace_file(path, how)


def replace_file(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.unlink()
    broken = {"0 bytes": b"", "truncated": content[:3000], "no vector file": b"x" * 5000}
    if how in broken:
        path.write_bytes(broken[how])
    elif how == "empty layer":
        write_polygons(path, [], np.array([], np.int64).tolist(), geometry_type="Polygon")
    elif how == "lines":
        line = shapely.LineString([(500000, 5000000), (500050, 4999950)])
        write_polygons(path, [line], [1], geometry_type="LineString")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "labels.gpkg: no such file"),
        ("0 bytes", "cannot be opened as a vector file .the file is empty"),
        ("truncated", "labels.gpkg: cannot be opened as a vector file"),
        ("no vector file", "labels.gpkg: cannot be opened as a vector file"),
        ("empty layer", "the layer 'labels' is empty"),
        ("attribute", "no attribute 'kid' in the layer 'labels'; did you mean 'kind'"),
        ("layer", "no layer 'lables' with polygons; did you mean 'labels'"),
        ("two layers", "several layers; available: labels, more"),
        ("lines", "is a LineString, expected polygons"),
        ("no CRS", r"labels.shp: has no CRS, .*a.tif has one"),
        ("no georeference", "a.tif: has no georeference, so that the polygons"),
    ],
)
def test_a_vector_file_that_does_not_fit_is_named(config: DatasetConfig, how: str, message: str) -> None:
    ruin(config, how)
    with pytest.raises(DataError, match=message) as found:
        find_scenes(config, 0)
    assert "\n" not in str(found.value)


def test_options_for_polygons_without_polygons_are_refused(small: DatasetConfig) -> None:
    small.label.attribute = "kind"
    with pytest.raises(ConfigError, match=r"dataset\.label\.attribute: is for polygons"):
        find_scenes(small, 0)


def test_the_kept_label_lies_on_the_grid_of_the_image(config: DatasetConfig) -> None:
    write_polygons(Path(config.root) / "labels.gpkg", [box(0, 0, 10, 10)], [1])
    scene = train_scene(config)
    with rasterio.open(scene.mask.path) as kept:
        assert kept.shape == SIZE
        assert kept.crs == CRS.from_user_input(UTM)
        assert kept.transform == affine_of(scene.image)


@pytest.mark.fault("vectors", "GML, SQLite, KML, zipped Shapefiles are called no vector file")
@pytest.mark.parametrize(
    ("file", "driver"),
    [
        ("labels.gml", "GML"),
        ("labels.kml", "KML"),
        ("labels.sqlite", "SQLite"),
        ("labels.db", "SQLite"),
        ("labels.shp.zip", "ESRI Shapefile"),
        ("labels.tab", "MapInfo File"),
        ("labels.geojsonl", "GeoJSONSeq"),
        ("labels.gdb", "OpenFileGDB"),
    ],
)
def test_polygons_are_read_from_every_vector_format_that_gdal_opens(
    config: DatasetConfig, file: str, driver: str
) -> None:
    shapes = [box(0, 0, 20, 60), box(20, 10, 50, 60)]
    crs = UTM
    if driver in {"KML", "GeoJSONSeq"}:  # which know no other
        crs = "EPSG:4326"
        shapes = [
            shapely.transform(s, lambda p: np.stack(transform(UTM, crs, p[:, 0], p[:, 1]), 1)) for s in shapes
        ]
    write_polygons(Path(config.root) / file, shapes, [1, 2], crs, driver=driver)
    config.masks = file
    expected = np.full(SIZE, 255)
    expected[:, :20], expected[10:, 20:] = 1, 2
    np.testing.assert_array_equal(labels(config), expected)
    config.aoi, config.masks = file, "labels.tif"
    write_raster(Path(config.root) / "labels.tif", np.ones(SIZE, np.uint8))
    config.label = LabelConfig()
    np.testing.assert_array_equal(labels(config), np.where(expected == 255, 255, 1))
