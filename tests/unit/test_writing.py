"""Parts of maps are there when they are complete, or not at all."""

import signal
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geo_seg.errors import DataError
from geo_seg.raster import writer
from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.writer import RowWriter, ensure_writable, is_complete_geotiff
from tests.conftest import write_raster

NOISE = np.random.default_rng(0).integers(0, 255, (2, 530, 270), np.uint8)


def written(path: Path, pixels: np.ndarray, step: int) -> None:
    with RowWriter(path, pixels.shape, str(pixels.dtype)) as target:
        for row in range(0, pixels.shape[1], step):
            target.append(pixels[:, row : row + step])


@pytest.mark.parametrize("step", [1, 7, 300, 600])
def test_rows_in_any_portions_give_the_same_bytes(tmp_path: Path, step: int) -> None:
    written(tmp_path / "part.tif", NOISE, step)
    with rasterio.open(tmp_path / "part.tif") as found:
        assert (found.read() == NOISE).all()
    written(tmp_path / "again.tif", NOISE, 530)
    assert (tmp_path / "part.tif").read_bytes() == (tmp_path / "again.tif").read_bytes()


def test_a_part_has_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RowWriter(tmp_path / "part.tif", (1, 9, 9), "uint8") as target:
        target.append(np.zeros((1, 9, 9), np.uint8))
        raise KeyError
    assert not (tmp_path / "part.tif").exists()


def test_what_a_map_does_not_take_over_is_told(tmp_path: Path) -> None:
    points = [rasterio.control.GroundControlPoint(row, col, col, row) for row in (0, 9) for col in (0, 9)]
    path = write_raster(tmp_path / "image.tif", np.zeros((10, 10), np.uint8), transform=None, gcps=points)
    assert GeoBox.from_raster(path).dropped == "ground control points"


def test_a_truncated_raster_is_not_taken_for_a_finished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = writer.os.fsync

    def lose_the_end(descriptor: int) -> None:
        sync(descriptor)
        writer.os.truncate(descriptor, writer.os.fstat(descriptor).st_size - 5)

    monkeypatch.setattr(writer.os, "fsync", lose_the_end)
    with pytest.raises(DataError, match=r"part\.tif: cannot be written \(not all of it reached the disk"):
        written(tmp_path / "part.tif", NOISE, 300)
    assert not (tmp_path / "part.tif").exists()


def test_only_complete_rasters_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "part.tif"
    assert not is_complete_geotiff(path)
    written(path, NOISE, 300)
    assert is_complete_geotiff(path)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert not is_complete_geotiff(path)
    path.write_bytes(content[:100])
    assert not is_complete_geotiff(path)


RESTS = {
    "nothing": b"",
    "a header": b"II*\0",
    "a header of a large file": b"II+\0\x08\0\0\0",
    "a directory behind the end": b"II*\0" + (10**6).to_bytes(4, "little"),
    "a directory of zeros": b"II*\0\x08\0\0\0" + bytes(1000),
    "a directory without end": b"II*\0\x08\0\0\0\xff\xff" + bytes(40),
    "no raster": b"<html>",
}


@pytest.mark.fault("resume", "a part's .new with a broken directory stops the same command for good")
@pytest.mark.parametrize("rest", RESTS.values(), ids=RESTS)
def test_whatever_an_earlier_run_left_a_part_is_written(tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "part.tif.new").write_bytes(rest)
    written(tmp_path / "part.tif", NOISE, 530)
    with rasterio.open(tmp_path / "part.tif") as found:
        assert (found.read() == NOISE).all()


@pytest.mark.fault("resume", "a part's .new with a broken directory stops the same command for good")
def test_a_part_that_ends_anywhere_is_written_again(tmp_path: Path) -> None:
    written(tmp_path / "whole.tif", NOISE, 530)
    content = (tmp_path / "whole.tif").read_bytes()
    for length in (*range(0, 200, 7), *range(200, len(content), len(content) // 20)):
        (tmp_path / "part.tif.new").write_bytes(content[:length])
        written(tmp_path / "part.tif", NOISE, 530)
        assert (tmp_path / "part.tif").read_bytes() == content


@pytest.mark.parametrize("room", [0, 1000, 100_000, 250_000])
def test_a_disk_that_takes_no_more_is_named_and_gives_no_part(tmp_path: Path, room: int) -> None:
    resource = pytest.importorskip("resource")  # a limit that a file system enforces, on any Unix
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(DataError, match=r"part\.tif: cannot be written"):
            written(tmp_path / "part.tif", NOISE, 300)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "part.tif").exists()


def test_a_folder_that_takes_no_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="nothing can be written there"):
        ensure_writable(tmp_path / "file" / "below")
    ensure_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
