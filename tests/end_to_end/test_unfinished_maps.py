"""A map is there whole or not at all; whatever stopped it, the same command goes on to the same bytes."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import rasterio.shutil
from rio_cogeo.cogeo import cog_validate
from torch import nn

from geo_seg.data.cache import constituent_files
from geo_seg.errors import ConfigError, DataError
from geo_seg.prediction import measure, planner
from geo_seg.prediction.predictor import Predictor
from geo_seg.raster import cog, writer
from tests.conftest import write_raster
from tests.end_to_end.test_inference import LIMIT, Threshold, draw, facts, predict, read, threshold

ROWS = 6  # of windows of 64 in the raster; each is a part


@pytest.fixture(autouse=True)
def one_row_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "_MIN_PART_ROWS", 1)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_raster(
        tmp_path / "image.tif", draw((2, 64 * ROWS, 100)), tiled=True, blockxsize=64, blockysize=64
    )


class StopError(Exception):
    """Something from outside."""


def stop_after(monkeypatch: pytest.MonkeyPatch, windows: int) -> list[int]:
    """Makes the model fail after some windows; returns the list of those that it saw."""
    seen: list[int] = []
    run = Predictor.logits

    def counted(self: Predictor, image: Any, *rest: Any) -> Any:
        if len(seen) >= windows:
            raise StopError
        seen.append(len(image))
        return run(self, image, *rest)

    monkeypatch.setattr(Predictor, "logits", counted)
    return seen


def interrupted(image: Path, folder: Path, windows: int, **options: Any) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        stop_after(patch, windows)
        predict(image, folder, overlap=0, **options)


def names(folder: Path) -> list[str]:
    """Files of a folder, but for the summary: it holds seconds."""
    return sorted(path.name for path in folder.iterdir() if path.name != "summary.json")


@pytest.mark.parametrize("windows", [1, 2, 7, 11])
def test_a_map_goes_on_where_it_was_stopped_and_has_the_same_bytes(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: int
) -> None:
    predict(image, tmp_path / "whole", overlap=0, probabilities="all")
    interrupted(image, tmp_path / "maps", windows, probabilities="all")
    assert names(tmp_path / "maps") == [".image_classes.tif.part"]
    seen = stop_after(monkeypatch, 99)
    (mapped,) = predict(image, tmp_path / "maps", overlap=0, probabilities="all")
    assert len(seen) == 2 * (ROWS - windows // 2)
    assert names(tmp_path / "maps") == names(tmp_path / "whole")
    for name in names(tmp_path / "whole"):
        assert (tmp_path / "maps" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert mapped.counts.tolist() == np.bincount((read(image)[0] > LIMIT).ravel()).tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blend": "linear"}, "options"),
        ({"margin": 8}, "options"),
        ({"batch_size": 2}, "options"),
        ({"precision": "bf16"}, "options"),
        ({"probabilities": "top"}, "options"),
        ({"uncertainty": True}, "options"),
        ({"probabilities": "top", "probability_type": "float32"}, "options"),
        ({"found": threshold(mean=[1.0, 0.0])}, "checkpoint"),
    ],
)
def test_parts_of_another_map_are_noticed_and_made_anew(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    interrupted(image, tmp_path / "maps", 7)
    with pytest.MonkeyPatch.context() as patch:
        seen = stop_after(patch, 99)
        predict(image, tmp_path / "maps", overlap=0, **change)
    assert sum(seen) >= 2 * ROWS
    assert f"an unfinished map of another {said}; starting over" in capsys.readouterr().out


def test_a_changed_raster_is_noticed_and_mapped_anew(image: Path, tmp_path: Path) -> None:
    interrupted(image, tmp_path / "maps", 7)
    changed = read(image)
    changed[0] = 2 * LIMIT - changed[0]
    write_raster(image, changed, tiled=True, blockxsize=64, blockysize=64)
    predict(image, tmp_path / "maps", overlap=0)
    np.testing.assert_array_equal(read(tmp_path / "maps" / "image_classes.tif")[0], changed[0] > LIMIT)


def overwritten(image: Path, _: Path, other: bytes) -> None:
    image.write_bytes(other)


def exchanged(image: Path, folder: Path, other: bytes) -> None:
    (folder / "other.tif").write_bytes(other)
    made = image.stat()
    os.utime(folder / "other.tif", ns=(made.st_atime_ns, made.st_mtime_ns))
    (folder / "other.tif").replace(image)


@pytest.mark.fault("resume", "a raster replaced by one of the same size and date gave a mixture")
@pytest.mark.parametrize("take_its_place", [overwritten, exchanged])
@pytest.mark.parametrize("through", ["", "a.vrt", "link.tif"], ids=["itself", "a VRT", "a link"])
def test_a_raster_that_is_replaced_by_one_of_the_same_size_and_date_is_mapped_anew(
    tmp_path: Path, take_its_place: Callable[[Path, Path, bytes], None], through: str
) -> None:
    image = write_raster(tmp_path / "image.tif", draw((2, 192, 100)))
    other = write_raster(tmp_path / "other.tif", draw((2, 192, 100), 1))
    given = tmp_path / through if through else image
    if through == "a.vrt":
        rasterio.shutil.copy(image, given, driver="VRT")
    elif through:
        given.symlink_to(image)
    interrupted(given, tmp_path / "maps", 3)
    before, changed = image.stat(), read(other)
    assert other.stat().st_size == before.st_size
    take_its_place(image, tmp_path, other.read_bytes())
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (image.stat().st_size, image.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    predict(given, tmp_path / "maps", overlap=0)
    found = read(tmp_path / "maps" / f"{given.stem}_classes.tif")[0]
    np.testing.assert_array_equal(found, changed[0] > LIMIT)


def test_a_part_that_lost_its_end_is_made_again(image: Path, tmp_path: Path) -> None:
    interrupted(image, tmp_path / "maps", 7)
    part = tmp_path / "maps" / ".image_classes.tif.part" / "00001_classes.tif"
    part.write_bytes(part.read_bytes()[:-20])
    predict(image, tmp_path / "maps", overlap=0)
    np.testing.assert_array_equal(read(tmp_path / "maps" / "image_classes.tif")[0], read(image)[0] > LIMIT)


def test_a_corrupt_block_is_an_error_that_keeps_the_parts_before_it(image: Path, tmp_path: Path) -> None:
    write_raster(image, read(image), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    sound = image.read_bytes()
    with rasterio.open(image) as source:
        begin = int(source.get_tag_item("BLOCK_OFFSET_0_4", "TIFF", bidx=1))
    image.write_bytes(sound[:begin] + bytes(64) + sound[begin + 64 :])
    with pytest.raises(DataError, match=r"rows 256-.* truncated or corrupt.*; 4 of 6 parts are done"):
        predict(image, tmp_path / "maps", overlap=0)
    assert names(tmp_path / "maps") == [".image_classes.tif.part"]
    image.write_bytes(sound)
    predict(image, tmp_path / "maps", overlap=0)
    np.testing.assert_array_equal(read(tmp_path / "maps" / "image_classes.tif")[0], read(image)[0] > LIMIT)
    assert names(tmp_path / "maps") == ["image_classes.qml", "image_classes.tif", "image_classes.tif.aux.xml"]


@pytest.mark.parametrize("gone", [True, False])
def test_a_raster_that_is_removed_or_changed_on_the_way_gives_an_error_and_no_map(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    class Meddling(Threshold):
        def forward(self, pixels: Any) -> Any:
            if gone:
                image.unlink(missing_ok=True)
            else:
                os.utime(image, (1, 1))
            return super().forward(pixels)

    found = threshold()
    meddled = type(found)(found.path, found.metadata, found.task, Meddling(), found.normalize)
    monkeypatch.setattr("geo_seg.prediction.planner.bytes_per_pixel", lambda _: 100.0)
    with pytest.raises(DataError, match="cannot be opened" if gone else "changed while it was mapped"):
        predict(image, tmp_path / "maps", meddled, overlap=0)
    assert not (tmp_path / "maps" / "image_classes.tif").exists()


def test_a_full_disk_at_the_end_leaves_the_parts_and_the_old_map(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "image_classes.tif").write_text("old")
    with monkeypatch.context() as patch, pytest.raises(DataError, match="cannot be written"):
        patch.setattr(
            cog.rasterio.shutil, "copy", lambda _frame, target, **_: Path(target).write_bytes(b"II*")
        )
        predict(image, tmp_path / "maps", overlap=0)
    assert (tmp_path / "maps" / "image_classes.tif").read_text() == "old"
    seen = stop_after(monkeypatch, 0)  # all parts are there: no window is seen again
    predict(image, tmp_path / "maps", overlap=0)
    assert seen == []
    np.testing.assert_array_equal(read(tmp_path / "maps" / "image_classes.tif")[0], read(image)[0] > LIMIT)


@pytest.mark.fault("resume", "a part's .new with a broken directory stops the same command for good")
@pytest.mark.parametrize(
    "rest", [b"", b"II*\0", b"II*\0\x08\0\0\0" + bytes(500), b"SQLite format 3\0" + bytes(84)]
)
def test_whatever_a_full_disk_left_the_same_command_goes_on(image: Path, tmp_path: Path, rest: bytes) -> None:
    options: dict[str, Any] = {"probabilities": "all", "polygons": True}
    write_raster(image, np.kron(draw((2, 48, 70)), np.ones((8, 8), np.uint16)), nodata=0)
    predict(image, tmp_path / "whole", overlap=0, **options)
    interrupted(image, tmp_path / "maps", 7, **options)
    folder = next((tmp_path / "maps").glob(".*.part"))
    hidden = [
        f"{number:05d}{suffix}" for number in range(6) for suffix in ("_classes.tif", "_probabilities.tif")
    ]
    hidden += ["classes.tif", "probabilities.tif", "classes_2.tif"]
    for name in hidden:
        (folder / f"{name}.new").write_bytes(rest)
        (folder / f"{name}.new.ovr.tmp").write_bytes(rest)
    for name in ("polygons.gpkg", "polygons.gpkg-journal", "polygons.gpkg-wal"):
        (folder / name).write_bytes(rest)
    for name in ("classes.vrt", "probabilities.vrt"):
        (folder / name).write_bytes(rest)
    predict(image, tmp_path / "maps", overlap=0, **options)
    same_but_for_polygons(tmp_path)


def same_but_for_polygons(folder: Path) -> None:
    """A GeoPackage holds the time at which it was written."""
    assert names(folder / "maps") == names(folder / "whole")
    for name in names(folder / "whole"):
        made, whole = ((folder / place / name) for place in ("maps", "whole"))
        if name.endswith(".gpkg"):
            layers = [pyogrio.raw.read(path, layer="classes") for path in (made, whole)]
            assert layers[0][2].tolist() == layers[1][2].tolist()
        else:
            assert made.read_bytes() == whole.read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of so many bytes, or changes its size; only root may."""
    folder = tmp_path / "maps"
    folder.mkdir()
    mounted = False

    def resize(size: int) -> Path:
        nonlocal mounted
        again = "remount," if mounted else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{again}size={size}", "none", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted = True
        return folder

    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    yield resize
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.fault("resume", "a part's .new with a broken directory stops the same command for good")
@pytest.mark.parametrize("share", [0.05 * step for step in range(1, 21)])
def test_a_disk_of_any_size_is_full_at_some_time_and_more_room_is_enough_to_go_on(
    image: Path,
    tmp_path: Path,
    small_disk: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    share: float,
) -> None:
    options: dict[str, Any] = {"probabilities": "all", "probability_type": "float32", "polygons": True}
    write_raster(image, np.kron(draw((2, 70, 80)), np.ones((8, 8), np.uint16)), nodata=0)
    monkeypatch.setattr(writer, "_PROBE_BYTES", 4096)  # bytes that must fit before any work
    predict(image, tmp_path / "whole", overlap=0, **options)
    most = 3 * sum(path.stat().st_size for path in (tmp_path / "whole").iterdir())
    folder = small_disk(int(share * most))
    for _ in range(2):  # the second one finds what the first one left
        with suppress(DataError):
            predict(image, folder, overlap=0, **options)
    small_disk(4 * most)
    predict(image, folder, overlap=0, **options)
    same_but_for_polygons(tmp_path)


def test_maps_are_cloud_optimized_with_overviews_of_the_most_frequent_class(tmp_path: Path) -> None:
    image = np.full((2, 1100, 1300), LIMIT + 1, np.uint16)
    image[0, ::2, ::2] = 1  # every fourth pixel
    image[:, :, 1000:] = 0
    source = write_raster(tmp_path / "image.tif", image, nodata=0)
    predict(source, tmp_path / "maps", window=512, overlap=64, probabilities="all")
    for name in ("image_classes.tif", "image_probabilities.tif"):
        assert cog_validate(tmp_path / "maps" / name, strict=True) == (True, [], [])
    with rasterio.open(tmp_path / "maps" / "image_classes.tif") as found:
        assert found.overviews(1) == [2, 4]
        small = found.read(1, out_shape=(550, 650))
        assert (small[:, :500] == 1).all()
        assert (small[:, 500:] == 255).all()
        assert found.colormap(1)[1][:3] == (200, 100, 0)


# --- what is measured --------------------------------------------------------------------------------------


class Blurred(nn.Module):
    """Class 1 where the mean of band 1 over 41 x 41 pixels is above LIMIT: it needs 20 pixels around."""

    def forward(self, image: Any) -> Any:
        mean = image[:, :1]
        for size, pad in (((41, 1), (20, 0)), ((1, 41), (0, 20))):
            mean = nn.functional.avg_pool2d(mean, size, 1, pad, count_include_pad=False)
        return nn.functional.pad(mean - LIMIT, (0, 0, 0, 0, 1, 0))


def blurred() -> Any:
    found = threshold()
    return type(found)(found.path, facts(), found.task, Blurred(), found.normalize)


def test_the_margin_that_is_measured_is_what_the_model_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 800, 800)))
    predict(source, tmp_path / "auto", blurred(), window=256, margin="auto", overlap=0)
    assert "margin: 32" in capsys.readouterr().out  # 16 are too few for 20, and are tried before
    predict(source, tmp_path / "whole", blurred(), window=800, margin=0, overlap=0)
    whole = read(tmp_path / "whole" / "image_classes.tif")
    np.testing.assert_array_equal(read(tmp_path / "auto" / "image_classes.tif"), whole)
    predict(source, tmp_path / "none", blurred(), window=256, margin=0, overlap=0)
    assert (read(tmp_path / "none" / "image_classes.tif") != whole).mean() > 0.001


def test_a_precision_that_disagrees_is_not_chosen_however_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 100, 100)))
    seconds, disagrees = {"fp32": 2.0, "bf16": 1.0}, set()
    true = measure.timed_predict

    def timed(predictor: Predictor, windows: Any, precision: str) -> Any:
        classes, _ = true(predictor, windows, "fp32")
        wrong = precision in disagrees
        return [1 - c if wrong else c for c in classes], seconds[precision]

    monkeypatch.setattr(measure, "timed_predict", timed)
    monkeypatch.setattr(measure, "supports_bf16", lambda device: False)
    predict(source, tmp_path / "without", precision="auto")
    assert "precision: " not in capsys.readouterr().out
    monkeypatch.setattr(measure, "supports_bf16", lambda device: True)
    predict(source, tmp_path / "fast", precision="auto")
    assert "precision: bf16 (bf16 2.00 times as fast" in capsys.readouterr().out
    seconds["bf16"] = 3.0
    predict(source, tmp_path / "slow", precision="auto")
    assert "precision: fp32 (bf16 0.67 times" in capsys.readouterr().out
    seconds["bf16"] = 1.0
    disagrees.add("bf16")
    predict(source, tmp_path / "wrong", precision="auto")
    assert "precision: fp32 (bf16 2.00 times" in capsys.readouterr().out


def test_what_was_measured_holds_for_the_map_that_goes_on(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "measure_precision", lambda *_: "fp32")
    interrupted(image, tmp_path / "maps", 7, precision="auto")
    monkeypatch.setattr(planner, "measure_precision", lambda *_: "bf16")
    seen = stop_after(monkeypatch, 99)
    predict(image, tmp_path / "maps", overlap=0, precision="auto")
    assert len(seen) == 6


def test_a_model_is_compiled_when_asked_for_and_what_cannot_be_is_said(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def compiled(model: nn.Module) -> Any:
        return lambda pixels: seen.append(1) or model(pixels)

    def broken(_model: nn.Module) -> Any:
        def run(_pixels: Any) -> Any:
            raise RuntimeError("no compiler\nand more")

        return run

    monkeypatch.setattr("torch.compile", compiled)
    predict(image, tmp_path / "plain", overlap=0)
    assert seen == []
    predict(image, tmp_path / "maps", overlap=0, compile=True)
    assert len(seen) == 2 * ROWS
    monkeypatch.setattr("torch.compile", broken)
    with pytest.raises(ConfigError, match=r"compile=true: .* \(no compiler\)"):
        predict(image, tmp_path / "maps", overlap=0, compile=True)


def test_all_files_of_a_mosaic_of_mosaics_are_known(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.zeros((4, 5), np.uint8))
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "b.vrt", driver="VRT")
    (tmp_path / "c.vrt").write_text((tmp_path / "b.vrt").read_text().replace("a.tif", "b.vrt"))
    assert [path.name for path in constituent_files(tmp_path / "c.vrt")] == ["a.tif", "b.vrt", "c.vrt"]


def test_less_memory_means_panels_and_the_same_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_raster(
        tmp_path / "image.tif", draw((2, 200, 900)), tiled=True, blockxsize=64, blockysize=64
    )
    monkeypatch.setattr(
        planner, "estimate_part_bytes", lambda _source, part, *_: part.cols.length * 1_000_000
    )
    panels = []
    strips = Predictor.predict_rows

    def watched(self: Predictor, source: Any, grid: Any, *rest: Any) -> Any:
        panels.append(grid.area.width)
        return strips(self, source, grid, *rest)

    monkeypatch.setattr(Predictor, "predict_rows", watched)
    predict(source, tmp_path / "maps", max_memory=0.3)
    assert max(panels) <= 300
    np.testing.assert_array_equal(read(tmp_path / "maps" / "image_classes.tif")[0], read(source)[0] > LIMIT)


# --- kill -9 -----------------------------------------------------------------------------------------------


class Slow(Threshold):
    """Leaves time for a signal."""

    def forward(self, image: Any) -> Any:
        time.sleep(0.02)
        return super().forward(image)


def map_slowly(image: Path, output: Path) -> None:
    planner._MIN_PART_ROWS = 1
    found = threshold()
    slow = type(found)(found.path, found.metadata, found.task, Slow(), found.normalize)
    predict(image, output, slow, probabilities="all")


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_no_byte(image: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")  # its children needn't import torch
    context.set_forkserver_preload([__name__])

    def start(folder: str) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=map_slowly, args=(image, tmp_path / folder))
        process.start()
        return process

    for _ in range(2):  # the first one waits for the imports
        begin = time.monotonic()
        whole = start("whole")
        whole.join()
        assert whole.exitcode == 0
        takes = time.monotonic() - begin
    draws = random.Random(0)
    kills = 0
    while kills < 20:
        process = start("maps")
        process.join(draws.uniform(0, takes * 0.7))
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        assert process.exitcode in {0, -signal.SIGKILL}
        for final in (tmp_path / "maps").glob("*.tif"):
            assert final.read_bytes() == (tmp_path / "whole" / final.name).read_bytes()
        if process.exitcode == 0:
            same(tmp_path)
            shutil.rmtree(tmp_path / "maps")
    process = start("maps")
    process.join()
    assert process.exitcode == 0
    same(tmp_path)


def same(folder: Path) -> None:
    assert names(folder / "maps") == names(folder / "whole")
    for name in names(folder / "whole"):
        assert (folder / "maps" / name).read_bytes() == (folder / "whole" / name).read_bytes()
