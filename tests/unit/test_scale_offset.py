"""Scenes whose files or STAC items declare another scale or offset are told of, with the values."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.scales import common_scale, describe_scales
from geo_seg.data.scenes.discovery import find_scenes
from geo_seg.doctor.examine import examine
from geo_seg.doctor.findings import add_findings
from tests.conftest import draw_scene, write_raster

SCALES = "scenes differ in scale and offset, as Sentinel-2 before and after baseline 04.00"


def place(number: int) -> dict[str, Any]:
    return {"transform": from_origin(500000 + 1000 * number, 5000000, 2, 2)}


def declare(path: Path, scales: tuple[float, ...], offsets: tuple[float, ...]) -> None:
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets = scales, offsets


@pytest.fixture
def config(tmp_path: Path) -> DatasetConfig:
    """Three scenes; the second holds v + 1000, as its offset says."""
    for number in range(3):
        image, mask = draw_scene(number)
        later = number == 1
        path = write_raster(
            tmp_path / "images" / f"s{number}.tif", image + np.uint16(1000 * later), **place(number)
        )
        declare(path, (1e-4, 1e-4), (-0.1, -0.1) if later else (0.0, 0.0))
        write_raster(tmp_path / "masks" / f"s{number}.tif", mask, **place(number))
    return DatasetConfig(
        name="scales",
        root=str(tmp_path),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["x", "y", "z"],
        split=SplitConfig(by="pattern", val="*s2*"),
        window=32,
        cache_dir=str(tmp_path / "cache"),
    )


@pytest.mark.fault("radiometry", SCALES)
@pytest.mark.parametrize("source", ["files", "bands", "items", "items as before"])
def test_scenes_that_differ_are_told_of_with_the_values(config: DatasetConfig, source: str) -> None:
    root = Path(config.root)
    if source == "bands":  # a file for each band
        for number in range(3):
            for band in (0, 1):
                path = write_raster(
                    root / "split" / f"s{number}_{band}.tif", draw_scene(number)[0][band], **place(number)
                )
                declare(path, (1e-4,), (-0.1 if number == 1 else 0.0,))
        config.images = ["split/*_0.tif", "split/*_1.tif"]
    elif source.startswith("items"):  # that declare what files don't
        for number in range(3):
            values = {"scale": 1e-4, "offset": -0.1 if number == 1 else 0}
            said: dict[str, Any] = {"raster:bands": [values]}
            if source == "items":
                said = {"bands": [{f"raster:{key}": value for key, value in values.items()}]}
            assets = {}
            for band in (0, 1):
                write_raster(
                    root / "plain" / f"s{number}_{band}.tif", draw_scene(number)[0][band], **place(number)
                )
                assets[f"b{band}"] = {"href": f"plain/s{number}_{band}.tif", "roles": ["data"], **said}
            (root / f"s{number}.json").write_text(json.dumps({"type": "Feature", "assets": assets}))
        config.images = "*.json"
    scenes = [scene for found in find_scenes(config, 0).values() for scene in found]
    [line] = describe_scales(scenes)
    names = {"files": "images/s{}.tif", "bands": "split/s{}_0.tif"}.get(source, "s{}.json")
    assert f"scale 0.0001 and offset 0 in {names.format(0)} and 1 more" in line
    assert f"scale 0.0001 and offset -0.1 in {names.format(1)};" in line
    assert common_scale(scenes) is None
    assert common_scale([scenes[0], scenes[2]]) == [[1e-4, 0.0], [1e-4, 0.0]]
    found = examine(config, 0)
    add_findings(found)
    assert line in found.problems


@pytest.mark.fault("radiometry", SCALES)
@pytest.mark.parametrize(
    ("scales", "offsets", "text"),
    [
        ((1.0, 1.0), (0.0, 0.0), "none in"),
        ((1e-4, 2e-4), (-0.1, 0.5), "scale 0.0001, 0.0002 and offset -0.1, 0.5"),
    ],
)
def test_files_without_any_and_bands_that_differ_are_told_as_they_are(
    config: DatasetConfig, scales: tuple[float, ...], offsets: tuple[float, ...], text: str
) -> None:
    declare(Path(config.root) / "images" / "s1.tif", scales, offsets)
    [line] = describe_scales(SceneDataModule(config, 0).whole[0])
    assert text in line


@pytest.mark.fault("radiometry", SCALES)
def test_scenes_that_agree_about_the_bands_that_are_read_say_nothing(config: DatasetConfig) -> None:
    declare(Path(config.root) / "images" / "s1.tif", (1e-4, 3.0), (0.0, 9.0))
    config.bands = [1]
    assert list(describe_scales(SceneDataModule(config, 0).whole[0])) == []
