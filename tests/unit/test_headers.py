"""Headers are read once per file, and anew as soon as anything about it has changed."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data import headers
from geo_seg.data.cache import file_stamps
from geo_seg.data.headers import HeaderCache
from geo_seg.errors import DataError
from geo_seg.raster.reader import RasterInfo, read_info
from tests.conftest import write_raster


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the files that were really opened."""
    found: list[str] = []

    def look(path: str) -> RasterInfo:
        found.append(Path(path).name)
        return read_info(path)

    monkeypatch.setattr(headers, "read_info", look)
    return found


def own(root: Path) -> DatasetConfig:
    return DatasetConfig(
        name="own", root=str(root), images="*.tif", masks="m/*.tif", cache_dir=str(root / "cache")
    )


def start(root: Path, *names: str) -> list[RasterInfo]:
    """What a start of training does."""
    kept = HeaderCache(own(root))
    found = [kept.get(str(root / name)) for name in names]
    kept.save()
    return found


def test_a_second_start_opens_nothing_and_finds_the_same(tmp_path: Path, opened: list[str]) -> None:
    image = np.ones((3, 20, 30), np.float32)
    write_raster(tmp_path / "a.tif", image, nodata=float("nan"))
    write_raster(tmp_path / "b.tif", image.astype(np.uint8), names=["red", "", "blue"])
    write_raster(tmp_path / "c.tif", image[:1].astype(np.int16), crs=None, transform=None)
    first = start(tmp_path, "a.tif", "b.tif", "c.tif")
    written = [file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()]
    opened.clear()
    assert repr(start(tmp_path, "a.tif", "b.tif", "c.tif")) == repr(first)  # NaN is no equal of itself
    assert opened == []
    assert [file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()] == written


@pytest.mark.parametrize("beside", ["a.tif.msk", "a.tif.aux.xml", "a.tfw", "a.hdr"])
def test_a_changed_file_and_new_ones_beside_it_are_noticed(
    tmp_path: Path, opened: list[str], beside: str
) -> None:
    write_raster(tmp_path / "a.tif", np.ones((3, 20, 30), np.uint8))
    write_raster(tmp_path / "b.tif", np.ones((3, 20, 30), np.uint8))
    start(tmp_path, "a.tif", "b.tif")
    opened.clear()
    (tmp_path / beside).write_text("")
    start(tmp_path, "a.tif", "b.tif")
    assert opened == ["a.tif"]
    write_raster(tmp_path / "b.tif", np.ones((3, 25, 30), np.uint8))
    assert start(tmp_path, "a.tif", "b.tif")[1].height == 25
    assert opened == ["a.tif", "b.tif"]


def test_alpha_bands_and_palettes_are_kept_too(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.ones((4, 20, 30), np.uint8))
    with rasterio.open(tmp_path / "a.tif", "r+") as target:
        target.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    write_raster(tmp_path / "p.tif", np.ones((1, 20, 30), np.uint8))
    with rasterio.open(tmp_path / "p.tif", "r+") as target:
        target.write_colormap(1, {1: (255, 0, 0)})
    for _ in range(2):
        alpha, palette = start(tmp_path, "a.tif", "p.tif")
        assert (alpha.bands, alpha.masked, alpha.palette) == ((1, 2, 3), True, False)
        assert (palette.masked, palette.palette) == (False, True)


def test_another_data_set_of_the_same_folder_keeps_its_own_headers(tmp_path: Path, opened: list[str]) -> None:
    write_raster(tmp_path / "a.tif", np.ones((3, 20, 30), np.uint8))
    start(tmp_path, "a.tif")
    other = HeaderCache(replace(own(tmp_path), images="a*.tif"))
    other.get(str(tmp_path / "a.tif"))
    other.save()
    opened.clear()
    start(tmp_path, "a.tif")
    assert opened == []


def test_a_damaged_file_of_headers_is_read_as_none_and_replaced(tmp_path: Path, opened: list[str]) -> None:
    write_raster(tmp_path / "a.tif", np.ones((3, 20, 30), np.uint8))
    start(tmp_path, "a.tif")
    (kept,) = (tmp_path / "cache").iterdir()
    for content in (b"", b"{}", b"[[1]]", b"null", kept.read_bytes()[:-40]):
        kept.write_bytes(content)
        opened.clear()
        start(tmp_path, "a.tif")
        assert opened == ["a.tif"]
    opened.clear()
    start(tmp_path, "a.tif")
    assert opened == []


def test_a_file_that_went_away_is_an_error(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.ones((3, 20, 30), np.uint8))
    start(tmp_path, "a.tif")
    (tmp_path / "a.tif").unlink()
    with pytest.raises(DataError, match="no such file"):
        start(tmp_path, "a.tif")


def test_gdal_does_not_list_folders_and_still_finds_masks_and_world_files(tmp_path: Path) -> None:
    assert os.environ["GDAL_DISABLE_READDIR_ON_OPEN"] == "TRUE"
    write_raster(tmp_path / "a.tif", np.ones((3, 20, 30), np.uint8), crs=None, transform=None)
    (tmp_path / "a.tfw").write_text("2\n0\n0\n-2\n501\n999\n")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(tmp_path / "a.tif", "r+") as target:
        target.write_mask(np.eye(20, 30, dtype=bool))
    assert (tmp_path / "a.tif.msk").exists()
    info = read_info(tmp_path / "a.tif")
    assert info.masked
    assert info.transform == (2, 0, 500, 0, -2, 1000)


def test_the_files_that_belong_to_a_shapefile_count_too(tmp_path: Path) -> None:
    shapes = tmp_path / "fields.shp"
    shapes.write_text("outlines")
    (tmp_path / "fields.dbf").write_text("1")
    before = file_stamps([str(shapes)])
    (tmp_path / "fields.dbf").write_text("22")
    assert file_stamps([str(shapes)]) != before
