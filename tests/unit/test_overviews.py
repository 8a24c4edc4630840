"""Overviews of class maps show the most frequent class of the map's own pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.transform import Affine
from rio_cogeo.cogeo import cog_validate

from geo_seg.inference.products.product import SOFTWARE
from geo_seg.raster import overviews
from geo_seg.raster.cog import RasterSpec, write_cog
from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.overviews import downsample_mode, write_overviews
from geo_seg.raster.writer import RowWriter
from geo_seg.tiling import Window
from tests.conftest import write_raster

FAULT = pytest.mark.fault(
    "overviews", "[[3,3,3,3],[1,1,1,1],[1,1,1,1],[1,1,1,1]] shows 3 at 1:4, 12 of 16 are 1"
)
GROWS = pytest.mark.fault("overviews", "one valid pixel of 64 makes a block valid")
CLASSES = arrays(
    np.uint8, st.tuples(st.integers(1, 21), st.integers(1, 21)), elements=st.sampled_from([0, 1, 2, 7, 255])
)


def counted(pixels: np.ndarray, nodata: int, side: int) -> np.ndarray:
    """What squares of `side` pixels show, counted one by one."""
    rows, cols = (-(-length // side) for length in pixels.shape)
    found = np.full((rows, cols), nodata, pixels.dtype)
    for row, col in np.ndindex(rows, cols):
        square = pixels[row * side : (row + 1) * side, col * side : (col + 1) * side].ravel().tolist()
        valid = [value for value in square if value != nodata]
        if valid and len(valid) >= len(square) / 2:
            found[row, col] = max(sorted(set(valid)), key=valid.count)
    return found


@FAULT
@GROWS
@settings(max_examples=60, deadline=None)
@given(CLASSES, st.integers(1, 5))
def test_squares_show_the_most_frequent_class_or_nodata_where_less_than_half_is_valid(
    pixels: np.ndarray, levels: int
) -> None:
    found = downsample_mode(pixels, 255, levels)
    assert len(found) == levels
    for level, small in enumerate(found, 1):
        np.testing.assert_array_equal(small, counted(pixels, 255, 2**level))


@FAULT
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CLASSES, st.sampled_from([1, 2, 5]), st.sampled_from([1, 4, 8]), st.sampled_from([1, 16]))
def test_overviews_in_tiles_of_any_size_are_those_of_the_whole_raster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray, smallest: int, tile: int, cols: int
) -> None:
    monkeypatch.setattr(overviews, "_TILE_SIZE", tile)
    monkeypatch.setattr(overviews, "_CHUNK_COLS", cols)
    files = write_overviews(write_raster(tmp_path / "map.tif", pixels, nodata=255), 255, smallest)
    sizes = [-(-max(pixels.shape) // 2**level) for level in range(len(files) + 1)]
    assert sizes[-1] <= smallest < (sizes[-2] if files else np.inf)
    for level, file in enumerate(files, 1):
        with rasterio.open(file) as found:
            np.testing.assert_array_equal(found.read(1), counted(pixels, 255, 2**level))


@FAULT
@GROWS
@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 255), ("uint16", 65535)])
def test_maps_hold_these_overviews_and_are_cloud_optimized(tmp_path: Path, dtype: str, nodata: int) -> None:
    pixels = np.full((520, 2100), nodata, dtype)
    pixels[:, :1024] = np.tile(np.repeat([3, 1, 1, 1], 4).reshape(4, 4), (130, 256))
    pixels[::8, 1024:1600:8] = 2
    pixels[:, 1601:] = np.random.default_rng(0).integers(0, 4, (520, 499))
    layer = _layer(dtype, nodata)
    file = tmp_path / "map_classes.tif"
    write_cog(file, layer, _geometry(pixels), _parts(tmp_path, pixels))
    assert cog_validate(file, strict=True) == (True, [], [])
    with rasterio.open(file) as found:
        np.testing.assert_array_equal(found.read(1), pixels)
        assert found.overviews(1) == [2, 4, 8]
    for level in range(3):
        with rasterio.open(file, overview_level=level) as found:
            small = found.read(1)
            np.testing.assert_array_equal(small[: 64 >> level], counted(pixels[:128], nodata, 2 << level))
            assert found.nodata == nodata
            assert found.colormap(1)[3] == (30, 3, 0, 255)
            if level:
                assert (small[:, : 1024 >> level + 1] == 1).all()
            assert (small[:, 1024 >> level + 1 : 1600 >> level + 1] == nodata).all()


def test_small_maps_have_no_overviews(tmp_path: Path) -> None:
    pixels = np.zeros((512, 300), np.uint8)
    write_cog(tmp_path / "map_classes.tif", _layer("uint8", 255), _geometry(pixels), _parts(tmp_path, pixels))
    with rasterio.open(tmp_path / "map_classes.tif") as found:
        assert found.overviews(1) == []


def _layer(dtype: str, nodata: int) -> RasterSpec:
    colors = tuple((10 * index, index, 0) for index in range(4))
    return RasterSpec("_classes.tif", dtype, nodata, ("class",), ("a", "b", "c", "d"), colors, 1, SOFTWARE)


def _geometry(pixels: np.ndarray) -> GeoBox:
    return GeoBox(pixels.shape[1], pixels.shape[0], None, Affine.identity(), "")


def _parts(folder: Path, pixels: np.ndarray) -> list[Any]:
    """The quarters of a map as parts."""
    height, width = pixels.shape
    rows, cols = [(0, height // 3), (height // 3, height)], [(0, width // 2), (width // 2, width)]
    parts = []
    for number, ((top, end), (left, right)) in enumerate((r, c) for r in rows for c in cols):
        file = folder / f"{number}.tif"
        with RowWriter(file, (1, end - top, right - left), pixels.dtype.name) as part:
            part.append(pixels[None, top:end, left:right])
        parts.append((Window(top, left, end - top, right - left), file))
    return parts
