"""Rasters inside containers are named, taken by name and kept apart; what has no measurements is said."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.data.scenes.discovery import find_scenes, open_scenes
from geo_seg.errors import DataError
from geo_seg.inference.inputs import find_rasters
from geo_seg.raster.paths import container_of, display_name, relocate, subdataset
from geo_seg.tiling import Window
from tests.conftest import draw_scene, read_window, write_raster
from tests.end_to_end.test_inference import LIMIT, draw, predict, read, threshold

SIZE = (96, 80)


def one_band() -> Any:
    return threshold(mean=[0.0], std=[1.0], band_names=["1"])


def write_netcdf(path: Path, pixels: np.ndarray) -> Path:
    """A netCDF with the variables Band1, Band2 ..."""
    plain = write_raster(path.with_suffix(".plain.tif"), pixels)
    rasterio.shutil.copy(plain, path, driver="netCDF")
    plain.unlink()
    return path


@pytest.mark.parametrize(
    ("name", "path", "called"),
    [
        ('NETCDF:"a b.nc":red', "a b.nc", "a b_red"),
        ("netcdf:x/a.nc:red", "x/a.nc", "a_red"),
        ('NETCDF:"/vsicurl/https://h/a.nc":red', "/vsicurl/https://h/a.nc", "a_red"),
        ('HDF5:"a.h5"://group/red', "a.h5", "a_group_red"),
        ("HDF5:a.h5://red", "a.h5", "a_red"),
        ('ZARR:"/d/a.zarr":/red', "/d/a.zarr", "a_red"),
        ("GTIFF_DIR:2:a.tif", "a.tif", "a_2"),
        ('HDF4_EOS:EOS_GRID:"a.hdf":grid:red', "a.hdf", "a_EOS_GRID_grid_red"),
        ("SENTINEL2_L2A:x/MTD.xml:10m:EPSG_32632", "x/MTD.xml", "MTD_10m_EPSG_32632"),
        ("NETCDF:x/*.nc:red", "x/*.nc", "*_red"),
    ],
)
def test_gdals_names_of_rasters_in_containers_have_a_path_in_them(name: str, path: str, called: str) -> None:
    assert (container_of(name), display_name(name)) == (path, called)
    assert container_of(relocate(name, "/other/b.x")) == "/other/b.x"


@pytest.mark.parametrize(
    "name",
    [
        "a.tif",
        "x/a.tif",
        "C:\\x\\a.tif",
        "https://h/a.tif",
        "s3://b/a.tif",
        "vrt://a.tif?bands=1",
        "scene:1.tif",
    ],
)
def test_paths_and_addresses_are_no_names_of_that_kind(name: str) -> None:
    assert subdataset(name) is None
    assert container_of(name) == name


@pytest.mark.fault("containers", "netCDF of two variables: traceback, and the other inputs stop, too")
def test_a_container_without_bands_is_said_with_what_it_holds_and_the_others_are_mapped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = draw((1, *SIZE))
    write_raster(tmp_path / "good.tif", image)
    path = write_netcdf(tmp_path / "two.nc", draw((2, *SIZE)).astype(np.int16))
    given = [str(path), str(tmp_path / "good.tif")]
    with pytest.raises(DataError, match="1 of 2 rasters were not mapped"):
        predict(given, tmp_path / "out", one_band())
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "two.nc" in line]
    assert (
        f"holds no band of its own; name what is meant of its netcdf:{path}:Band1, netcdf:{path}:Band2"
        in said
    )
    np.testing.assert_array_equal(read(tmp_path / "out" / "good_classes.tif")[0], image[0] > LIMIT)


@pytest.mark.fault("containers", "netCDF of two variables: traceback, and the other inputs stop, too")
@pytest.mark.parametrize(
    ("given", "maps"),
    [
        ('NETCDF:"{}/two.nc":Band2', ["two_Band2"]),
        ("NETCDF:{}/two.nc:Band2", ["two_Band2"]),
        ("NETCDF:{}/t*.nc:Band2", ["two_Band2"]),
        ("GTIFF_DIR:2:{}/pages.tif", ["pages_2"]),
        ('ZARR:"{}/whole.zarr":/whole', ["whole_whole"]),
        ("{}/whole.zarr", ["whole"]),
        (["{}/whole.zarr", "{}/plain.tif"], ["whole", "plain"]),
        ("{}/*.zarr", ["whole"]),
        ("{}", ["pages", "plain", "whole"]),
    ],
)
def test_subdatasets_and_folders_that_are_rasters_are_mapped_by_name_and_glob(
    tmp_path: Path, given: Any, maps: list[str]
) -> None:
    root = tmp_path / "in"
    image = draw((2, *SIZE)).astype(np.int16)
    write_netcdf(root / "two.nc", image) if root.mkdir() is None else None
    write_raster(root / "pages.tif", image[:1])
    write_raster(root / "pages.tif", image[1:], APPEND_SUBDATASET="YES")
    write_raster(root / "plain.tif", image[1:])
    rasterio.shutil.copy(root / "plain.tif", root / "whole.zarr", driver="Zarr")
    patterns = [pattern.format(root) for pattern in ([given] if isinstance(given, str) else given)]
    found = find_rasters(patterns, tmp_path / "out")
    assert list(found) == maps
    predict(patterns, tmp_path / "out", one_band())
    for name in maps:
        band = 0 if name == "pages" else 1  # a plain path is the first of its pages
        np.testing.assert_array_equal(read(tmp_path / "out" / f"{name}_classes.tif")[0], image[band] > LIMIT)


def test_a_folder_of_a_list_that_holds_no_raster_is_an_error(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", draw((1, *SIZE)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no raster found"):
        find_rasters([str(tmp_path / "a.tif"), str(tmp_path / "empty")], tmp_path / "out")


def own(root: Path, **options: Any) -> DatasetConfig:
    given = {"masks": "masks/*.tif", "classes": ["low", "middle", "high"], "window": 32, **options}
    return DatasetConfig(
        name="own",
        root=str(root),
        split=SplitConfig(by="pattern", val="*b.*"),
        cache_dir=str(root / "cache"),
        **given,
    )


@pytest.mark.fault("containers", "NETCDF:..., Zarr folders are refused though GDAL opens them")
@pytest.mark.parametrize("way", ["globs", "manifest", "Zarr folders"])
def test_data_sets_take_subdatasets_and_raster_folders(tmp_path: Path, way: str) -> None:
    images = {}
    (tmp_path / "images").mkdir()
    for seed, name in enumerate("ab"):
        image, mask = draw_scene(seed)
        images[name] = image.astype(np.int16)
        write_netcdf(tmp_path / "images" / f"{name}.nc", images[name])
        write_raster(tmp_path / "plain.tif", images[name])
        rasterio.shutil.copy(tmp_path / "plain.tif", tmp_path / "images" / f"{name}.zarr", driver="Zarr")
        write_raster(tmp_path / "masks" / f"{name}.tif", mask)
    rows = [f"NETCDF:images/{n}.nc:Band1;NETCDF:images/{n}.nc:Band2,masks/{n}.tif" for n in "ab"]
    (tmp_path / "scenes.csv").write_text("\n".join(["image,label", *rows]))
    config = {
        "globs": own(tmp_path, images=["NETCDF:images/*.nc:Band1", 'NETCDF:"images/*.nc":Band2']),
        "manifest": own(tmp_path, manifest="scenes.csv", images=None, masks=None),
        "Zarr folders": own(tmp_path, images="images/*.zarr"),
    }[way]
    scenes = open_scenes(config)
    assert [scene.name.rpartition("images/")[2][0] for scene in scenes] == ["a", "b"]
    for scene, name in zip(scenes, "ab", strict=True):
        found = read_window(config, scene, Window(0, 0, *SIZE))
        np.testing.assert_array_equal(found.image, images[name])
    changed = images["a"] + 1
    if way == "Zarr folders":
        write_raster(tmp_path / "plain.tif", changed)
        shutil.rmtree(tmp_path / "images" / "a.zarr")
        rasterio.shutil.copy(tmp_path / "plain.tif", tmp_path / "images" / "a.zarr", driver="Zarr")
    else:
        write_netcdf(tmp_path / "images" / "a.nc", changed)
        os.utime(tmp_path / "images" / "a.nc", ns=(1, 1))
    found = read_window(config, open_scenes(config)[0], Window(0, 0, *SIZE))
    np.testing.assert_array_equal(found.image, changed)


@pytest.mark.fault("containers", "a manifest's subdataset outside of the root")
@pytest.mark.parametrize(
    "name", ["NETCDF:{}/a.nc:Band1", 'NETCDF:"../a.nc":Band1', "NETCDF:/vsicurl/http.x/a.nc:v"]
)
def test_subdatasets_outside_of_the_root_are_refused_like_files(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write_netcdf(tmp_path / "a.nc", draw((2, *SIZE)).astype(np.int16))
    (root / "scenes.csv").write_text(f"image,label\n{name.format(tmp_path)},a.tif\n")
    with pytest.raises(DataError, match=r"is not below dataset\.root="):
        find_scenes(own(root, manifest="scenes.csv", images=None, masks=None), 0)


@pytest.mark.fault("validity", "palette images read as numbers of entries, complex ones without a part")
@pytest.mark.parametrize("kind", ["palette", "complex64", "complex128", "complex_int16"])
def test_images_of_palettes_and_complex_numbers_are_refused_in_training_and_inference(
    tmp_path: Path, kind: str
) -> None:
    mask = draw_scene(0)[1]
    for name in ("a", "b"):
        path = tmp_path / "images" / f"{name}.tif"
        if kind == "palette":
            write_raster(path, mask, photometric="palette")
            with rasterio.open(path, "r+") as target:
                target.write_colormap(1, {0: (10, 20, 30, 255), 1: (200, 0, 0, 255)})
        else:
            write_raster(path, mask.astype(np.complex64), dtype=kind)
        write_raster(tmp_path / "masks" / f"{name}.tif", mask)
    message = (
        r"numbers of the colours of a palette" if kind == "palette" else rf"holds complex numbers \({kind}\)"
    )
    with pytest.raises(DataError, match=message):
        find_scenes(own(tmp_path, images="images/*.tif"), 0)
    with pytest.raises(DataError, match=message):
        predict(tmp_path / "images" / "a.tif", tmp_path / "out", one_band())
    if kind != "palette":  # of labels, a palette is the colours that classes are shown in
        with pytest.raises(DataError, match=message):
            find_scenes(own(tmp_path, images="masks/*.tif", masks="images/*.tif"), 0)
