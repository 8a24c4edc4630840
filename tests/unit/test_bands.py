"""Names of bands: what they mean, which band is the one wanted, and one order in all scenes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.scenes.discovery import find_scenes
from geo_seg.doctor.examine import examine
from geo_seg.doctor.findings import add_findings
from geo_seg.errors import DataError
from geo_seg.raster.band_names import assign_bands, match_bands
from geo_seg.tiling import Window
from tests.conftest import draw_scene, read_window, write_raster

BGRN = ("blue", "green", "red", "nir")
MIXED = "scenes with the same bands in another order are mixed"


@pytest.mark.fault("bands", "one band name that doesn't match makes all of them go by number")
@pytest.mark.parametrize(
    ("wanted", "names", "places"),
    [
        (BGRN, ("red", "green", "blue", "nir08"), (2, 1, 0, 3)),
        (BGRN, ("B08", "B04", "B03", "B02"), (3, 2, 1, 0)),  # Sentinel-2, SAFE and STAC
        (BGRN, ("B8", "B4", "B3", "B2"), (3, 2, 1, 0)),  # Sentinel-2, Earth Engine
        (BGRN, ("B4, central wavelength 665 nm", "B3", "B2", "B8"), (2, 1, 0, 3)),  # Sentinel-2, GDAL
        (BGRN, ("SR_B5", "SR_B4", "SR_B3", "SR_B2"), (3, 2, 1, 0)),  # Landsat 8 and 9
        (BGRN, ("TM_B4", "TM_B3", "TM_B2", "TM_B1"), (3, 2, 1, 0)),  # Landsat 4 and 5
        (BGRN, ("B05", "B04", "B03", "B02"), (3, 2, 1, 0)),  # Landsat, harmonized
        (
            BGRN,
            ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
            (1, 3, 5, 7),
        ),  # PlanetScope
        (BGRN, ("Red (660 Nanometers)", "NIR (840 nm)", "Green (550)", "Blue"), (3, 2, 0, 1)),
        (BGRN, ("Near-Infrared", "R", "G", "B"), (3, 2, 1, 0)),
        (BGRN, ("B04 - Red", "B03 - Green", "B02 - Blue", "B8A - Narrow NIR"), (2, 1, 0, 3)),
        (("B04", "B03", "B02", "B8A"), ("nir", "red", "green", "blue"), (1, 2, 3, 0)),
        (("red", "nir"), ("nir08", "nir", "red"), (2, 1)),  # the same name goes before a kindred one
        (("Red", "red", "x"), ("X", "RED"), (1, 1, 0)),
        (("rededge", "red"), ("B05", "B06", "B8A", "B04"), (None, 3)),  # either of two
        (("red", "green"), ("red", "red"), (None, None)),
        (("red", "nir"), ("B2", "B3", "B4", "B8"), (None, None)),  # of Landsat 7 or of Sentinel-2?
        (BGRN, ("b1", "b2", "b3", "b4"), (None,) * 4),  # only counted
        (BGRN, ("Band 1", "Band 2", "", "x"), (None,) * 4),
        (("", "red"), ("", "red"), (None, 1)),
    ],
)
def test_a_band_is_found_by_the_meaning_of_its_name(
    wanted: tuple[str, ...], names: tuple[str, ...], places: tuple[int | None, ...]
) -> None:
    assert match_bands(wanted, names) == places


@pytest.mark.fault("bands", "names that contradict the order are passed over")
@pytest.mark.parametrize(
    ("wanted", "names", "message"),
    [
        (BGRN, ("blue", "green", "red", "swir16"), "nir would be band 4, which is swir16"),
        (BGRN, ("red", "", "", ""), "blue would be band 1, which is red"),
        (("red", "nir"), ("B2", "B3"), "red would be band 1, which is B2"),  # of no sensor
        (("blue", "", "nir"), ("red", "nir", "blue"), "without a name would be band 2, which is nir"),
    ],
)
def test_names_that_contradict_the_order_are_refused(
    wanted: tuple[str, ...], names: tuple[str, ...], message: str
) -> None:
    numbers = range(1, len(wanted) + 1)
    with pytest.raises(DataError, match=message):
        assign_bands("a.tif", wanted, numbers, dict(enumerate(names, 1)))


def test_what_no_name_tells_is_taken_by_number_and_listed() -> None:
    found = assign_bands("a.tif", BGRN, (1, 2, 3, 4), {1: "red", 2: "B03", 3: "blue", 4: "mean"})
    assert found == ((3, 2, 1, 4), (("green", "B03"),), (("nir", 4),))


@pytest.fixture
def config(tmp_path: Path) -> DatasetConfig:
    """Three scenes of red and blue; those of the second have them the other way round."""
    for seed, names in enumerate((("red", "blue"), ("B02", "B04"), ("Red", "Blue"))):
        image, mask = draw_scene(seed)
        place = {"transform": from_origin(500000 + 1000 * seed, 5000000, 2, 2)}
        pixels = image[::-1] if names == ("B02", "B04") else image
        path = write_raster(tmp_path / "images" / f"s{seed}.tif", pixels, nodata=0, **place)
        name(path, names)
        write_raster(tmp_path / "masks" / f"s{seed}.tif", mask, **place)
    return DatasetConfig(
        name="mixed",
        root=str(tmp_path),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["x", "y", "z"],
        split=SplitConfig(by="pattern", val="images/s2.tif"),
        window=32,
        cache_dir=str(tmp_path / "cache"),
    )


def name(path: Path, names: tuple[str, ...]) -> None:
    with rasterio.open(path, "r+") as target:
        target.descriptions = names


@pytest.mark.fault("bands", MIXED)
@pytest.mark.parametrize("bands", [None, ["red", "blue"], ["B04", "B02"]])
def test_scenes_with_bands_in_another_order_are_read_by_name(
    config: DatasetConfig, bands: list[str] | None
) -> None:
    config.bands = bands
    data = SceneDataModule(config, 0)
    for scene in data.scenes["train"]:
        image = draw_scene(int(scene.name[-5]))[0]
        np.testing.assert_array_equal(read_window(config, scene, Window(0, 0, 96, 80)).image, image)
    seen = np.concatenate([draw_scene(seed)[0][:, :, 7:].reshape(2, -1) for seed in (0, 1)], axis=1)
    np.testing.assert_allclose(data.bands.std, seen.std(axis=1))
    assert data.band_names == ["red", "blue"]
    notes = data.scenes["train"][1].notes
    assert ["in another order than those of images/s0.tif" in note for note in notes] == [True] * (not bands)


@pytest.mark.fault("bands", MIXED)
def test_the_doctor_tells_of_scenes_with_bands_in_another_order(config: DatasetConfig) -> None:
    found = examine(config, 0)
    add_findings(found)
    assert "images/s1.tif: its bands are in another order than those of images/s0.tif" in found.warnings[0]
    assert found.problems == []


@pytest.mark.fault("bands", MIXED)
@pytest.mark.parametrize(
    ("bands", "names", "message"),
    [
        ([1, 2], ("B02", "B04"), r"s1.tif: dataset.bands=\[1,2\] gives B02, B04, another order"),
        ([2, 1], ("B02", "B04"), r"s1.tif: dataset.bands=\[2,1\] gives B04, B02, another order"),
        (None, ("red", "nir"), "s1.tif: names contradict the order of its bands: blue would be band 2"),
        (None, ("", "red"), "s1.tif: names contradict the order of its bands: blue would be band 2"),
    ],
)
def test_scenes_whose_bands_cannot_be_brought_into_one_order_are_refused(
    config: DatasetConfig, bands: list[int] | None, names: tuple[str, str], message: str
) -> None:
    name(Path(config.root) / "images" / "s1.tif", names)
    with pytest.raises(DataError, match=message):
        find_scenes(replace(config, bands=bands), 0)


@pytest.mark.fault("bands", MIXED)
@pytest.mark.parametrize("names", [("", ""), ("Band 1", "Band 2"), ("2021", "2022"), ("", "blue")])
def test_scenes_whose_names_say_nothing_are_read_by_number_with_a_note(
    config: DatasetConfig, names: tuple[str, str]
) -> None:
    name(Path(config.root) / "images" / "s1.tif", names)
    scene = find_scenes(config, 0)["train"][1]
    assert scene.bands == (1, 2)
    listed = "red = 1" + ("" if names[1] == "blue" else ", blue = 2")
    assert scene.notes == (f"bands taken by number, for no name says which they are: {listed}",)


@pytest.mark.fault("bands", "a model of named bands is tested on scenes in another order")
def test_scenes_are_read_in_the_order_of_a_model_that_is_there(config: DatasetConfig) -> None:
    found = find_scenes(config, 0, names=("blue", "red"))
    assert [scene.bands for scene in found["train"]] == [(2, 1), (1, 2)]
    with pytest.raises(DataError, match="names contradict the order"):
        find_scenes(config, 0, names=("blue", "nir"))


@pytest.mark.fault("bands", "two bands of the same name: the last one is taken")
def test_a_name_that_two_bands_have_is_refused(config: DatasetConfig) -> None:
    name(Path(config.root) / "images" / "s0.tif", ("red", "red"))
    with pytest.raises(DataError, match="no band 'red'"):
        find_scenes(replace(config, bands=["red"]), 0)
