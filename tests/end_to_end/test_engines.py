"""Several processes make the bytes that one makes, also when one of them is killed on the way."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, write_raster
from tests.end_to_end.test_inference import draw, maps, write_checkpoint

pytestmark = pytest.mark.slow

OPTIONS = ("window=64", "margin=0", "overlap=16", "precision=fp32", "probabilities=top")
with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts inference on the folder in, perhaps through another program."""
    (tmp_path / "run").mkdir()
    trained = write_checkpoint(tmp_path / "run")
    running = []

    def begin(output: str, *options: str, through: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        command = [sys.executable, *through, str(REPOSITORY / "inference.py"), f"checkpoint={trained}"]
        found = subprocess.Popen(
            [*command, "input=in", f"output={output}", *OPTIONS, *options],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        running.append(found)
        return found

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def done(process: "subprocess.Popen[str]", code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, err
    return out, err


def same(first: Path, second: Path) -> None:
    assert maps(first) == maps(second) != []
    for name in maps(first):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.fixture
def rasters(tmp_path: Path) -> Path:
    """One raster of three parts, and two small ones."""
    write_raster(tmp_path / "in" / "tall.tif", draw((2, 4300, 64)))
    for seed in (1, 2):
        write_raster(tmp_path / "in" / f"small{seed}.tif", draw((2, 90, 70), seed))
    return tmp_path


TWO_RANKS = ("-m", "torch.distributed.run", "--nproc-per-node", "2")


def test_two_ranks_share_rasters_and_their_parts_and_report_what_fails(start: Start, rasters: Path) -> None:
    done(start("one"))
    sound = rasters / "in" / "small1.tif"
    sound.rename(rasters / "small1.tif")
    (rasters / "in" / "small1.tif").write_text("broken")
    out, err = done(start("two", "engine=torchrun", through=TWO_RANKS), code=1)  # torchrun's own code
    assert "small1.tif: cannot be opened as a raster" in err
    assert out.count("two/tall_classes.tif: 0.28 Mpx") == 1
    sound.unlink()
    (rasters / "small1.tif").rename(sound)
    done(start("two", "engine=torchrun", "exists=skip", through=TWO_RANKS))
    same(rasters / "one", rasters / "two")


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    """Workers of Ray that a process has started, directly or not."""
    parents, names = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                names[int(folder.name)] = (folder / "cmdline").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(state[1])

    def below(pid: int) -> bool:
        return pid == process.pid or (pid in parents and below(parents[pid]))

    return [pid for pid, name in names.items() if name.startswith(b"ray::Worker.predict") and below(pid)]


@with_ray
def test_the_parts_of_a_ray_worker_that_is_killed_are_made_by_others(start: Start, rasters: Path) -> None:
    done(start("one"))
    process = start("ray", "engine=ray", "workers=2")
    while not (killed := workers_of(process)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.kill(killed[0], signal.SIGKILL)
    out, err = done(process)
    assert err == ""
    assert out.count("ray/tall_classes.tif: 0.28 Mpx") == 1
    same(rasters / "one", rasters / "ray")


@with_ray
def test_a_raster_that_fails_on_ray_is_reported_and_the_others_are_mapped(
    start: Start, rasters: Path
) -> None:
    tall = rasters / "in" / "tall.tif"
    write_raster(tall, draw((2, 4300, 64)), compress="deflate")
    tall.write_bytes(tall.read_bytes()[:-20000])
    _, err = done(start("ray", "engine=ray", "workers=1"), code=2)
    assert "tall.tif: rows" in err
    assert "1 of 3 rasters were not mapped" in err
    assert [name for name in maps(rasters / "ray") if "classes" in name] == [
        "small1_classes.tif",
        "small2_classes.tif",
    ]
