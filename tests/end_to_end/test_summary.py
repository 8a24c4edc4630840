"""What a run made is told in a table and in summary.json."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import from_origin

from geo_seg.errors import DataError
from tests.conftest import write_raster
from tests.end_to_end.test_inference import LIMIT, predict


def half(path: Path, nodata_rows: int = 0, **profile: Any) -> Path:
    """40 x 50 pixels: the upper 10 rows high, then low ones, then some without data."""
    image = np.full((2, 40, 50), LIMIT, np.uint16)
    image[0, :10] += 1
    image[:, 40 - nodata_rows :] = 0
    return write_raster(path, image, nodata=0, **profile)


def summary(folder: Path) -> Any:
    return json.loads((folder / "summary.json").read_text())


def test_the_summary_holds_every_map_and_all_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half(tmp_path / "in" / "a.tif")
    half(tmp_path / "in" / "b.tif", 20)
    predict(tmp_path / "in", tmp_path / "maps")
    found = summary(tmp_path / "maps")
    assert list(found["maps"]) == ["a", "b"]
    first, total = found["maps"]["a"], found["total"]
    assert (first["file"], first["pixels"], first["skipped_share"]) == ("a_classes.tif", 2000, 0)
    assert first["classes"]["high"] == {
        "pixels": 500,
        "hectares": pytest.approx(0.2 / 0.9996**2, rel=1e-5),  # of 2 m, as UTM shrinks it at its middle
    }
    assert total["classes"]["low"] == {"pixels": 2000, "hectares": pytest.approx(0.8 / 0.9996**2, rel=1e-5)}
    assert (total["pixels"], total["skipped_share"]) == (4000, 0.25)
    assert total["seconds"] == pytest.approx(sum(m["seconds"] for m in found["maps"].values()), abs=2e-3)
    assert total["megapixels_per_second"] == pytest.approx(0.004 / total["seconds"], rel=0.05)
    said = capsys.readouterr().out
    assert all(text in said for text in ("2 maps", "hectares", "0.80", "66.7%", "25.0%"))


@pytest.mark.fault("areas", "hectares in EPSG:3857+5773 and EPSG:3395 are 4 times too large at 60 degrees")
def test_hectares_are_those_on_the_ellipsoid_or_none(tmp_path: Path) -> None:
    half(tmp_path / "in" / "degrees.tif", crs="EPSG:4326", transform=from_origin(10, 60.1, 0.01, 0.01))
    half(tmp_path / "in" / "nowhere.tif", crs=None, transform=None)
    place = from_origin(1_100_000, 8_400_000, 2, 2)  # at 60 degrees north
    half(tmp_path / "in" / "heights.tif", crs="EPSG:3857+5773", transform=place)
    site = CRS.from_wkt('LOCAL_CS["site grid",UNIT["metre",1]]')
    half(tmp_path / "in" / "site.tif", crs=site, transform=from_origin(0, 0, 2, 2))
    predict(tmp_path / "in", tmp_path / "maps")
    found = summary(tmp_path / "maps")
    # 0.5 x 0.1 degrees around 60.05 north: 27.86 km x 11.14 km
    assert found["maps"]["degrees"]["classes"]["high"]["hectares"] == pytest.approx(31_030, rel=2e-3)
    assert found["maps"]["nowhere"]["classes"]["high"] == {"pixels": 500, "hectares": None}
    assert found["maps"]["heights"]["classes"]["high"]["hectares"] == pytest.approx(0.05, rel=1e-2)
    assert found["maps"]["site"]["classes"]["high"]["hectares"] == 0.2
    assert found["total"]["classes"]["high"] == {"pixels": 2000, "hectares": None}


@pytest.mark.fault("privacy", "summary.json and names of scenes hold absolute paths and signed URLs")
def test_maps_and_their_summary_hold_no_absolute_path(tmp_path: Path) -> None:
    for name in ("x/a.tif", "y/a.tif", "y/b.tif"):
        half(tmp_path / "in" / name)
    (tmp_path / "in" / "y" / "b.tif").write_bytes(b"no raster")
    with pytest.raises(DataError, match="1 of 3 rasters"):
        predict([str(path) for path in sorted(tmp_path.rglob("*.tif"))], tmp_path / "out", polygons=True)
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [entry["input"] for entry in found["maps"].values()] == ["x/a.tif", "y/a.tif"]
    assert list(found["failed"]) == ["y/b.tif"] and found["failed"]["y/b.tif"].startswith("y/b.tif: ")
    for file in (path for path in (tmp_path / "out").iterdir() if path.is_file()):
        assert str(tmp_path).encode() not in file.read_bytes(), file


def test_what_failed_is_in_the_summary_and_what_is_skipped_stays_in_it(tmp_path: Path) -> None:
    half(tmp_path / "in" / "a.tif")
    (tmp_path / "in" / "b.tif").write_text("no raster")
    with pytest.raises(DataError, match="1 of 2"):
        predict(tmp_path / "in", tmp_path / "maps")
    first = summary(tmp_path / "maps")
    assert "cannot be opened" in first["failed"]["b.tif"]
    half(tmp_path / "in" / "b.tif")
    predict(tmp_path / "in", tmp_path / "maps", exists="skip")
    second = summary(tmp_path / "maps")
    assert (list(second["maps"]), second["failed"]) == (["a", "b"], {})
    assert second["maps"]["a"] == first["maps"]["a"]


def test_a_dry_run_leaves_no_summary(tmp_path: Path) -> None:
    predict(half(tmp_path / "a.tif"), tmp_path / "maps", dry_run=True)
    assert not (tmp_path / "maps").exists()
