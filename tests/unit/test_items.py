"""Assets of STAC items hold one band or several, which are found by name or number."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from geo_seg.errors import DataError
from geo_seg.raster.open_image import open_image
from geo_seg.raster.reader import Band, RasterInfo, RasterReader
from geo_seg.tiling import Window
from tests.conftest import write_raster

pytestmark = pytest.mark.fault("bands", "several bands in one asset of a STAC item are refused")

WHOLE = Window(0, 0, 20, 30)
PIXELS = np.random.default_rng(0).integers(1, 250, (5, 20, 30), np.uint8)
RED, GREEN, BLUE, NIR, EDGE = range(5)


def entries(*names: str) -> list[dict[str, str]]:
    """Bands as an item lists them: B1 red, B2 green ..."""
    return [{"name": f"x{i}", "common_name": name} for i, name in enumerate(names, 1)]


def asset(folder: Path, name: str, places: Sequence[int], **fields: Any) -> dict[str, Any]:
    """An asset whose file holds some of PIXELS."""
    write_raster(folder / f"{name}.tif", PIXELS[list(places)], photometric="MINISBLACK")
    return {"href": f"{name}.tif", "roles": ["data"], **fields}


def described(folder: Path, name: str, *names: str) -> None:
    with rasterio.open(folder / f"{name}.tif", "r+") as file:
        file.descriptions = names


def opened(
    folder: Path, assets: dict[str, Any], bands: Sequence[Band] | None
) -> tuple[RasterInfo, np.ndarray, np.ndarray]:
    """Header, pixels and validity of the bands of an item."""
    item = folder / "item.json"
    item.write_text(json.dumps({"type": "Feature", "assets": assets}))
    header, chosen = open_image([str(item)], bands, folder / "cache")
    with RasterReader(header.path, chosen) as reader:
        image, valid = reader.read(WHOLE)
    return header, image, valid


@pytest.mark.parametrize(
    ("bands", "places"),
    [
        (["red", "nir"], [RED, NIR]),
        (["nir", "red"], [NIR, RED]),
        (["x4", "X1"], [NIR, RED]),
        (["Near Infrared", "r"], [NIR, RED]),
        ([4, 1], [NIR, RED]),
        (["nir", 1, 1], [NIR, RED, RED]),
        (None, [RED, GREEN, BLUE, NIR]),
    ],
)
@pytest.mark.parametrize("key", ["eo:bands", "bands"])
def test_bands_of_one_asset_are_found(
    tmp_path: Path, bands: list[Band] | None, places: list[int], key: str
) -> None:
    listed = entries("red", "green", "blue", "nir")
    if key == "bands":
        listed = [{"name": one["name"], "eo:common_name": one["common_name"]} for one in listed]
    header, image, _ = opened(tmp_path, {"image": asset(tmp_path, "a", range(4), **{key: listed})}, bands)
    np.testing.assert_array_equal(image, PIXELS[places])
    if bands is None:
        assert header.names == ("red", "green", "blue", "nir")
    elif all(isinstance(band, str) for band in bands):
        assert header.names == tuple(bands)


@pytest.mark.parametrize(
    ("bands", "places"),
    [(["red", "nir"], [RED, NIR]), ([4, 2], [NIR, GREEN]), (None, [RED, GREEN, BLUE, NIR])],
)
@pytest.mark.parametrize("listed", ["both", "one", "neither"])
def test_an_asset_with_several_bands_lies_beside_one_with_one(
    tmp_path: Path, bands: list[Band] | None, places: list[int], listed: str
) -> None:
    assets = {"rgb": asset(tmp_path, "a", range(3)), "nir": asset(tmp_path, "b", [NIR])}
    described(tmp_path, "a", "red", "green", "blue")
    if listed != "neither":
        assets["rgb"]["eo:bands"] = entries("red", "green", "blue")
    if listed == "both":
        assets["nir"]["eo:bands"] = entries("nir")
    np.testing.assert_array_equal(opened(tmp_path, assets, bands)[1], PIXELS[places])


def test_only_the_assets_that_hold_the_bands_are_opened(tmp_path: Path) -> None:
    nowhere = {"href": "nowhere.tif", "roles": ["data"], "eo:bands": entries("nir", "swir16")}
    assets = {"n": nowhere, "rgb": asset(tmp_path, "a", range(3), bands=entries("red", "green", "blue"))}
    np.testing.assert_array_equal(opened(tmp_path, assets, ["blue", 3])[1], PIXELS[[BLUE, RED]])


def test_bands_without_any_name_go_by_number(tmp_path: Path) -> None:
    assets = {"image": asset(tmp_path, "a", range(4))}
    header, image, _ = opened(tmp_path, assets, [3, 1])
    np.testing.assert_array_equal(image, PIXELS[[BLUE, RED]])
    assert header.names == ("", "")
    with pytest.raises(DataError, match=r"item\.json: no band 'red' among its assets; available: nothing"):
        opened(tmp_path, assets, ["red"])
    with pytest.raises(DataError, match=r"item\.json: no band 5 among its assets"):
        opened(tmp_path, assets, [5])


@pytest.mark.parametrize(
    ("names", "bands", "message"),
    [
        (
            ("red", "green"),
            ["red"],
            r"a\.tif: 3 bands \(no names\), but the STAC item lists 2 for its asset im;",
        ),
        (("red", "green", "blue", "nir"), ["nir"], r"a\.tif: 3 bands .* lists 4 for its asset im; mend"),
        (("red",), ["red"], r"a\.tif: 3 bands .* lists 1 for its asset im; mend"),
        ((), ["im"], r"a\.tif: 3 bands .* doesn't list them for its asset im; .*name one of the bands"),
        (
            ("red", "red", "blue"),
            ["red"],
            "red is band 1 of the asset im and band 2 of the asset im; give the num",
        ),
        (("red", "green", "blue"), ["rde"], "no band 'rde' among its assets; did you mean 'red'"),
        (("red", "green", "blue"), ["im"], "no band 'im' among its assets"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, names: tuple[str, ...], bands: list[Band], message: str
) -> None:
    with pytest.raises(DataError, match=message) as said:
        opened(tmp_path, {"im": asset(tmp_path, "a", range(3), **{"eo:bands": entries(*names)})}, bands)
    assert "\n" not in str(said.value)


def test_a_band_of_that_name_in_two_assets_is_the_one_that_is_alone_or_an_error(tmp_path: Path) -> None:
    both = {
        "visual": asset(tmp_path, "a", [EDGE, GREEN, BLUE], **{"eo:bands": entries("red", "green", "blue")}),
        "B04": asset(tmp_path, "b", [RED], **{"eo:bands": [{"name": "B04", "common_name": "red"}]}),
    }
    np.testing.assert_array_equal(opened(tmp_path, both, ["red", "blue"])[1], PIXELS[[RED, BLUE]])
    both["more"] = asset(tmp_path, "c", [NIR, BLUE], bands=entries("nir", "blue"))
    with pytest.raises(
        DataError, match="blue is band 3 of the asset visual and band 2 of the asset more; give the number"
    ):
        opened(tmp_path, both, ["blue"])
    np.testing.assert_array_equal(opened(tmp_path, both, ["nir", 6])[1], PIXELS[[NIR, BLUE]])


def test_bands_that_share_a_common_name_are_told_by_their_names(tmp_path: Path) -> None:
    listed = entries("rededge", "rededge", "nir")
    header, image, _ = opened(tmp_path, {"a": asset(tmp_path, "a", range(3), **{"eo:bands": listed})}, None)
    assert header.names == ("x1", "x2", "nir")
    np.testing.assert_array_equal(image, PIXELS[:3])


@pytest.mark.parametrize(
    ("names", "bands", "places", "masked"),
    [
        (("red", "green", "blue"), None, [RED, GREEN, BLUE], True),
        (("red", "green", "blue"), ["blue", "red"], [BLUE, RED], True),
        (("red", "green", "blue", "alpha"), None, [RED, GREEN, BLUE], True),
        (("red", "green", "blue", "alpha"), ["blue"], [BLUE], True),
        (("red", "green", "blue", "nir"), None, [RED, GREEN, BLUE, NIR], False),
        (("red", "green", "blue", "nir"), ["nir"], [NIR], False),
        (("red", "green", "blue", "nir"), ["red"], [RED], False),
        ((), None, [RED, GREEN, BLUE], True),
    ],
)
def test_an_alpha_band_says_what_is_valid_unless_the_item_lists_it_as_something_else(
    tmp_path: Path, names: tuple[str, ...], bands: list[Band] | None, places: list[int], masked: bool
) -> None:
    pixels = PIXELS[:4].copy()
    pixels[3, :8] = 0
    assets = {"image": asset(tmp_path, "a", range(4), **{"eo:bands": entries(*names)})}
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.write(pixels)
        file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    _, image, valid = opened(tmp_path, assets, bands)
    np.testing.assert_array_equal(image, pixels[places])
    np.testing.assert_array_equal(valid, (pixels[3] > 0) | (not masked))


@pytest.mark.parametrize("where", ["raster:bands", "bands", "asset"])
def test_each_band_has_its_own_scale_and_offset(tmp_path: Path, where: str) -> None:
    values = [{"scale": 0.1 * i, "offset": float(i)} for i in (1, 2, 3)]
    listed: list[dict[str, Any]] = [dict(one) for one in entries("red", "green", "blue")]
    fields: dict[str, Any] = {"bands": listed}
    if where == "raster:bands":
        fields[where] = values
    elif where == "asset":
        fields |= {"raster:scale": 0.1, "raster:offset": 1.0}
    else:
        for band, value in zip(listed, values, strict=True):
            band |= {f"raster:{key}": number for key, number in value.items()}
    header, _, _ = opened(tmp_path, {"a": asset(tmp_path, "a", range(3), **fields)}, ["blue", "red"])
    blue = 1 if where == "asset" else 3
    assert header.scales == pytest.approx((0.1 * blue, 0.1))
    assert header.offsets == (blue, 1)


def test_names_that_are_no_text_are_taken_as_they_are_written(tmp_path: Path) -> None:
    listed = [{"name": 1}, {"name": 2}]
    image = opened(tmp_path, {"a": asset(tmp_path, "a", range(2), bands=listed)}, ["2"])[1]
    np.testing.assert_array_equal(image, PIXELS[[GREEN]])
