"""Several rasters, several processes: a map is made once, by one process, and its numbers are kept."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geo_seg.errors import ConfigError, DataError
from geo_seg.inference import summary
from geo_seg.prediction import planner
from geo_seg.prediction.predictor import Predictor
from geo_seg.runtime.lock import maps_lock
from tests.conftest import REPOSITORY, write_raster
from tests.end_to_end.test_inference import LIMIT, draw, predict, read, threshold, write_checkpoint
from tests.end_to_end.test_unfinished_maps import StopError, names, stop_after

fcntl = pytest.importorskip("fcntl", reason="Windows has no locks of this kind")
NAMES = ("a", "b", "c")
SEEN = 2 * 3  # windows of a raster

second_again = pytest.mark.fault("resume", "a kill during the second raster made the first again")
lost_numbers = pytest.mark.fault("resume", "with exists=skip the numbers of a map were in no file")
one_map = pytest.mark.fault("resume", "two processes, one map: in 4 of 5 tries neither finished")


@pytest.fixture(autouse=True)
def one_row_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "_MIN_PART_ROWS", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three rasters of three parts, and their labels."""
    for seed, name in enumerate(NAMES):
        image = draw((2, 192, 100), seed)
        write_raster(tmp_path / "in" / f"{name}.tif", image, tiled=True, blockxsize=64, blockysize=64)
        write_raster(tmp_path / "labels" / f"{name}.tif", (image[0] > LIMIT * 0.9).astype(np.uint8))
    return tmp_path


def knowing() -> Any:
    """The model, and the data set that says what labels mean."""
    return threshold(config={"dataset": {"name": "own", "root": "x", "classes": ["low", "high"]}})


def stopped(folder: Path, windows: int, **options: Any) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        stop_after(patch, windows)
        predict(folder / "in", folder / "maps", knowing(), overlap=0, **options)


def numbers(folder: Path, file: str = "summary.json") -> Any:
    """What a file says, but for seconds."""

    def timeless(found: Any) -> Any:
        if not isinstance(found, dict):
            return found
        return {k: timeless(v) for k, v in found.items() if k not in {"seconds", "megapixels_per_second"}}

    return timeless(json.loads((folder / file).read_text()))


def same(folder: Path) -> None:
    assert names(folder / "maps") == names(folder / "whole")
    for name in names(folder / "whole"):
        assert (folder / "maps" / name).read_bytes() == (folder / "whole" / name).read_bytes(), name
    assert numbers(folder / "maps") == numbers(folder / "whole")


# --- several rasters ---------------------------------------------------------------------------------------


@second_again
@pytest.mark.parametrize(
    ("exists", "labels", "windows"),
    [
        ("overwrite", False, SEEN + 3),
        ("overwrite", True, 2 * SEEN),
        ("skip", True, SEEN + 3),
        ("error", False, SEEN),
    ],
)
def test_the_same_command_goes_on_after_the_maps_that_are_finished(
    folder: Path, monkeypatch: pytest.MonkeyPatch, exists: str, labels: bool, windows: int
) -> None:
    options = {"exists": exists, **({"labels": str(folder / "labels")} if labels else {})}
    predict(folder / "in", folder / "whole", knowing(), overlap=0, **options)
    stopped(folder, windows, **options)
    seen = stop_after(monkeypatch, 99)
    made = predict(folder / "in", folder / "maps", knowing(), overlap=0, **options)
    assert len(seen) == 3 * SEEN - windows // 2 * 2
    assert [mapped.file.name[0] for mapped in made] == [name for name in NAMES[windows // SEEN :]]
    same(folder)
    if labels:
        assert numbers(folder / "maps", "metrics.json") == numbers(folder / "whole", "metrics.json")


@second_again
def test_it_goes_on_however_often_it_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict(folder / "in", folder / "whole", knowing(), overlap=0)
    for _ in range(2):
        stopped(folder, 7)  # the seventh is lost
    seen = stop_after(monkeypatch, 99)
    predict(folder / "in", folder / "maps", knowing(), overlap=0)
    assert len(seen) == 6
    same(folder)


def rewritten(folder: Path) -> dict[str, Any]:
    write_raster(folder / "in" / "a.tif", draw((2, 192, 100), 7))
    return {}


def touched(folder: Path) -> dict[str, Any]:
    map_of_a = folder / "maps" / "a_classes.tif"
    map_of_a.write_bytes(map_of_a.read_bytes() + b" ")
    return {}


def removed(folder: Path) -> dict[str, Any]:
    (folder / "maps" / "a_classes.tif").unlink()
    return {}


def relabelled(folder: Path) -> dict[str, Any]:
    write_raster(folder / "labels" / "a.tif", np.zeros((192, 100), np.uint8), compress="deflate")
    return {}


@second_again
@pytest.mark.parametrize(
    "change",
    [
        rewritten,
        touched,
        removed,
        relabelled,
        lambda _: {"blend": "crop"},
        lambda _: {"probabilities": "top"},
        lambda _: {"polygons": True},
        lambda _: {"labels": None},
    ],
)
def test_a_map_of_anything_else_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], dict[str, Any]]
) -> None:
    labels = {"labels": str(folder / "labels")}
    stopped(folder, SEEN, **labels)
    changed = {**labels, **change(folder)}
    seen = stop_after(monkeypatch, 99)
    predict(folder / "in" / "a.tif", folder / "maps", knowing(), overlap=0, **changed)
    assert len(seen) == SEEN
    expected = read(folder / "in" / "a.tif")[0] > LIMIT
    np.testing.assert_array_equal(read(folder / "maps" / "a_classes.tif")[0], expected)


@second_again
def test_a_raster_that_fails_leaves_the_maps_of_the_others_known(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(folder / "in", folder / "whole", overlap=0)
    sound = (folder / "in" / "b.tif").read_bytes()
    (folder / "in" / "b.tif").write_text("no raster")
    with pytest.raises(DataError, match="1 of 3"):
        predict(folder / "in", folder / "maps", overlap=0)
    (folder / "in" / "b.tif").write_bytes(sound)
    seen = stop_after(monkeypatch, 99)
    predict(folder / "in", folder / "maps", overlap=0)
    assert len(seen) == SEEN
    same(folder)


def test_a_command_that_has_ended_makes_its_maps_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict(folder / "in" / "a.tif", folder / "maps", overlap=0)
    assert not [name for name in names(folder / "maps") if name.startswith(".")]
    seen = stop_after(monkeypatch, 99)
    assert len(predict(folder / "in" / "a.tif", folder / "maps", overlap=0)) == 1
    assert len(seen) == SEEN


@lost_numbers
def test_the_summary_is_kept_up_as_maps_finish(folder: Path) -> None:
    predict(folder / "in", folder / "whole", overlap=0)
    stopped(folder, 2 * SEEN)
    found = numbers(folder / "maps")
    assert found["maps"] == {name: numbers(folder / "whole")["maps"][name] for name in "ab"}
    assert found["total"]["pixels"] == 2 * 192 * 100


@lost_numbers
def test_a_summary_that_takes_long_to_write_is_written_less_often(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(summary.time, "monotonic", lambda: next(clock))
    written = []
    monkeypatch.setattr(summary, "atomic_write", lambda path, *_, **__: written.append(path))
    kept = summary.Summary(folder, ("low", "high"), ["x"])
    kept.fail("x", "no raster")
    for _ in range(100):
        kept.write_if_due()
    # each write takes a second, and 20 of the seconds in which a call takes one follow it
    assert len(written) == 5


@lost_numbers
@pytest.mark.parametrize("windows", [0, 3])
def test_the_numbers_of_skipped_maps_outlive_a_stop(folder: Path, windows: int) -> None:
    predict(folder / "in", folder / "maps", overlap=0)
    before = numbers(folder / "maps")
    (folder / "maps" / "b_classes.tif").unlink()
    stopped(folder, windows, exists="skip")  # a is skipped, b begun, c not come to
    assert numbers(folder / "maps")["maps"] == before["maps"]
    predict(folder / "in", folder / "maps", overlap=0, exists="skip")
    assert numbers(folder / "maps") == before


@pytest.mark.fault("resume", "durations were those of a clock that can go back")
def test_a_clock_that_is_set_back_makes_no_map_faster(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(2_000_000_000, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    predict(folder / "in" / "a.tif", folder / "maps", overlap=0)
    entry = json.loads((folder / "maps" / "summary.json").read_text())["maps"]["a"]
    assert 0 < entry["seconds"] < 600
    assert entry["megapixels_per_second"] == pytest.approx(0.0192 / entry["seconds"], rel=0.05)


# --- several processes -------------------------------------------------------------------------------------


@contextmanager
def holder(folder: Path, *held: str) -> Iterator["subprocess.Popen[str]"]:
    """Another process that makes maps there."""
    code = (
        "import pathlib, sys, time; from geo_seg.runtime.lock import maps_lock\n"
        "with maps_lock(pathlib.Path(sys.argv[1]), sys.argv[2:]): print(flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(folder), *held]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "\n"
        yield process
        process.kill()


@one_map
def test_a_map_that_another_process_makes_is_an_error_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = folder / "maps"
    maps.mkdir()
    seen = stop_after(monkeypatch, 99)
    with holder(maps, "x", "b") as process:
        with pytest.raises(ConfigError, match="another process is making the map b there; wait for it"):
            predict(folder / "in", maps)
        assert seen == []
        assert names(maps) == [".maps.lock"]
        predict(folder / "in" / "a.tif", maps)  # is nobody's
        assert names(maps) == [".maps.lock", *(f"a_classes{end}" for end in (".qml", ".tif", ".tif.aux.xml"))]
        process.kill()
        process.wait()
        predict(folder / "in" / "b.tif", maps)
    assert not [name for name in names(maps) if name.startswith(".")]


@one_map
def test_a_dry_run_neither_waits_nor_writes_where_maps_are_made(folder: Path) -> None:
    (folder / "maps").mkdir()
    (folder / "maps" / "a_classes.tif").touch()
    with holder(folder / "maps", "a"):
        for exists in ("overwrite", "skip"):
            predict(folder / "in" / "a.tif", folder / "maps", dry_run=True, exists=exists)
        assert sorted(path.name for path in (folder / "maps").iterdir()) == [".maps.lock", "a_classes.tif"]


@one_map
def test_a_lock_file_that_is_removed_in_between_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = fcntl.lockf
    removals = 0

    def removing(file: Any, *rest: Any) -> None:
        nonlocal removals
        if removals < 2:
            removals += 1
            (tmp_path / ".maps.lock").unlink()
        true(file, *rest)

    monkeypatch.setattr(fcntl, "lockf", removing)
    with maps_lock(tmp_path, ["a"]):
        code = (
            "import pathlib, sys; from geo_seg.runtime.lock import maps_lock\n"
            "with maps_lock(pathlib.Path(sys.argv[1]), ['a']): pass"
        )
        command = [sys.executable, "-c", code, str(tmp_path)]
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert removals == 2
    assert "another process is making the map a" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def no_locks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)


def not_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".maps.lock").mkdir()  # as little can be opened as the file of another user


@one_map
@pytest.mark.parametrize("lacking", [no_locks, not_ours])
def test_where_there_are_no_locks_maps_are_made_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: Callable[[Path, pytest.MonkeyPatch], None]
) -> None:
    lacking(tmp_path, monkeypatch)
    entered = False
    with maps_lock(tmp_path, ["a"]):
        entered = True
    assert entered


@one_map
@pytest.mark.slow
def test_of_two_commands_at_once_one_makes_the_map_and_one_says_why_not(folder: Path) -> None:
    (folder / "run").mkdir()
    command = [
        sys.executable,
        str(REPOSITORY / "inference.py"),
        f"checkpoint={write_checkpoint(folder / 'run')}",
    ]
    command += [f"input={folder / 'in'}", f"output={folder / 'maps'}", "overlap=0", "accelerator=cpu"]
    two = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
        for _ in range(2)
    ]
    said = {process.wait(): process.communicate()[1] for process in two}
    if sorted(said) == [0, 2]:
        assert said[2].count("\n") == 1
        assert "another process is making the map" in said[2]
    else:
        assert list(said) == [0], said  # one had ended before the other one came to it
    for name in NAMES:
        expected = read(folder / "in" / f"{name}.tif").shape[1:]
        assert read(folder / "maps" / f"{name}_classes.tif")[0].shape == expected


# --- who looks ---------------------------------------------------------------------------------------------


@pytest.mark.fault("resume", "a resumed map did not say what is there already")
@pytest.mark.parametrize(("windows", "parts"), [(3, 1), (5, 2)])
def test_a_map_that_goes_on_says_what_is_there_already(
    folder: Path, capsys: pytest.CaptureFixture[str], windows: int, parts: int
) -> None:
    stopped(folder, SEEN + windows)
    capsys.readouterr()
    predict(folder / "in", folder / "maps", knowing(), overlap=0)
    said = capsys.readouterr().out
    assert f"{folder / 'maps' / 'a_classes.tif'}: exists already, made by this command before" in said
    assert f"{folder / 'maps' / 'b_classes.tif'}: resuming; {parts} of 3 parts are done already" in said
    assert "c_classes.tif: resuming" not in said


@pytest.mark.fault("resume", "ctrl-C in mapping did not say how to go on")
def test_ctrl_c_says_what_is_made_and_the_line_to_go_on_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["inference.py", "checkpoint=run", f"input={folder / 'in'}", "output=my maps"]
    monkeypatch.setattr(sys, "argv", line)
    true, seen = Predictor.logits, []

    def interrupted(self: Predictor, *rest: Any) -> Any:
        seen.append(1)
        if len(seen) > SEEN:
            raise KeyboardInterrupt
        return true(self, *rest)

    monkeypatch.setattr(Predictor, "logits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(folder / "in", folder / "maps", overlap=0)
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last == [
        "stopped; 1 of 3 maps were made; resume with",
        f"python inference.py checkpoint=run input={folder / 'in'} 'output=my maps'",
    ]
