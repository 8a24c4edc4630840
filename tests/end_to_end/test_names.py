"""Rasters may be called whatever the file system takes; what can't be is said before any work."""

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from geo_seg.errors import DataError
from geo_seg.inference.engines import local
from tests.conftest import write_raster
from tests.end_to_end.test_inference import LIMIT, draw, predict, read

NAMES = ["a!b", "a;b", "a\tb", "a\\b", " a", "a%21b", "a\nb", "a.zip!b", "é d", "x" * 232]


@pytest.mark.fault("names", "rasters called a!b, a;b, tab or backslash never get their polygons or their map")
@pytest.mark.skipif(os.name == "nt", reason="such names are none on Windows")
def test_rasters_of_any_name_get_all_files_of_their_maps(tmp_path: Path) -> None:
    pixels = draw((2, 30, 40))
    for name in NAMES:
        write_raster(tmp_path / "in" / f"{name}.tif", pixels)
    predict(tmp_path / "in", tmp_path / "maps", polygons=True, probabilities="top")
    for name in NAMES:
        np.testing.assert_array_equal(read(tmp_path / "maps" / f"{name}_classes.tif")[0], pixels[0] > LIMIT)
        assert (tmp_path / "maps" / f"{name}_probabilities.tif").is_file()
        with sqlite3.connect(tmp_path / "maps" / f"{name}_polygons.gpkg") as table:
            assert table.execute("SELECT SUM(pixels) FROM classes").fetchone() == (1200,)
        table.close()
    assert len(list((tmp_path / "maps").iterdir())) == 6 * len(NAMES) + 1  # with the summary


@pytest.mark.fault("names", "rasters called a!b, a;b, tab or backslash never get their polygons or their map")
@pytest.mark.skipif(os.name == "nt", reason="such names are none on Windows")
@pytest.mark.parametrize("folder", ["maps!", "ma\tps", "ma\nps"])
def test_a_folder_that_takes_no_geopackage_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 30, 40)))
    predict(source, tmp_path / folder)
    assert (tmp_path / folder / "image_classes.tif").is_file()
    monkeypatch.setattr(local, "predict_part", lambda *_: pytest.fail("there was work before"))
    with pytest.raises(DataError, match="no GeoPackage can be written there"):
        predict(source, tmp_path / folder / "below", polygons=True)
    assert list((tmp_path / folder / "below").iterdir()) == []


@pytest.mark.fault("names", "rasters called a!b, a;b, tab or backslash never get their polygons or their map")
@pytest.mark.skipif(os.name == "nt", reason="such names are none on Windows")
@pytest.mark.parametrize(
    ("name", "said"), [("x" * 240, "has 240 bytes, expected 232 at most"), ("\udcff", "is not UTF-8")]
)
def test_names_that_files_of_maps_cannot_have_are_said_before_any_work(
    tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / f"{name}.tif").write_bytes(b"II*")
    with pytest.raises(DataError, match=said):
        predict(tmp_path, tmp_path / "maps")
    assert not (tmp_path / "maps").exists()
