"""Holes that no file declares are found by distance and repetition; measurements are left alone."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin
from rich.console import Console
from torch import nn

from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.undeclared_nodata import describe_dark_borders, describe_undeclared_nodata
from geo_seg.doctor.examine import examine
from geo_seg.doctor.findings import add_findings
from geo_seg.models.layers import PadToStride
from geo_seg.training.run_summary import print_run_summary
from tests.conftest import draw_scene, write_raster

HOLES = "200 px of -9999, -32768 or 1e20 in one band, undeclared, and training says nothing"
MEASURED = "what is far or often there, and is a measurement, isn't called a hole"


def write(root: Path, number: int, image: np.ndarray, **profile: object) -> None:
    place = {"transform": from_origin(500000 + 1000 * number, 5000000, 2, 2)}
    write_raster(root / "images" / f"s{number}.tif", image, **{**place, **profile})
    write_raster(root / "masks" / f"s{number}.tif", draw_scene(number)[1], **place)


def image(number: int, kind: str) -> np.ndarray:
    drawn = draw_scene(number)[0]
    drawn[:, :, :7] = drawn[:, :, 7:14]  # its strip of nodata
    return drawn.astype(kind)


@pytest.fixture
def config(tmp_path: Path) -> DatasetConfig:
    return DatasetConfig(
        name="holes",
        root=str(tmp_path),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["x", "y", "z"],
        split=SplitConfig(by="pattern", val="images/s2.tif"),
        window=32,
        cache_dir=str(tmp_path / "cache"),
    )


def lines(config: DatasetConfig) -> list[str]:
    return list(describe_undeclared_nodata(*SceneDataModule(config, 0).whole, config))


@pytest.mark.fault("nodata", HOLES)
@pytest.mark.parametrize(
    ("kind", "value", "pixels", "text"),
    [
        ("int16", -9999, 200, "-9999"),
        ("int16", -32768, 200, "-32768"),
        ("int16", -999, 4000, "-999"),
        ("uint16", 65535, 10, "65535"),
        ("int32", -2147483648, 200, "-2147483648"),
        ("float32", 1e20, 200, "1.0000000200408773e+20"),
        ("float32", -1e9, 1, "-1000000000"),  # one pixel, but none that could be measured
        ("float64", 1.5e15, 200, "1.5e15"),
        ("float32", -9999, 2000, "-9999"),
    ],
)
def test_a_hole_is_told_with_band_scene_value_share_and_remedy(
    config: DatasetConfig, kind: str, value: float, pixels: int, text: str
) -> None:
    for number in range(3):
        pixel_values = image(number, kind)
        if number == 1:
            pixel_values[1].flat[:pixels] = value
        write(Path(config.root), number, pixel_values)
    text = repr(float(text)) if "." in text else text
    share = pixels / (96 * 80)
    assert lines(config) == [
        f"images/s1.tif: band 2: {text} in {pixels} px ({share:.2%}), far from all other values and not "
        f"declared as nodata; dataset.nodata={text} makes them nodata"
    ]
    clean = np.concatenate([image(0, kind)[1].ravel(), image(1, kind)[1].ravel()[pixels:]]).astype(float)
    mended = replace(config, nodata=float(text))
    assert lines(mended) == []
    std = SceneDataModule(mended, 0).bands.std[1]
    np.testing.assert_allclose(std, clean.std(), rtol=1e-5)


@pytest.mark.fault("nodata", HOLES)
def test_holes_of_several_bands_and_scenes_are_one_line_and_other_declarations_are_respected(
    config: DatasetConfig,
) -> None:
    for number in range(3):
        values = image(number, "int16")
        values[:, number, :] = -9999
        write(Path(config.root), number, values, nodata=0)
    [line] = lines(config)
    assert line.startswith("images/s0.tif and 2 more: bands 1, 2: -9999 in 240 px (1.04%)")
    assert line.endswith("dataset.nodata=-9999 makes them nodata, instead of 0 that files declare")
    [line] = lines(replace(config, nodata=5))
    assert line.endswith("dataset.nodata=5 is set already, so declare it in the files")


@pytest.mark.fault("nodata", MEASURED)
@pytest.mark.parametrize(
    "case", ["saturated", "tail", "classes", "dark", "steps", "flat", "zero", "one bright"]
)
def test_measurements_are_no_holes(config: DatasetConfig, case: str) -> None:
    draw = np.random.default_rng(0)
    for number in range(3):
        values = draw.normal(120, 30, (2, 96, 80)).clip(1, 254)
        if case == "saturated":  # a roof in the sun, and all that lies between
            values[0, :3] = 255
            values[0, 3:6] = np.linspace(200, 255, 80)
        elif case == "tail":  # radar: no two values are the same
            values = draw.lognormal(0, 3, (2, 96, 80)).astype(np.float32)
        elif case == "classes":
            values[1] = draw.choice([0, 1, 2, 20], (96, 80))
        elif case == "dark":  # one scene of little contrast
            values = values if number else draw.normal(40, 1, values.shape)
            values[:, :2] = 90 if number == 0 else values[:, :2]
        elif case == "steps":
            values = np.round(values / 40) * 40
        elif case == "flat":
            values[:] = 7
        elif case == "zero":
            values[0, :9, :20] = 0
        else:
            values[0, 0, 0] = 20000
        kind = np.float32 if case == "tail" else np.uint16
        write(Path(config.root), number, values.astype(kind))
    assert lines(config) == []


@pytest.mark.fault("nodata", HOLES)
def test_training_says_it_before_the_first_step_and_the_doctor_finds_it(config: DatasetConfig) -> None:
    for number in range(3):
        values = image(number, "int16")
        values[1, 0, :50] = -9999 if number == 0 else values[1, 1, :50]
        values[:, 40:50] = 0 if number == 1 else values[:, 40:50]
        write(Path(config.root), number, values)
    said = Console(record=True, width=500, file=io.StringIO())
    data = SceneDataModule(config, 0)
    parts = PadToStride(nn.Conv2d(1, 1, 1)), nn.Identity()
    print_run_summary(
        said,
        TrainConfig(model={"name": "m", "encoder": "e"}, loss={"name": "l"}, dataset=config),
        data,
        *parts,
        Path("run"),
    )
    text = said.export_text()
    hole = "images/s0.tif: band 2: -9999 in 50 px (0.65%), far from all other values"
    border = "images/s1.tif: all bands are 0 in 5 % of the pixels or more"
    assert f"note: {hole}" in text
    assert f"note: {border}" in text
    found = examine(config, 0)
    add_findings(found)
    assert [line[: len(hole)] for line in found.problems] == [hole]
    assert [line.startswith(border) for line in found.warnings].count(True) == 1
    assert list(describe_dark_borders(*data.whole, replace(config, zero_is_nodata=True))) == []
