"""STAC items and remote rasters give the map that the same pixels on disk give."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from geo_seg.errors import DataError
from tests.conftest import write_raster
from tests.end_to_end.test_inference import LIMIT, draw, predict, read, threshold
from tests.unit import file_server


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a server of the test's folder."""
    command = [sys.executable, str(Path(file_server.__file__)), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.terminate()


def write_item(folder: Path, hrefs: dict[str, str]) -> Path:
    common = {"B04": "red", "B08": "nir", "B02": "blue"}
    assets = {
        key: {"href": href, "roles": ["data"], "eo:bands": [{"name": key, "common_name": common[key]}]}
        for key, href in hrefs.items()
    }
    assets["thumbnail"] = {"href": "nowhere.png", "roles": ["thumbnail"]}
    item = folder / "place.json"
    item.write_text(json.dumps({"type": "Feature", "assets": assets}))
    return item


def test_the_assets_of_a_stac_item_are_the_bands_of_those_names_from_disk_and_remote(
    tmp_path: Path, address: str
) -> None:
    image = draw((3, 90, 130))
    for key, band in zip(("B02", "B04", "B08"), image, strict=True):
        write_raster(tmp_path / f"{key}.tif", band, compress="deflate")
    (tmp_path / "items").mkdir()
    item = write_item(
        tmp_path / "items", {"B02": "../B02.tif", "B04": "./../B04.tif", "B08": f"{address}/B08.tif"}
    )
    for number, path in enumerate((item, f"{address}/items/place.json")):
        folder = tmp_path / f"maps{number}"
        predict(path, folder, threshold(band_names=["nir", "red"]))
        np.testing.assert_array_equal(read(folder / "place_classes.tif")[0], image[2] > LIMIT)
    with (
        rasterio.open(tmp_path / "maps1" / "place_classes.tif") as found,
        rasterio.open(tmp_path / "B04.tif") as b,
    ):
        assert (found.crs, found.transform) == (b.crs, b.transform)
    with pytest.raises(DataError, match="no band 'swir' among its assets"):
        predict(item, tmp_path / "maps", threshold(band_names=["nir", "swir"]))
    with pytest.raises(DataError, match="has 3 bands in its assets, the model takes 2 bands without names"):
        predict(item, tmp_path / "maps", threshold())
    for name, content in (
        ("gone", None),
        ("empty", "{}"),
        ("plain", '{"type": "Feature", "properties": {}}'),
    ):
        if content:
            (tmp_path / f"{name}.json").write_text(content)
        with pytest.raises(DataError, match=rf"{name}\.json: (cannot be read as|not) a STAC item"):
            predict(f"{address}/{name}.json", tmp_path / "maps", threshold())


@pytest.mark.fault("bands", "one band name that doesn't match makes all of them go by number")
@pytest.mark.parametrize(
    ("names", "place", "note"),
    [
        (("red", "green", "blue", "nir08"), 2, "matched by other names than in training: nir = nir08"),
        (("B08", "B04", "B03", "B02"), 3, "blue = B02, green = B03, red = B04, nir = B08"),
        (("SR_B4", "SR_B3", "SR_B2", "SR_B5"), 2, "blue = SR_B2"),
        (("nir (840 Nanometers)", "blue (490 Nanometers)", "", ""), None, "contradict the order"),
        (("blue", "mean", "red", "nir"), 0, "matched by number, as they have no known names: green = 2"),
        (("", "", "", ""), 0, "no known names: blue = 1, green = 2, red = 3, nir = 4"),
        (("Blue", "Green", "Red", "NIR"), 0, ""),
        (("Swir1", "green", "red", "nir"), None, "blue would be band 1, which is Swir1"),
    ],
)
def test_bands_are_found_by_what_their_names_mean_and_notes_say_what_was_taken_for_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], place: int | None, note: str
) -> None:
    image = draw((4, 40, 50))
    path = write_raster(tmp_path / "image.tif", image)
    with rasterio.open(path, "r+") as target:
        target.descriptions = names
    model = threshold(band_names=["blue", "green", "red", "nir"], mean=[0.0] * 4, std=[1.0] * 4)
    if place is None:
        with pytest.raises(DataError, match=note):
            predict(path, tmp_path / "maps", model)
        return
    predict(path, tmp_path / "maps", model)
    np.testing.assert_array_equal(read(tmp_path / "maps" / "image_classes.tif")[0], image[place] > LIMIT)
    said = capsys.readouterr().out
    assert note in said
    assert ("note: " in said) == bool(note)


@pytest.mark.fault("bands", "one band name that doesn't match makes all of them go by number")
def test_the_assets_of_a_stac_item_are_found_by_what_their_names_mean(tmp_path: Path) -> None:
    image = draw((3, 40, 50))
    for key, band in zip(("B02", "B04", "B08"), image, strict=True):
        write_raster(tmp_path / f"{key}.tif", band)
    assets = {key: {"href": f"{key}.tif", "roles": ["data"]} for key in ("B08", "B02", "B04")}
    (tmp_path / "place.json").write_text(json.dumps({"type": "Feature", "assets": assets}))
    predict(tmp_path / "place.json", tmp_path / "maps", threshold(band_names=["red", "nir"]))
    np.testing.assert_array_equal(read(tmp_path / "maps" / "place_classes.tif")[0], image[1] > LIMIT)


@pytest.mark.fault("bands", "several bands in one asset of a STAC item are refused")
@pytest.mark.parametrize("names", [["red", "nir"], ["nir", "red"], ["Red", "n"], ["", ""]])
def test_a_model_finds_its_bands_in_an_asset_that_holds_several(tmp_path: Path, names: list[str]) -> None:
    image = draw((3, 40, 50))
    write_raster(tmp_path / "both.tif", image[:2])
    write_raster(tmp_path / "blue.tif", image[2])
    both = {
        "href": "both.tif",
        "roles": ["data"],
        "eo:bands": [{"name": "r", "common_name": "red"}, {"name": "n", "common_name": "nir"}],
    }
    blue = {"href": "blue.tif", "roles": ["data"], "eo:bands": [{"name": "b", "common_name": "blue"}]}
    assets = {"both": both, "blue": blue} if any(names) else {"both": both}
    (tmp_path / "place.json").write_text(json.dumps({"type": "Feature", "assets": assets}))
    predict(tmp_path / "place.json", tmp_path / "maps", threshold(band_names=names))
    first = image[1] if names[0] == "nir" else image[0]
    np.testing.assert_array_equal(read(tmp_path / "maps" / "place_classes.tif")[0], first > LIMIT)


def test_a_band_that_is_marked_as_alpha_is_what_the_model_learnt_from_it_and_a_note_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = draw((4, 70, 90))
    image[3, :9] = 0
    write_raster(tmp_path / "a.tif", image, photometric="rgb", alpha="yes")
    predict(tmp_path / "a.tif", tmp_path / "maps", threshold(bands=[4, 1], band_names=["4", "1"]))
    np.testing.assert_array_equal(read(tmp_path / "maps" / "a_classes.tif")[0], image[3] > LIMIT)
    assert "band 4 is marked as alpha, but is used as an input band" in capsys.readouterr().out
    predict(tmp_path / "a.tif", tmp_path / "masked", threshold(bands=[1, 2]))
    assert (read(tmp_path / "masked" / "a_classes.tif")[0][:9] == 255).all()


def test_a_remote_raster_is_mapped_as_one_on_disk(tmp_path: Path, address: str) -> None:
    image = draw((2, 90, 130))
    write_raster(tmp_path / "image.tif", image, compress="deflate")
    for number, path in enumerate((f"{address}/image.tif", f"/vsicurl/{address}/image.tif")):
        predict(path, tmp_path / str(number))
        np.testing.assert_array_equal(read(tmp_path / str(number) / "image_classes.tif")[0], image[0] > LIMIT)
    with pytest.raises(DataError, match=r"gone.tif: cannot be opened as a raster"):
        predict(f"{address}/gone.tif", tmp_path / "gone")


def test_a_raster_that_only_points_or_rpcs_place_is_mapped_in_its_own_frame_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 40, 50)), crs=None, transform=None)
    with rasterio.open(source, "r+") as target:
        corners = [(0, 0, 5, 9), (0, 50, 6, 9), (40, 0, 5, 8), (40, 50, 6, 8)]
        target.gcps = [GroundControlPoint(*corner) for corner in corners], "EPSG:4326"
    with rasterio.open(source, "r+") as target:
        zeros = [0.0] * 20
        target.rpcs = RPC(0, 1, 0, 1, zeros, zeros, 0, 1, 0, 1, zeros, zeros, 0, 1)
    predict(source, tmp_path / "maps")
    assert "its ground control points and RPCs are not copied to the map" in capsys.readouterr().out
    with rasterio.open(tmp_path / "maps" / "image_classes.tif") as found:
        assert (found.crs, found.gcps[0], found.rpcs) == (None, [], None)
