"""Polygons lie where they belong on images that reach over the 180th meridian."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform

from geo_seg.config.dataset import DatasetConfig, LabelConfig, SplitConfig
from geo_seg.data.scenes.discovery import find_scenes
from geo_seg.raster.georeference import full_turn
from geo_seg.tiling import Window
from tests.conftest import read_window, write_raster
from tests.unit.test_polygon_labels import write_polygons

DEGREES = pytest.mark.fault(
    "vectors", "labels or aoi in degrees for images over the 180th meridian are refused"
)
MERCATOR = pytest.mark.fault("vectors", "web Mercator labels over the 180th meridian: 10409 px for 8190")
SIZE = (70, 90)
WEST, SOUTH, EAST, NORTH = 179.981, -17.0253, 180.0172, -16.982  # a rectangle over it
WORLD = 20037508.342789244  # x of 180 degrees in web Mercator


def image_at(folder: Path, crs: str, turns: int = 0) -> tuple[Path, np.ndarray]:
    """An image around 180 E, 17 S, and which of its pixels lie in the rectangle."""
    reference = CRS.from_user_input(crs)
    (x,), (y,) = (found[:1] for found in transform("EPSG:4326", reference, [180.0], [-17.0])[:2])
    turn = full_turn(reference)
    x += turns * (turn or 0)
    side = 0.001 if reference.is_geographic else 100.0
    place = from_origin(x - SIZE[1] * side / 2, y + SIZE[0] * side / 2, side, side)
    pixels = np.full(SIZE, 7, np.uint8)
    path = write_raster(folder / "images" / "a.tif", pixels, crs=crs, transform=place)
    rows, cols = np.indices(SIZE) + 0.5
    across, down = place @ (cols.ravel(), rows.ravel())
    lon, lat = (np.array(found) for found in transform(reference, "EPSG:4326", across, down)[:2])
    inside = (lon % 360 > WEST) & (lon % 360 < EAST) & (lat > SOUTH) & (lat < NORTH)
    return path, inside.reshape(SIZE)


def rectangle(crs: str, cut: bool, turns: int) -> list[Any]:
    """The rectangle in a cylindrical CRS: in one piece that reaches beyond 180 degrees, or cut there."""
    reference = CRS.from_user_input(crs)
    turn = full_turn(reference)
    assert turn is not None
    spans = [(WEST, 180.0), (-180.0, EAST - 360)] if cut else [(WEST, EAST)]
    origin = transform("EPSG:4326", reference, [0.0], [0.0])[0][0]
    _, (low, high) = transform("EPSG:4326", reference, [0.0, 0.0], [SOUTH, NORTH])
    return [
        shapely.box(origin + (first / 360 + turns) * turn, low, origin + (last / 360 + turns) * turn, high)
        for first, last in spans
    ]


IMAGES = [
    ("EPSG:32760", 0),
    ("EPSG:32701", 0),
    ("EPSG:3994", 0),  # Mercator, around 100 E
    ("EPSG:3832", 0),  # Mercator, around 150 E
    ("EPSG:4326", 0),
    ("EPSG:4326", -1),
    ("EPSG:3857", 0),
    ("EPSG:3857", -1),
]
LABELS = [
    pytest.param("EPSG:4326", True, 0, marks=DEGREES),
    pytest.param("EPSG:4326", False, 0, marks=DEGREES),
    pytest.param("EPSG:4326", False, -1, marks=DEGREES),
    pytest.param("EPSG:4167", True, 0, marks=DEGREES),
    pytest.param("EPSG:3857", True, 0, marks=MERCATOR),
    pytest.param("EPSG:3857", False, 0, marks=MERCATOR),
    pytest.param("EPSG:3395", True, 0, marks=MERCATOR),
]


@pytest.mark.parametrize(("crs", "cut", "turns"), LABELS)
@pytest.mark.parametrize("image", IMAGES, ids=lambda image: f"{image[0]}{image[1]:+d}")
def test_polygons_over_the_180th_meridian_are_burnt_where_they_lie(
    tmp_path: Path, image: tuple[str, int], crs: str, cut: bool, turns: int
) -> None:
    _, inside = image_at(tmp_path, *image)
    shapes = rectangle(crs, cut, turns)
    write_polygons(tmp_path / "labels.gpkg", shapes, [1] * len(shapes), crs)
    config = settings(tmp_path, "labels.gpkg")
    found = read_window(config, find_scenes(config, 0)["train"][0], Window(0, 0, *SIZE)).labels
    assert 1000 < inside.sum() < inside.size / 2
    np.testing.assert_array_equal(found == 1, inside)


@DEGREES
@pytest.mark.parametrize("image", IMAGES, ids=lambda image: f"{image[0]}{image[1]:+d}")
def test_an_area_of_interest_over_the_180th_meridian_is_where_it_lies(
    tmp_path: Path, image: tuple[str, int]
) -> None:
    path, inside = image_at(tmp_path, *image)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.tif").write_bytes(path.read_bytes().replace(b"\7" * 8, b"\1" * 8))
    write_polygons(tmp_path / "area.geojson", rectangle("EPSG:4326", True, 0), None, "EPSG:4326")
    config = settings(tmp_path, "masks/*.tif", aoi="area.geojson", label=LabelConfig())
    found = read_window(config, find_scenes(config, 0)["train"][0], Window(0, 0, *SIZE)).labels
    np.testing.assert_array_equal(found != 255, inside)


@DEGREES
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize("west", [-180, 0])
def test_the_whole_earth_is_covered_once(tmp_path: Path, crs: str, west: int) -> None:
    place = from_origin(west, 80, 1, 1)
    write_raster(
        tmp_path / "images" / "a.tif", np.full((160, 360), 7, np.uint8), crs="EPSG:4326", transform=place
    )
    turn = full_turn(CRS.from_user_input(crs))
    assert turn is not None
    ys = transform("EPSG:4326", crs, [0.0, 0.0], [-60.0, 70.0])[1]
    shapes = [
        shapely.box(turn * (left - 0.001) / 360, ys[0], turn * (right + 0.001) / 360, ys[1])
        for left, right in ((-180, -20), (-10, 10), (40, 180))
    ]
    write_polygons(tmp_path / "labels.gpkg", shapes, [1, 2, 1], crs)
    config = settings(tmp_path, "labels.gpkg")
    found = read_window(config, find_scenes(config, 0)["train"][0], Window(0, 0, 160, 360)).labels
    lon, lat = (np.arange(360) + west + 0.5 + 180) % 360 - 180, 80 - np.arange(160) - 0.5
    classes = np.select([(lon < -20) | (lon > 40), abs(lon) < 10], [1, 2], 0)
    expected = np.where((lat > -60) & (lat < 70), 1, 0)[:, None] * classes
    np.testing.assert_array_equal(found, expected)


@DEGREES
def test_images_around_a_pole_have_their_labels(tmp_path: Path) -> None:
    write_raster(
        tmp_path / "images" / "a.tif",
        np.full((80, 80), 7, np.uint8),
        crs="EPSG:3413",
        transform=from_origin(-400_000, 400_000, 10_000, 10_000),
    )
    write_polygons(tmp_path / "labels.gpkg", [shapely.box(-180, 88, 180, 90)], [1], "EPSG:4326")
    config = settings(tmp_path, "labels.gpkg")
    found = read_window(config, find_scenes(config, 0)["train"][0], Window(0, 0, 80, 80)).labels
    rows, cols = np.indices((80, 80)) + 0.5
    x, y = cols.ravel() * 10_000 - 400_000, 400_000 - rows.ravel() * 10_000
    lat = np.array(transform("EPSG:3413", "EPSG:4326", x, y)[1]).reshape(80, 80)
    assert (found[lat > 88.2] == 1).mean() > 0.98  # the cut at the pole is a line
    assert (found[lat < 87.8] == 0).all()


def settings(folder: Path, masks: str, **options: Any) -> DatasetConfig:
    for file in list(folder.glob("*/a.tif")):  # a scene for each split
        shutil.copy(file, file.with_name("b.tif"))
    given: dict[str, Any] = {"label": LabelConfig(attribute="kind", uncovered="ground"), **options}
    return DatasetConfig(
        name="world",
        root=str(folder),
        images="images/*.tif",
        masks=masks,
        classes=["ground", "water", "forest"],
        split=SplitConfig(by="pattern", val="images/b.tif"),
        cache_dir=str(folder / "cache"),
        **given,
    )
