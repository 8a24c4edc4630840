"""Whatever a raster's type and whatever says which pixels are valid, every way of reading takes the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.class_table import build_class_table
from geo_seg.data.index import index_scenes
from geo_seg.data.scenes.discovery import open_scenes
from geo_seg.data.windows.reader import WindowReader
from geo_seg.doctor.examine import examine
from geo_seg.doctor.findings import add_findings
from geo_seg.raster.reader import RasterReader
from geo_seg.raster.validity import IMPLAUSIBLE
from geo_seg.tiling import Window
from tests.conftest import write_raster
from tests.masked_rasters import CASES, LOWEST, draw_valid, write_masked

SIZE = (40, 70)
QUICK = ("uint8", "int16", "float32")
SAMPLED = [
    pytest.param(*case, marks=() if case[0] in QUICK else pytest.mark.slow, id="-".join(case))
    for case in CASES
]
CLASSES = ["low", "high"]


def own(root: Path, **options: Any) -> DatasetConfig:
    given = {"images": "image*.tif", "masks": "mask*.tif", "classes": CLASSES, "window": 32}
    return DatasetConfig(name="own", root=str(root), cache_dir=str(root / "cache"), **{**given, **options})


def windows(config: DatasetConfig) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Valid pixels and labels of the one scene, put together from windows."""
    table, scenes = build_class_table(config), open_scenes(config)
    reader = WindowReader(scenes, index_scenes(scenes, table, config), table, config)
    valid, labels = np.zeros((64, 96), bool), np.zeros((64, 96), int)
    for row in (0, 32):
        for col in (0, 32, 64):
            found = reader.read((0, Window(row, col, 32, 32)))
            inside = slice(row, row + 32), slice(col, col + 32)
            valid[inside], labels[inside] = found.valid, found.labels
    assert not valid[SIZE[0] :].any()
    assert not valid[:, SIZE[1] :].any()
    return valid[: SIZE[0], : SIZE[1]], labels[: SIZE[0], : SIZE[1]]


@pytest.mark.fault("validity", "every type x every mask x every reading path has one answer")
@pytest.mark.parametrize(("dtype", "kind"), SAMPLED)
def test_windows_statistics_and_doctor_take_the_same_pixels_of_images_for_valid(
    tmp_path: Path, dtype: str, kind: str
) -> None:
    draw = np.random.default_rng(0)
    image = draw.integers(1, 90, (2, *SIZE))
    labels = draw.integers(0, 2, SIZE)
    valid = write_masked(tmp_path / "image.tif", image, draw_valid(*SIZE), dtype, kind)
    write_raster(tmp_path / "mask.tif", labels.astype(np.uint8))
    for cache in ("none", "memmap"):
        found, learnt = windows(own(tmp_path, cache=cache))
        np.testing.assert_array_equal(found, valid)
        np.testing.assert_array_equal(learnt, np.where(valid, labels, 255))
    examined = examine(own(tmp_path), 0)
    add_findings(examined)
    index = examined.full_index["image.tif"]
    assert index.bands.pixels == valid.sum()
    for number, band in enumerate(image):
        assert index.bands.mean[number] == pytest.approx(band[valid].mean(), rel=1e-6)
        assert np.sqrt(index.bands.m2[number] / valid.sum()) == pytest.approx(band[valid].std(), rel=1e-6)
    assert index.class_counts.classes.tolist() == [int((labels[valid] == number).sum()) for number in (0, 1)]
    strays = int((~valid).sum()) if kind == "NaN" else 0
    assert index.implausible == strays
    told = [text for text in examined.warnings if "NaN, infinity" in text]
    assert told == ([f"image.tif: {strays} px {IMPLAUSIBLE}"] if strays else [])


@pytest.mark.fault("validity", "a mask on the left half of labels: 16384 px count, right is 8192")
@pytest.mark.parametrize("align", ["error", "reproject"])
@pytest.mark.parametrize(("dtype", "kind"), SAMPLED)
def test_what_the_mask_of_a_label_raster_hides_has_no_label_on_the_same_grid_or_another(
    tmp_path: Path, dtype: str, kind: str, align: str
) -> None:
    draw = np.random.default_rng(0)
    write_raster(tmp_path / "image.tif", draw.integers(1, 90, (2, *SIZE)).astype(np.uint16))
    rows = SIZE[0] + 9 if align == "reproject" else SIZE[0]  # another grid: it goes on below the image
    labels = draw.integers(0, 2, (rows, SIZE[1]))
    if kind == "NaN":  # in labels the infinite is no class and said to be so
        valid, floats = draw_valid(*labels.shape), labels.astype(dtype)
        write_raster(tmp_path / "mask.tif", np.where(valid, floats, np.nan).astype(dtype))
    else:
        valid = write_masked(tmp_path / "mask.tif", labels[None], draw_valid(*labels.shape), dtype, kind)
    config = own(tmp_path)
    config.label.align = align
    expected = np.where(valid, labels, 255)[: SIZE[0]]
    np.testing.assert_array_equal(windows(config)[1], expected)
    index = index_scenes(open_scenes(config), build_class_table(config), config)[0]
    assert index.class_counts.classes.tolist() == [int((expected == number).sum()) for number in (0, 1)]


@pytest.mark.fault("nodata", "pixels of the float32 lowest where -3.4e38 is declared: 1600 px by GDAL")
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", 127.5), ("uint8", 0.5), ("int8", -100), ("int16", -1.5),
        ("uint16", 65535), ("int32", -9999), ("uint32", 4294967295), ("int64", -9999), ("uint64", 9999),
        *((dtype, value) for dtype in ("float32", "float64")
          for value in (-9999, 0.1, -1e-20, 123.456, 1e20, 8.9e29, -3.4e38, 9.96921e36, LOWEST, np.nan)),
        ("float64", -1.7e308),
    ],
)  # fmt: skip
def test_nodata_values_are_compared_as_gdal_does(tmp_path: Path, dtype: str, nodata: float) -> None:
    kind = np.dtype(dtype).type
    if np.dtype(dtype).kind == "f":
        steps = np.arange(-40, 41)[:, None] * 2.0**-25
        near = (kind(nodata) * (1 + steps + [-(2.0**-52), 0, 2.0**-52])).ravel()
        others = np.array([1, 0.5, -0.25, 1e29, -1e29, LOWEST, -1e37, np.nan])
        with np.errstate(over="ignore"):
            pixels = np.concatenate([near, others]).astype(kind)
        pixels = pixels[~np.isinf(pixels)]
    else:
        limits, middle = np.iinfo(kind), int(nodata)
        pixels = np.array(
            [
                limits.min,
                limits.max,
                *(v for v in range(middle - 3, middle + 4) if limits.min <= v <= limits.max),
            ],
            kind,
        )
        pixels = pixels[pixels != 0]  # which is a measurement, too: see below
    path = write_raster(tmp_path / "a.tif", pixels[None], nodata=nodata)
    with rasterio.open(path) as source:
        expected = source.read_masks(1)[0] > 0
    if np.dtype(dtype).kind == "f":  # GDAL takes them for measurements that no sensor makes
        expected &= np.abs(pixels) <= 1e30
    with RasterReader(path) as reader:
        np.testing.assert_array_equal(reader.read(Window(0, 0, 1, len(pixels)))[1][0], expected)


@pytest.mark.fault("validity", "the nodata value of labels is also that of a class")
def test_a_label_whose_nodata_value_is_that_of_a_class_counts_with_a_note(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, SIZE).astype(np.uint8)
    write_raster(tmp_path / "image.tif", labels.astype(np.uint16) + 1)
    for nodata, dtype in ((0, np.uint8), (0, np.float32), (7, np.uint8)):
        write_raster(tmp_path / "mask.tif", labels.astype(dtype), nodata=nodata)
        config = own(tmp_path)
        np.testing.assert_array_equal(windows(config)[1], labels)
        notes = open_scenes(config)[0].notes
        assert len(notes) == (nodata == 0)
        if notes:
            assert "declares 0 as nodata, which class 'low' has; such pixels are of that class" in notes[0]


@pytest.mark.fault("validity", "a mask on the left half of labels: 16384 px count, right is 8192")
@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("internal", [False, True])
def test_the_mask_of_a_label_with_a_palette_hides_its_pixels(
    tmp_path: Path, colours: bool, internal: bool
) -> None:
    labels = np.random.default_rng(0).integers(0, 2, SIZE).astype(np.uint8)
    write_raster(tmp_path / "image.tif", labels.astype(np.uint16) + 1)
    write_raster(tmp_path / "mask.tif", labels, photometric="palette")
    valid = draw_valid(*SIZE)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(tmp_path / "mask.tif", "r+") as target,
    ):
        target.write_colormap(1, {0: (10, 20, 30, 255), 1: (200, 0, 0, 255)})
        target.write_mask(valid)
    assert (tmp_path / "mask.tif.msk").exists() == (not internal)
    classes: list[Any] = [{"name": "low", "values": ["#0a141e"]}, {"name": "high", "values": ["#c80000"]}]
    config = own(tmp_path, classes=classes if colours else CLASSES)
    np.testing.assert_array_equal(windows(config)[1], np.where(valid, labels, 255))
