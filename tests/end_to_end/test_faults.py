"""Whatever goes wrong on the way: a clear error or the whole map, never a wrong one; then the same bytes."""

import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geo_seg.errors import DataError
from geo_seg.prediction import planner
from geo_seg.raster import writer
from tests.conftest import write_raster
from tests.end_to_end.test_inference import LIMIT, draw, predict, read, windowing
from tests.end_to_end.test_unfinished_maps import StopError, names, stop_after

EVERYTHING = {"probabilities": "all", "uncertainty": True, "polygons": True, "simplify": 1.0}


@pytest.fixture(autouse=True)
def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of one row of windows, in panels of two columns where memory is limited."""
    monkeypatch.setattr(planner, "_MIN_PART_ROWS", 1)
    monkeypatch.setattr(planner.Planner, "_panel_cols", lambda *_: 2)


def same(found: Path, whole: Path) -> None:
    """All rasters and legends have the same bytes; a GeoPackage holds the time of writing, so its content."""
    assert names(found) == names(whole)
    for name in names(whole):
        if name.endswith(".gpkg"):
            (_, _, a, x), (_, _, b, y) = (
                pyogrio.raw.read(folder / name, layer="classes") for folder in (found, whole)
            )
            np.testing.assert_array_equal(a, b)
            for left, right in zip(x, y, strict=True):
                np.testing.assert_array_equal(left, right)
        else:
            assert (found / name).read_bytes() == (whole / name).read_bytes(), name


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 200),
    st.integers(1, 200),
    windowing(),
    st.booleans(),
    st.lists(st.integers(0, 9), max_size=2),
    st.integers(1, 5),
)
def test_neither_stops_nor_batches_change_a_byte(
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    options: dict[str, Any],
    panels: bool,
    stops: list[int],
    other_batch: int,
) -> None:
    folder = tmp_path_factory.mktemp("maps")
    source = write_raster(folder / "image.tif", draw((2, height, width)))
    given = {**options, **EVERYTHING, "max_memory": 1.0 if panels else None}
    predict(source, folder / "whole", **given)
    for stop in stops:
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, stop)
            try:
                predict(source, folder / "maps", **given)
            except StopError:
                assert names(folder / "maps") == [".image_classes.tif.part"]
            else:
                shutil.rmtree(folder / "maps")
    predict(source, folder / "maps", **given)
    same(folder / "maps", folder / "whole")
    predict(source, folder / "other", **{**given, "batch_size": other_batch})
    same(folder / "other", folder / "whole")


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may grow beyond a size, which the kernel enforces as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", [0, 300, 1500, 4000, 30_000, 90_000])
def test_a_disk_that_is_full_at_any_moment_is_an_error_and_the_map_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(writer, "_PROBE_BYTES", 1)
    source = write_raster(tmp_path / "image.tif", draw((2, 200, 100)))
    predict(source, tmp_path / "whole", **EVERYTHING)
    with files_up_to(room), pytest.raises(DataError, match=r"cannot be written|nothing can be written there"):
        predict(source, tmp_path / "maps", **EVERYTHING)
    assert all(name == ".image_classes.tif.part" for name in names(tmp_path / "maps"))
    predict(source, tmp_path / "maps", **EVERYTHING)
    same(tmp_path / "maps", tmp_path / "whole")


@pytest.mark.parametrize("seed", range(6))
def test_a_raster_that_ends_too_early_anywhere_gives_no_map(tmp_path: Path, seed: int) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 200, 100)), compress="deflate")
    content = source.read_bytes()
    source.write_bytes(content[: random.Random(seed).randrange(len(content))])
    with pytest.raises(DataError, match=r"truncated or corrupt|cannot be opened as a raster"):
        predict(source, tmp_path / "maps")
    assert all(name == ".image_classes.tif.part" for name in names(tmp_path / "maps"))


def test_parts_that_another_program_spoils_are_made_again(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 200, 100)))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        stop_after(patch, 5)
        predict(source, tmp_path / "maps", overlap=0)
    parts = tmp_path / "maps" / ".image_classes.tif.part"
    (parts / "00000_classes.tif").write_bytes(b"")
    (parts / "00001_classes.tif").unlink()
    predict(source, tmp_path / "maps", overlap=0)
    np.testing.assert_array_equal(read(tmp_path / "maps" / "image_classes.tif")[0], read(source)[0] > LIMIT)
