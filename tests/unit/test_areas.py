"""Areas and lengths of pixels are those on the ground, whatever plane a raster lies in."""

from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from geo_seg.data.scenes.spatial_blocks import length_in_pixels
from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.georeference import same_grid
from geo_seg.raster.pixel_areas import _EarthSurface, pixel_areas, pixel_size_metres, transform_points
from geo_seg.raster.reader import read_info
from geo_seg.tiling import Window
from tests.conftest import write_raster

ROTATED = (
    'GEOGCRS["rotated",BASEGEOGCRS["WGS 84",DATUM["World Geodetic System 1984",ELLIPSOID["WGS 84",6378137,'
    '298.257223563]]],DERIVINGCONVERSION["pole",METHOD["PROJ ob_tran o_proj=longlat"],'
    'PARAMETER["o_lon_p",0,ANGLEUNIT["degree",0.0174532925199433]],PARAMETER["o_lat_p",39.25,'
    'ANGLEUNIT["degree",0.0174532925199433]],PARAMETER["lon_0",18,ANGLEUNIT["degree",0.0174532925199433]]],'
    'CS[ellipsoidal,2],AXIS["longitude",east],AXIS["latitude",north],ANGLEUNIT["degree",0.0174532925199433]]'
)
PLACES = [  # CRS, and a place in it
    ("EPSG:4326", 10.0, 60.0),
    ("EPSG:4979", -70.0, -45.0),  # with heights
    ("EPSG:4267", -100.0, 45.0),  # another ellipsoid
    (ROTATED, 5.0, 20.0),
    ("EPSG:3857", 1_100_000.0, 8_400_000.0),
    ("EPSG:3857+5773", 1_100_000.0, 8_400_000.0),
    ("EPSG:3395", 1_100_000.0, 8_360_000.0),
    ("EPSG:32633", 300_000.0, 6_650_000.0),
    ("EPSG:32733", 900_000.0, 4_000_000.0),  # outside its zone
    ("EPSG:3035", 4_200_000.0, 4_100_000.0),
    ("EPSG:3031", 400_000.0, -1_100_000.0),
    ("EPSG:2263", 1_000_000.0, 200_000.0),  # US survey feet
    ("EPSG:27572", 600_000.0, 2_400_000.0),  # in grads from Paris
    ("EPSG:5070", -500_000.0, 1_800_000.0),
    ("EPSG:6933", 1_100_000.0, 6_000_000.0),
    ("EPSG:2193", 1_600_000.0, 5_400_000.0),
    ("EPSG:28992+5709", 120_000.0, 480_000.0),
    ("ESRI:54009", 1_100_000.0, 6_000_000.0),
    ("ESRI:104905", 10.0, 60.0),  # Mars
]
IDS = [crs if len(crs) < 20 else "rotated pole" for crs, _, _ in PLACES]


def grid(crs: str, x: float, y: float, pixel: float, size: int = 3, turn: float = 0) -> GeoBox:
    """A raster around a place, of pixels of about so many metres."""
    reference = CRS.from_user_input(crs)
    side = pixel / (111_000 if reference.is_geographic else reference.units_factor[1])
    place = from_origin(x, y, side, side) @ Affine.rotation(turn) @ Affine.translation(-size / 2, -size / 2)
    return GeoBox(size, size, reference, place, "")


def on_the_ground(crs: str, geometry: GeoBox, window: Window) -> float:
    """Square metres of a part of a raster, by geodesics."""
    row, col, height, width = window
    box = shapely.box(col, row, col + width, row + height)
    dense = np.array(shapely.segmentize(box, max(height, width) / 100).exterior.coords)
    a, b, c, d, e, f = geometry.transform[:6]
    source = pyproj.CRS.from_user_input(crs)
    source = source.sub_crs_list[0] if source.is_compound else source
    base = source
    while base.source_crs is not None or base.is_derived:
        base = base.source_crs
    move = pyproj.pyproj.Transformer.from_crs(source, base.to_2d(), always_xy=True)
    x, y = move.transform(*(np.array([[a, b], [d, e]]) @ dense.T + np.array([[c], [f]])))
    unit = base.axis_info[0].unit_conversion_factor
    return abs(base.get_geod().polygon_area_perimeter(np.degrees(x * unit), np.degrees(y * unit))[0])


@pytest.mark.fault("areas", "hectares in EPSG:3857+5773 and EPSG:3395 are 4 times too large at 60 degrees")
@pytest.mark.parametrize("turn", [0, 30])
@pytest.mark.parametrize(("crs", "x", "y"), PLACES, ids=IDS)
def test_pixels_have_the_area_that_geodesics_enclose(crs: str, x: float, y: float, turn: float) -> None:
    exact = on_the_ground(crs, grid(crs, x, y, 3000, turn=turn), Window(1, 1, 1, 1)) / 3000**2
    for pixel in (0.3, 10, 3000):
        found = pixel_areas(grid(crs, x, y, pixel, turn=turn))
        assert found is not None
        # columns of a panel are alike, but for a hundredth of a percent
        close = 1e-4 if pixel == 3000 else 1e-5
        assert found.of_rows(1, 2)[0, 1] == pytest.approx(exact * pixel**2, rel=close)


@pytest.mark.fault("areas", "hectares in EPSG:3857+5773 and EPSG:3395 are 4 times too large at 60 degrees")
@pytest.mark.parametrize(
    ("crs", "x", "y", "pixel"),
    [
        ("EPSG:3031", 0.0, 0.0, 5000.0),  # over the pole: k from 0.97 to 1.2
        ("EPSG:32633", 800_000.0, 6_000_000.0, 500.0),
        ("EPSG:3857", 0.0, 9_000_000.0, 10_000.0),
        ("EPSG:4326", 170.0, 40.0, 10_000.0),  # over the 180th meridian
        ("EPSG:3035", 4_200_000.0, 4_100_000.0, 3000.0),
    ],
)
def test_parts_of_wide_rasters_have_areas_of_their_own(crs: str, x: float, y: float, pixel: float) -> None:
    geometry = grid(crs, x, y, pixel, size=800)
    found = pixel_areas(geometry)
    assert found is not None
    for window in (Window(0, 0, 200, 200), Window(100, 650, 300, 150), Window(0, 0, 800, 800)):
        part = found.within(window)
        total = part.of_rows(0, window.height).sum()
        assert total == pytest.approx(on_the_ground(crs, geometry, window), rel=1e-4)


@pytest.mark.parametrize(
    ("crs", "width", "height"),
    [
        ("+proj=geos +h=35786023 +lon_0=0 +sweep=y +ellps=WGS84", 5.5e6, 5.5e6),
        ("+proj=moll +lon_0=0 +ellps=WGS84", 18.1e6, 12e6),
    ],
)
def test_pixels_beside_the_earth_have_no_area(crs: str, width: float, height: float) -> None:
    across, down = width / 50, height / 50
    disk = CRS.from_string(crs)
    found = pixel_areas(GeoBox(100, 100, disk, from_origin(-width, height, across, down), ""))
    assert found is not None
    whole = found.of_rows(0, 100)
    assert whole[0, 0] == 0
    assert whole[50, 50] == pytest.approx(across * down, rel=0.01)
    assert pixel_areas(GeoBox(10, 10, disk, from_origin(1.9e7, 1.9e7, 1000, 1000), "")) is None


@pytest.mark.fault("areas", "a local engineering CRS ends in a traceback after the whole map was predicted")
@pytest.mark.parametrize(
    ("wkt", "metres"),
    [
        ('LOCAL_CS["site grid",UNIT["metre",1]]', 1.0),
        ('LOCAL_CS["site grid",UNIT["foot",0.3048]]', 0.3048),
        (
            'ENGCRS["pit",EDATUM["corner"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
            'LENGTHUNIT["kilometre",1000]]',
            1000.0,
        ),
    ],
)
def test_a_local_grid_has_the_areas_and_lengths_of_its_plane(wkt: str, metres: float) -> None:
    geometry = GeoBox(3, 2, CRS.from_wkt(wkt), from_origin(100, 200, 0.5, 0.25), "")
    found = pixel_areas(geometry)
    assert found is not None
    np.testing.assert_allclose(found.of_rows(0, 2), np.full((2, 3), 0.125 * metres**2))
    assert pixel_size_metres(geometry) == pytest.approx((0.5 * metres, 0.25 * metres))


def test_no_crs_has_no_areas() -> None:
    assert pixel_areas(GeoBox(2, 2, None, Affine.identity(), "")) is None
    assert pixel_size_metres(GeoBox(2, 2, None, Affine.identity(), "")) is None


@pytest.mark.fault("areas", "split.unit=metres in plain EPSG:3857 is off by 2 at 60 degrees")
@pytest.mark.parametrize(("crs", "x", "y"), PLACES, ids=IDS)
def test_metres_of_blocks_are_those_on_the_ground(tmp_path: Path, crs: str, x: float, y: float) -> None:
    geometry = grid(crs, x, y, 10)
    place = {"crs": geometry.crs, "transform": geometry.transform}
    image = read_info(write_raster(tmp_path / "image.tif", np.zeros((3, 3), np.uint8), **place))
    area = on_the_ground(crs, grid(crs, x, y, 3000), Window(1, 1, 1, 1)) / 300**2
    sides = pixel_size_metres(geometry)
    assert sides is not None
    assert sides[0] * sides[1] == pytest.approx(area, rel=0.02)  # axes needn't be at right angles there
    assert length_in_pixels(100, "metres", image) == pytest.approx(100 / min(sides))


@pytest.mark.fault("areas", "a point off the earth ends the look at all others in a traceback")
@pytest.mark.parametrize("crs", ["ESRI:54009", "+proj=geos +h=35785831 +type=crs", "ESRI:54030"])
def test_points_without_a_place_are_nan_and_the_others_right(crs: str) -> None:
    source, target = CRS.from_user_input(crs), CRS.from_epsg(4326)
    x, y = np.array([0.0, 2e7, 1e6]), np.array([0.0, 2e7, 1e6])
    lon, lat = transform_points(source, target, x, y)
    expected = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x[[0, 2]], y[[0, 2]])
    np.testing.assert_allclose([lon[[0, 2]], lat[[0, 2]]], expected, atol=1e-9)
    assert np.isnan([lon[1], lat[1]]).all()


@pytest.mark.fault("areas", "a point off the earth ends the look at all others in a traceback")
@pytest.mark.parametrize("crs", ["ESRI:54009", "+proj=geos +h=35785831 +type=crs"])
def test_the_grid_of_a_whole_disc_is_another_one_than_that_of_degrees(tmp_path: Path, crs: str) -> None:
    pixels = np.zeros((40, 80), np.uint8)
    spread = from_origin(-18e6, 9e6, 45e4, 45e4)
    disc = write_raster(tmp_path / "disc.tif", pixels, crs=crs, transform=spread)
    spread = from_origin(-180, 90, 4.5, 4.5)
    degrees = write_raster(tmp_path / "map.tif", pixels, crs="EPSG:4326", transform=spread)
    assert not same_grid(read_info(disc), read_info(degrees))
    assert not same_grid(read_info(degrees), read_info(disc))


def test_the_base_of_a_crs_may_lack_its_type_as_proj_9_4_writes_it() -> None:
    content = CRS.from_epsg(32633).to_dict(projjson=True)
    content["base_crs"].pop("type", None)

    class Written:
        def to_dict(self, projjson: bool) -> dict[str, object]:
            return content

    surface = _EarthSurface.of(Written())  # type: ignore[arg-type]
    assert surface is not None and surface.base == CRS.from_epsg(4326)
    assert surface.radius == 6378137.0
