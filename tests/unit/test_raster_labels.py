"""Label rasters on another grid, and coloured ones: refused with both grids, or brought onto the image's."""

import signal
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform

from geo_seg.config.dataset import DatasetConfig, LabelConfig, SplitConfig
from geo_seg.data.scenes.discovery import find_scenes
from geo_seg.errors import DataError
from geo_seg.tiling import Window
from tests.conftest import draw_scene, read_window, write_raster

SIZE = (96, 80)
GRID = from_origin(500000, 5000000, 2, 2)  # of write_raster


@pytest.fixture
def config(tmp_path: Path) -> DatasetConfig:
    """Two images and masks/*.tif, which a test writes."""
    for name in ("a", "b"):
        write_raster(tmp_path / "images" / f"{name}.tif", draw_scene(0)[0])
    return DatasetConfig(
        name="rasters",
        root=str(tmp_path),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["x", "y", "z"],
        split=SplitConfig(by="pattern", val="images/b.tif"),
        cache_dir=str(tmp_path / "cache"),
    )


def write_masks(config: DatasetConfig, mask: np.ndarray, **profile: object) -> None:
    for name in ("a", "b"):
        write_raster(Path(config.root) / "masks" / f"{name}.tif", mask, **profile)


def labels(config: DatasetConfig) -> np.ndarray:
    scene = find_scenes(config, 0)["train"][0]
    return read_window(config, scene, Window(0, 0, *SIZE)).labels


@pytest.mark.parametrize(
    "profile",
    [
        {"crs": "EPSG:32634"},
        {"transform": from_origin(500001, 5000000, 2, 2)},
        {"transform": from_origin(500000, 5000000, 2.01, 2)},
        {"transform": Affine(2, 0, 500000, 0, 2, 4999808)},
        {"transform": GRID @ Affine.rotation(1)},
    ],
    ids=["CRS", "half a pixel", "pixel size", "south up", "rotated"],
)
def test_a_mask_of_the_same_size_on_another_grid_is_refused_with_both_grids(
    config: DatasetConfig, profile: dict[str, object]
) -> None:
    write_masks(config, draw_scene(0)[1], **profile)
    with pytest.raises(DataError) as found:
        find_scenes(config, 0)
    message = str(found.value)
    assert message.count("96 rows x 80 columns from (") == 2
    assert "EPSG:32633; repair the wrong one, or set dataset.label.align=reproject" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "profile",
    [
        {"crs": None, "transform": None},
        {"crs": None},
        {"transform": from_origin(500000.1, 5000000, 2, 2)},
        {"crs": CRS.from_wkt(CRS.from_epsg(32633).to_wkt(version="WKT1_ESRI"))},
    ],
    ids=["no georeference", "no CRS", "rounded", "the CRS in other words"],
)
def test_a_mask_on_the_same_grid_is_taken_as_it_is(config: DatasetConfig, profile: dict[str, object]) -> None:
    write_masks(config, draw_scene(0)[1], **profile)
    scene = find_scenes(config, 0)["train"][0]
    assert scene.mask.path == str(Path(config.root) / "masks" / "a.tif")


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3035"])
def test_a_reprojected_mask_has_the_value_below_the_centre_of_each_pixel(
    config: DatasetConfig, crs: str
) -> None:
    # a mask that covers a part of the image, in pixels of other size and origin
    x, y = transform("EPSG:32633", crs, [500020, 500130], [4999960, 4999840])
    grid = from_origin(x[0], y[0], abs(x[1] - x[0]) / 70, abs(y[1] - y[0]) / 70)
    mask = np.random.default_rng(0).integers(0, 3, (70, 70)).astype(np.uint8)
    write_masks(config, mask, crs=crs, transform=grid, nodata=0)
    config.label.align = "reproject"
    rows, cols = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    east, north = transform("EPSG:32633", crs, *(part.ravel() for part in GRID @ (cols, rows)))
    col, row = (
        np.floor(part).astype(int).reshape(SIZE) for part in ~grid @ (np.array(east), np.array(north))
    )
    inside = (row >= 0) & (row < 70) & (col >= 0) & (col < 70)
    expected = np.where(inside, mask[row.clip(0, 69), col.clip(0, 69)], 255)
    found = labels(config)
    assert 0.1 < inside.mean() < 0.9
    assert (found != expected).mean() < 0.002  # centres on the border of two pixels


def test_a_mask_without_crs_cannot_be_reprojected(config: DatasetConfig) -> None:
    write_masks(config, draw_scene(0)[1], crs=None, transform=from_origin(500010, 5000000, 2, 2))
    config.label.align = "reproject"
    with pytest.raises(DataError, match=r"a\.tif: has no CRS, so that the mask cannot be reprojected"):
        find_scenes(config, 0)


COLORS = np.array([[60, 16, 152], [132, 41, 246], [110, 193, 228], [155, 155, 155]], np.uint8)


def test_a_coloured_mask_is_read_through_the_colours_of_the_class_table(config: DatasetConfig) -> None:
    mask = np.random.default_rng(0).integers(0, 4, SIZE)
    write_masks(config, COLORS[mask].transpose(2, 0, 1))
    config.classes = [
        {"name": "building", "color": "#3C1098"},
        {"name": "land", "color": "#00ff00", "values": ["#8429F6"]},  # shown in another colour
        {"name": "road", "color": "#6ec1e4"},
    ]
    with pytest.raises(DataError, match=rf"colours of no class: '#9b9b9b' \({(mask == 3).sum()} px\)"):
        find_scenes(config, 0)
    config.ignore_values = ["#9B9B9B"]
    np.testing.assert_array_equal(labels(config), np.where(mask == 3, 255, mask))
    config.ignore_values, config.unlisted = None, "ignore"
    np.testing.assert_array_equal(labels(config), np.where(mask == 3, 255, mask))


def test_a_palette_stands_for_its_colours_only_where_the_class_table_lists_colours(
    config: DatasetConfig,
) -> None:
    mask = np.random.default_rng(0).integers(0, 4, SIZE).astype(np.uint8)
    write_masks(config, 3 - mask)
    shades = {3 - value: (*color, 255) for value, color in enumerate(COLORS.tolist())}
    for name in ("a", "b"):
        with rasterio.open(Path(config.root) / "masks" / f"{name}.tif", "r+") as target:
            target.write_colormap(1, shades)
    config.classes = ["c0", "c1", "c2", "c3"]
    np.testing.assert_array_equal(labels(config), 3 - mask)
    names = ("building", "land", "road")
    config.classes = [
        {"name": name, "values": ["#{:02x}{:02x}{:02x}".format(*color)]}
        for name, color in zip(names, COLORS.tolist(), strict=False)
    ]
    config.ignore_values = ["#9B9B9B"]
    np.testing.assert_array_equal(labels(config), np.where(mask == 3, 255, mask))


def test_the_alpha_of_a_coloured_mask_is_ignored_pixels(config: DatasetConfig) -> None:
    mask = np.random.default_rng(0).integers(0, 3, SIZE)
    alpha = np.full((1, *SIZE), 255, np.uint8)
    alpha[:, :10] = 0
    pixels = np.concatenate([COLORS[mask].transpose(2, 0, 1), alpha])
    pixels[:3, :10] = 1  # a colour of no class where nothing is drawn
    write_masks(config, pixels, photometric="rgb", alpha="yes")
    names = ("building", "land", "road")
    config.classes = [
        {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color)}
        for name, color in zip(names, COLORS, strict=False)
    ]
    found = labels(config)
    assert (found[:10] == 255).all()
    np.testing.assert_array_equal(found[10:], mask[10:])


def test_texts_as_values_need_polygons_or_colours(config: DatasetConfig) -> None:
    write_masks(config, draw_scene(0)[1])
    config.classes = ["x", {"name": "y", "values": ["lake"]}, "z"]
    with pytest.raises(DataError, match=r"the mask holds numbers, the class table has the value 'lake'"):
        find_scenes(config, 0)


def test_images_of_another_type_are_refused(config: DatasetConfig) -> None:
    write_masks(config, draw_scene(0)[1])
    write_raster(Path(config.root) / "images" / "b.tif", draw_scene(0)[0].astype(np.float32))
    with pytest.raises(DataError, match=r"images/a.tif holds uint16, images/b.tif holds float32"):
        find_scenes(config, 0)


def test_an_empty_file_is_named(config: DatasetConfig) -> None:
    write_masks(config, draw_scene(0)[1])
    (Path(config.root) / "masks" / "b.tif").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.tif: cannot be opened as a raster \(the file is empty\)"):
        find_scenes(config, 0)


def test_a_truncated_mask_that_is_reprojected_is_named(config: DatasetConfig) -> None:
    draw = np.random.default_rng(0)
    shifted = {"transform": from_origin(500010, 5000000, 2, 2), "compress": "deflate"}
    write_masks(config, draw.integers(0, 3, SIZE).astype(np.uint8), **shifted)
    path = Path(config.root) / "masks" / "a.tif"
    with rasterio.open(path) as source:
        assert source.height == SIZE[0]
    path.write_bytes(path.read_bytes()[:-400])
    config.label.align = "reproject"
    with pytest.raises(DataError, match=r"a\.tif: .*(truncated or corrupt|cannot be opened)"):
        find_scenes(config, 0)
    assert not list((Path(config.root) / "cache" / "labels").glob(".*"))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_whole_numbers_in_a_mask_of_floats_are_class_values_and_nan_is_ignored(
    config: DatasetConfig, kind: type
) -> None:
    mask = draw_scene(0)[1]
    floats = mask.astype(kind)
    floats[:9], floats[9:11], floats[11] = np.nan, np.finfo(np.float32).min, 255
    write_masks(config, floats, nodata=float(np.finfo(np.float32).min))
    found = labels(config)
    assert (found[:12] == 255).all()
    np.testing.assert_array_equal(found[12:], mask[12:])
    floats[20, 3:7], floats[30, 5] = 0.5, np.inf
    write_masks(config, floats)
    with pytest.raises(
        DataError, match=r"a\.tif: the mask holds float(32|64), and 165 px can't be class values"
    ):
        labels(config)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64])
def test_masks_of_every_integer_type_are_brought_onto_the_grid(config: DatasetConfig, kind: type) -> None:
    mask = draw_scene(0)[1]
    write_masks(config, mask.astype(kind)[:, :70])
    config.label = LabelConfig(align="reproject")
    found = labels(config)
    np.testing.assert_array_equal(found[:, :70], mask[:, :70])
    assert (found[:, 70:] == 255).all()


@pytest.mark.fault("resume", "a label that a full disk cut short is kept and read for good")
@pytest.mark.parametrize("room", [0, 600, 2000, 4000])
def test_a_label_that_the_disk_did_not_take_whole_is_not_kept(config: DatasetConfig, room: int) -> None:
    resource = pytest.importorskip("resource")  # a limit that a file system enforces, on any Unix
    mask = np.random.default_rng(0).integers(0, 3, SIZE).astype(np.float32)  # is kept as whole numbers
    write_masks(config, mask)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(DataError, match="cannot be written"):
            find_scenes(config, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    np.testing.assert_array_equal(labels(config), mask)


@pytest.mark.fault("config", "labels of uint64 end in a traceback")
@pytest.mark.parametrize("value", [2**63, 2**64 - 1])
def test_values_of_uint64_beyond_int64_are_in_no_class(config: DatasetConfig, value: int) -> None:
    mask = draw_scene(0)[1].astype(np.uint64)
    mask[3, 20:25] = value
    write_masks(config, mask)
    with pytest.raises(DataError, match=rf"a\.tif: mask values in no class: {value} \(5 px\)"):
        labels(config)
    config.unlisted = "ignore"
    found = labels(config)
    assert (found[3, 20:25] == 255).all()
    np.testing.assert_array_equal(found[4:], mask[4:])
