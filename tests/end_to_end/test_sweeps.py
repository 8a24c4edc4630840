"""A sweep trains what is missing, goes on after failures and interruptions, and compares at its end."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Run, small_overrides

pytestmark = pytest.mark.slow
PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}


def table(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "leaderboard.csv").open() as file:
        return list(csv.DictReader(file))


def statuses(sweep: Path) -> dict[str, str]:
    return {row["run"]: row["status"] for row in table(sweep)}


def trained(folder: Path) -> set[str]:
    return {str(p.parent.relative_to(folder)) for p in folder.rglob("run.json")}


def test_the_same_command_again_trains_only_what_is_missing(
    run: Run, small_root: Path, tmp_path: Path
) -> None:
    words = ["-m", *small_overrides(small_root), "seed=0,1"]
    assert run("train.py", *words, "hydra.sweep.dir=sweeps/a").returncode == 0
    assert statuses(tmp_path / "sweeps" / "a") == {
        f"{i}_unet_weighted_cross_entropy": "done" for i in range(2)
    }

    broken = tmp_path / "sweeps" / "a" / "1_unet_weighted_cross_entropy"
    said = json.loads((broken / "run.json").read_text())
    other = {**said, "code": "of another day", "finished": False}  # as a power cut leaves it, and an update
    (broken / "run.json").write_text(json.dumps(other))
    (broken / "outcome.json").unlink()
    assert run("train.py", *words, "hydra.sweep.dir=sweeps/a").returncode == 0
    assert statuses(tmp_path / "sweeps" / "a") == {
        f"{i}_unet_weighted_cross_entropy": "done" for i in range(2)
    }
    assert (
        tmp_path / "sweeps" / "a" / "earlier" / "1_unet_weighted_cross_entropy.1" / "metrics.csv"
    ).exists()

    before = trained(tmp_path)
    assert run("train.py", *words, "hydra.sweep.dir=sweeps/b").returncode == 0
    assert trained(tmp_path) == before
    assert set(statuses(tmp_path / "sweeps" / "b").values()) == {"reused"}
    values = [[row["best_val_miou"] for row in table(tmp_path / "sweeps" / name)] for name in "ab"]
    assert values[0] == values[1]

    once = [word for word in words if word != "seed=0,1"]
    assert run("train.py", *once, "hydra.launcher.reuse=false", "hydra.sweep.dir=sweeps/c").returncode == 0
    assert statuses(tmp_path / "sweeps" / "c") == {"0_unet_weighted_cross_entropy": "done"}

    again = run("train.py", "mode=leaderboard", "sweep=sweeps/b")
    assert again.returncode == 0
    assert "2 runs: 2 reused" in again.stdout
    assert not (tmp_path / "runs").exists()


def in_the_middle(words: list[str], folder: Path, run: str) -> "subprocess.Popen[bytes]":
    """Starts a sweep, and waits until its first run is in the middle."""
    command = [sys.executable, str(REPOSITORY / "train.py"), *words]
    sweep = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    table, until = folder / run / "metrics.csv", time.monotonic() + 240
    while not (table.exists() and table.read_text().count("\n") > 2) and time.monotonic() < until:
        time.sleep(0.02)
    return sweep


def killed(words: list[str], folder: Path, run: str) -> None:
    """Starts a sweep, kills its first run in the middle, and waits for the end of the others."""
    sweep = in_the_middle(words, folder, run)
    children = Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert sweep.wait(timeout=240) == 2


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system doesn't list children")
@pytest.mark.parametrize("launcher", ["process", "submitit_local"])
def test_a_run_that_was_killed_goes_on_in_the_next_sweep_to_the_very_table_of_a_whole_one(
    run: Run, small_root: Path, tmp_path: Path, launcher: str
) -> None:
    if launcher != "process":
        pytest.importorskip(PLUGINS[launcher])
    long = ["trainer.max_epochs=6", "trainer.limit_train_batches=8", "trainer.precision=32"]
    words = ["-m", *small_overrides(small_root), *long, "seed=0,1"]
    name = "0_unet_weighted_cross_entropy"
    killed([*words, "hydra.sweep.dir=sweeps/a"], tmp_path, f"sweeps/a/{name}")
    assert statuses(tmp_path / "sweeps" / "a") == {name: "failed", "1_unet_weighted_cross_entropy": "done"}

    again = run("train.py", *words, f"launcher={launcher}", "hydra.sweep.dir=sweeps/b")
    assert again.returncode == 0, again.stderr
    assert statuses(tmp_path / "sweeps" / "b") == {name: "done", "1_unet_weighted_cross_entropy": "reused"}
    assert trained(tmp_path) == {f"sweeps/a/{name}", "sweeps/a/1_unet_weighted_cross_entropy"}
    if launcher == "process":
        said = (tmp_path / "sweeps" / "b" / name / "run.log").read_text()
        assert "epoch 6/6" in said
        assert "epoch 1/6" not in said
    whole = run("train.py", *small_overrides(small_root), *long, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    found = tmp_path / "sweeps" / "a" / name / "metrics.csv"
    assert found.read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


@pytest.mark.fault("sweeps", "a sweep that is killed leaves its run training")
def test_a_sweep_that_is_killed_takes_its_run_with_it_and_the_same_command_goes_on_with_that(
    run: Run, small_root: Path, tmp_path: Path
) -> None:
    long = ["trainer.max_epochs=6", "trainer.limit_train_batches=8", "trainer.precision=32"]
    words = ["-m", *small_overrides(small_root), *long, "hydra.sweep.dir=sweeps/a"]
    folder = tmp_path / "sweeps" / "a" / "0_unet_weighted_cross_entropy"
    sweep = in_the_middle(words, tmp_path, str(folder))
    sweep.kill()
    sweep.wait()
    again = run("train.py", *words)
    assert again.returncode == 0, again.stderr
    assert statuses(tmp_path / "sweeps" / "a") == {folder.name: "done"}
    assert trained(tmp_path) == {str(folder.relative_to(tmp_path))}
    said = (folder / "run.log").read_text()
    assert "epoch 6/6" in said
    assert "epoch 1/6" not in said
    whole = run("train.py", *small_overrides(small_root), *long, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    assert (folder / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_a_sweep_ends_at_the_first_failure_when_told_to(run: Run, small_root: Path, tmp_path: Path) -> None:
    words = ["-m", *small_overrides(small_root), "model.encoder=resnt18,resnet18", "hydra.sweep.dir=sweeps/a"]
    result = run("train.py", *words, "hydra.launcher.keep_going=false")
    assert result.returncode == 2
    assert "2 of 2 runs failed" in result.stderr
    assert "not started" in (tmp_path / "sweeps" / "a" / "leaderboard.md").read_text()
    assert len(trained(tmp_path)) == 0


def test_an_interrupted_search_goes_on_where_it_was(small_root: Path, tmp_path: Path, run: Run) -> None:
    pytest.importorskip("optuna")
    words = [
        "-m",
        *small_overrides(small_root),
        "sweeper=optuna",
        "optimizer.lr=tag(log, interval(1e-5, 1e-2))",
    ]
    words += ["hydra.sweeper.trials=2", "hydra.sweeper.startup=1"]
    first = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), *words, "hydra.sweep.dir=sweeps/a"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 240
    while not list(tmp_path.glob("sweeps/a/1_*/run.log")) and time.monotonic() < until:
        time.sleep(0.2)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=90) == 130

    result = run("train.py", *words, "hydra.sweep.dir=sweeps/b")
    assert result.returncode == 0, result.stderr
    found = table(tmp_path / "sweeps" / "b")
    assert sorted(row["status"] for row in found) == ["done", "reused"]
    rates = [float(row["optimizer.lr"]) for row in found]
    assert len(set(rates)) == 2
    assert all(1e-5 <= rate <= 1e-2 for rate in rates)


def test_a_search_stops_runs_that_fall_behind_the_others(small_root: Path, tmp_path: Path, run: Run) -> None:
    pytest.importorskip("optuna")
    words = ["-m", *small_overrides(small_root), "sweeper=optuna", "hydra.sweeper.sampler=random"]
    # rates that learn nothing, and rates that do; the others decide from the second run on
    words += ["optimizer.lr=tag(log, interval(1e-7, 1e-1))", "trainer.max_epochs=15", "scheduler=constant"]
    words += ["hydra.sweeper.trials=4", "hydra.sweeper.startup=1", "hydra.sweeper.warmup=2"]
    result = run("train.py", *words, "hydra.sweep.dir=sweeps/a")
    assert result.returncode == 0, result.stderr
    found = table(tmp_path / "sweeps" / "a")
    stopped = [row for row in found if row["status"] == "pruned"]
    assert stopped
    assert {row["status"] for row in found} == {"done", "pruned"}
    assert found[0]["status"] == "done"
    for row in stopped:
        with (tmp_path / "sweeps" / "a" / row["run"] / "metrics.csv").open() as file:
            assert 2 <= len(list(csv.DictReader(file))) < 15


@pytest.mark.parametrize("launcher", sorted(PLUGINS))
def test_other_launchers_give_the_same_leaderboard_and_refuse_several_devices(
    run: Run, small_root: Path, tmp_path: Path, launcher: str
) -> None:
    if find_spec(PLUGINS[launcher]) is None:
        result = run("train.py", "-m", f"launcher={launcher}", "loss=dice,focal")
        assert result.returncode == 2
        assert f"launcher={launcher}: not installed; pip install" in result.stderr
        return
    words = ["-m", *small_overrides(small_root), f"launcher={launcher}", "trainer.devices=1,2"]
    for name, status in (("a", "done"), ("b", "reused")):
        result = run("train.py", *words, f"hydra.sweep.dir=sweeps/{name}")
        assert result.returncode == 2
        assert statuses(tmp_path / "sweeps" / name) == {
            "0_unet_weighted_cross_entropy": status,
            "1_unet_weighted_cross_entropy": "failed",
        }
        assert "need launcher=process" in (tmp_path / "sweeps" / name / "leaderboard.md").read_text()
    assert trained(tmp_path) == {"sweeps/a/0_unet_weighted_cross_entropy"}
