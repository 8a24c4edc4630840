"""Slots, devices, threads, identity: what a sweep's processes get and when a run counts as the same."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.training import TrainConfig
from geo_seg.data.fingerprint import data_fingerprint
from geo_seg.errors import ConfigError
from geo_seg.run_folder import config_hash, run_hashes, write_run_state
from geo_seg.runtime.lock import folder_lock
from geo_seg.runtime.ranks import rank, strip_rank_env
from geo_seg.sweeps.jobs import device_count, finished_run, interrupted_run
from geo_seg.sweeps.outcomes import Outcome, read_outcome, write_outcome
from geo_seg.sweeps.processes import Command, ProcessResult, run_all, slot_environment
from tests.conftest import draw_scene


def commands(folder: Path, *codes: str) -> list[Command]:
    return [Command(i, [sys.executable, "-c", code], folder / f"{i}.log") for i, code in enumerate(codes)]


def finish(jobs: list[Command], slots: int = 1, **options: object) -> dict[int, ProcessResult]:
    settings = {"devices": None, "threads": None, "started": lambda c: None, "stop": lambda n: False}
    return {end.number: end for end in run_all(jobs, slots=slots, **{**settings, **options})}  # type: ignore[arg-type]


def test_every_command_ends_with_its_code_and_its_own_log(tmp_path: Path) -> None:
    found = finish(commands(tmp_path, "print('one')", "raise SystemExit(3)", "print('three')"), slots=2)
    assert [found[i].code for i in range(3)] == [0, 3, 0]
    assert (tmp_path / "2.log").read_text() == "three\n"


def test_no_more_run_at_a_time_than_there_are_slots(tmp_path: Path) -> None:
    code = (
        "import os, time, pathlib\n"
        f"root = pathlib.Path({str(tmp_path)!r}); mine = root / f'{{os.getpid()}}.on'; mine.touch()\n"
        "time.sleep(.3); print(len(list(root.glob('*.on')))); mine.unlink()"
    )
    finish(commands(tmp_path, *[code] * 4), slots=2)
    assert max(int((tmp_path / f"{i}.log").read_text()) for i in range(4)) <= 2


def test_slots_share_out_devices_and_threads_and_forget_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    assert rank() == 1
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = [slot_environment(slot, 2, [0, 1, 2, 3], None) for slot in range(2)]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in found] == ["0,2", "1,3"]
    cores = len(os.sched_getaffinity(0))
    assert found[0]["OMP_NUM_THREADS"] == str(max(cores // 2, 1))
    assert slot_environment(0, 1, None, 7)["OMP_NUM_THREADS"] == "7"
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID"} & set(found[0])
    assert "PATH" in strip_rank_env(os.environ)


def test_a_hopeless_run_is_stopped_and_its_slot_goes_on(tmp_path: Path) -> None:
    jobs = commands(tmp_path, "import time; time.sleep(60)", "print('next')")
    begin = time.monotonic()
    found = finish(jobs, stop=lambda number: number == 0 and time.monotonic() - begin > 1)
    assert found[0].stopped and found[0].code == -signal.SIGTERM
    assert found[1].code == 0 and not found[1].stopped


def test_a_stopped_sweep_leaves_no_process_behind(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    script = (
        "import sys; from pathlib import Path; from geo_seg.sweeps.processes import Command, run_all\n"
        f"job = Command(0, [sys.executable, '-c', 'import time; time.sleep(60)'], Path({log!r}))\n"
        "start = lambda c: print('started', flush=True)\n"
        "list(run_all([job], slots=1, devices=None, threads=None, started=start, stop=lambda n: False))"
    )
    sweep = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert sweep.stdout is not None
    assert sweep.stdout.readline() == b"started\n"
    children = Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children")
    if not children.exists():
        sweep.kill()
        pytest.skip("this system doesn't list the children of a process")
    (child,) = children.read_text().split()
    sweep.send_signal(signal.SIGTERM)
    sweep.communicate(timeout=30)
    assert not Path(f"/proc/{child}").exists()


def a_config(small: DatasetConfig, **changes: object) -> TrainConfig:
    sections = ("model", "loss", "optimizer", "scheduler", "trainer")
    return dataclasses.replace(TrainConfig(dataset=small, **{name: {} for name in sections}), **changes)  # type: ignore[arg-type]


def test_a_finished_run_is_found_beside_the_sweep_until_anything_changes(
    small: DatasetConfig, tmp_path: Path
) -> None:
    config = a_config(small)
    (run := tmp_path / "sweeps" / "a" / "0").mkdir(parents=True)
    new = tmp_path / "sweeps" / "b"
    found = run_hashes(config, data_fingerprint(small, 0))
    write_run_state(run, found, finished=False)
    assert finished_run(config, new) is None
    write_run_state(run, {**found, "data": "another"}, finished=True)
    assert finished_run(config, new) is None
    write_run_state(run, found, finished=True)
    assert finished_run(config, new) == run
    assert finished_run(a_config(small, debug=True), new) == run
    assert finished_run(a_config(small, seed=1), new) is None
    assert finished_run(a_config(small, loss={"name": "dice"}), new) is None
    assert config_hash(a_config(small, seed=1)) != config_hash(config)


def test_a_broken_run_is_found_if_it_can_go_on_and_nobody_is_at_it(
    small: DatasetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geo_seg.sweeps.jobs.GRACE", 0.1)  # nobody waits for the one that holds a run
    config = a_config(small)
    old, own = tmp_path / "sweeps" / "a" / "0", tmp_path / "sweeps" / "b" / "0"
    for run in (old, own):
        run.mkdir(parents=True)
        write_run_state(run, run_hashes(config, data_fingerprint(small, 0)), finished=False)
    assert interrupted_run(config, own) is None  # nothing to go on from
    for run in (old, own):
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "last.ckpt").touch()
    assert interrupted_run(config, own) == own
    assert interrupted_run(config, own, claimed={own}) == old
    assert interrupted_run(a_config(small, seed=1), own) is None
    with folder_lock(own):
        assert interrupted_run(config, own) == old
        with pytest.raises(ConfigError, match="another process"), folder_lock(own):
            pass
    assert interrupted_run(config, own) == own


def test_the_fingerprint_of_data_follows_pixels_and_splits_and_not_places_or_times(
    small: DatasetConfig, small_root: Path, tmp_path: Path
) -> None:
    known = data_fingerprint(small, 0)
    shutil.copytree(small_root, tmp_path / "copy", copy_function=shutil.copyfile)
    copied = dataclasses.replace(small, root=str(tmp_path / "copy"))
    assert data_fingerprint(copied, 0) == known
    mask = draw_scene(3)[1]
    moved = np.roll(mask, 1, axis=1)  # the same pixels, and as many of each class, elsewhere
    moved[:, :8] = mask[:, :8]
    with rasterio.open(tmp_path / "copy" / "masks" / "s3.tif", "r+") as file:
        file.write(moved, 1)
    changed = data_fingerprint(copied, 0)
    assert changed != known
    copied.split = dataclasses.replace(copied.split, val="images/s3.tif")
    assert data_fingerprint(copied, 0) not in {known, changed}


def test_an_outcome_is_read_as_it_was_written_and_a_broken_one_counts_as_running(tmp_path: Path) -> None:
    outcome = Outcome("reused", ("loss=dice",), 0.5, run="../a/0")
    write_outcome(tmp_path, outcome)
    assert read_outcome(tmp_path) == outcome
    went_on = Outcome("running", ("loss=dice",), run="../a/0")
    write_outcome(tmp_path / "b" / "0", went_on)
    assert read_outcome(tmp_path / "b" / "0") == went_on
    (tmp_path / "a" / "0").mkdir(parents=True)
    write_run_state(tmp_path / "a" / "0", {}, finished=True)
    assert read_outcome(tmp_path / "b" / "0").status == "done"  # and the sweep was killed before it said so
    (tmp_path / "outcome.json").write_text("{")
    assert read_outcome(tmp_path).status == "running"


@pytest.mark.parametrize(
    ("trainer", "count"),
    [
        ({"devices": 1}, 1),
        ({}, 1),
        ({"devices": 2}, 2),
        ({"devices": [0, 3]}, 2),
        ({"devices": "0,1,2"}, 3),
        ({"devices": "auto", "accelerator": "cpu"}, 1),
        ({"devices": "auto", "accelerator": "gpu"}, -1),
        ({"devices": 1, "num_nodes": 2}, 2),
    ],
)
def test_the_processes_that_a_run_asks_for_are_counted(trainer: dict[str, object], count: int) -> None:
    assert device_count(trainer) == count
