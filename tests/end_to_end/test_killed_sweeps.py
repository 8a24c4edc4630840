"""A sweep or search that is killed at any write, and started again, ends in the same table."""

import csv
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from geo_seg.runtime.lock import folder_lock
from tests.conftest import REPOSITORY
from tests.end_to_end.killing import Sweeps, sweeps

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")
GRID = ["seed=0,1", "hydra.launcher.slots=2"]
SEARCH = ["sweeper=optuna", "hydra.sweeper.trials=3", "hydra.sweeper.pruner=none", "hydra.launcher.slots=2"]
SEARCH += ["loss=cross_entropy,dice", "optimizer.lr=tag(log, interval(1e-4, 1e-2))"]
A = "hydra.sweep.dir=sweeps/a"
DOCS = (REPOSITORY / "docs" / "sweeps.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def start() -> Iterator[Sweeps]:
    with sweeps() as found:
        yield found


def table(folder: Path) -> list[dict[str, str]]:
    """The leaderboard, but for how long the runs took: that a killed sweep forgets."""
    with (folder / "sweeps" / "a" / "leaderboard.csv").open() as file:
        return [{key: cell for key, cell in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def ranking(folder: Path) -> str:
    return (folder / "sweeps" / "a" / "leaderboard.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True], ids=["before it", "in the middle of it"])
@pytest.mark.parametrize("words", [GRID, SEARCH], ids=["sweep", "search"])
@pytest.mark.fault("sweeps", "kill at every write: the same command ends in the same table")
def test_a_sweep_that_is_killed_at_any_write_ends_in_the_same_table_when_it_is_started_again(
    start: Sweeps, tmp_path: Path, words: list[str], torn: bool
) -> None:
    if words is SEARCH and not find_spec("optuna"):
        pytest.skip("optuna is not installed")
    start.run(tmp_path / "first", [*words, A])  # composes, which the others then find done
    whole = start.run(tmp_path / "whole", [*words, A])
    assert whole["code"] == 0, whole["said"]
    folder, expected = tmp_path / "killed", table(tmp_path / "whole")
    begun = (tmp_path / "whole" / "begun.txt").read_text().splitlines()
    for change in range(1, whole["writes" if torn else "changes"] + 1):
        assert start.run(folder, [*words, A], kill=change, torn=torn)["code"] < 0
        again = start.run(folder, [*words, A])
        assert again["code"] == 0, (change, again["said"])
        assert table(folder) == expected, change
        assert ranking(folder) == ranking(tmp_path / "whole"), change
        assert len((folder / "begun.txt").read_text().splitlines()) <= len(begun) + 1, change
        shutil.rmtree(folder)


@pytest.mark.parametrize("kill", [40, 75])
@pytest.mark.fault("ranks", "a killed search lists one run twice")
def test_a_search_that_was_killed_lists_every_trial_once(start: Sweeps, tmp_path: Path, kill: int) -> None:
    pytest.importorskip("optuna")
    assert start.run(tmp_path, [*SEARCH, A], kill=kill)["code"] < 0
    assert start.run(tmp_path, [*SEARCH, A])["code"] == 0
    found = {row["run"].split("_")[0]: row["status"] for row in table(tmp_path)}
    assert found == {"0": "done", "1": "done", "2": "done"}
    assert len(table(tmp_path)) == 3


@pytest.mark.parametrize(
    "words",
    [
        [*SEARCH[-2:], "dataset.batch_size=range(4, 17, 4)"],
        ["experiment=short_cpu", "optimizer=glob(*)"],
    ],
    ids=["the line of the docs", "with an experiment"],
)
@pytest.mark.fault("sweeps", "sweeper=optuna, a group among the choices and hydra.sweeper.*")
def test_a_search_takes_groups_and_options_of_the_sweeper_together(
    start: Sweeps, tmp_path: Path, words: list[str]
) -> None:
    pytest.importorskip("optuna")
    found = start.run(tmp_path, ["sweeper=optuna", "hydra.sweeper.trials=1", *words, A])
    assert found["code"] == 0, found["said"]
    assert "1 runs: 1 done" in found["said"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*GRID, A], "sweeps/a: a sweep is running there; wait for it"),
        (["loss=dice", A], "sweeps/a: a sweep is running there; wait for it"),
        ([*GRID], "sweeps/a: the same sweep is running there; wait for it"),
    ],
    ids=["the same folder", "another sweep there", "the same sweep"],
)
@pytest.mark.fault("sweeps", "a sweep started twice says so")
def test_a_sweep_that_runs_already_is_not_begun_again(
    start: Sweeps, tmp_path: Path, words: list[str], said: str
) -> None:
    assert start.run(tmp_path, [*GRID, A])["code"] == 0
    before = table(tmp_path)
    with folder_lock(tmp_path / "sweeps" / "a"):
        found = start.run(tmp_path, words)
        assert found["code"] == 2
        assert found["said"].startswith(f"error: {said}")
        assert start.run(tmp_path, ["seed=2", "hydra.sweep.dir=sweeps/other"])["code"] == 0
    assert table(tmp_path) == before
    assert start.run(tmp_path, words)["code"] == 0


@pytest.mark.fault("sweeps", "a folder that is locked is never renamed")
def test_the_folder_of_a_run_that_another_process_trains_stays_where_it_is(
    start: Sweeps, tmp_path: Path
) -> None:
    words = ["seed=0", A]
    assert start.run(tmp_path, words)["code"] == 0
    run = tmp_path / "sweeps" / "a" / "0_unet_weighted_cross_entropy"
    other = {**json.loads((run / "run.json").read_text()), "code": "another", "finished": False}
    (run / "run.json").write_text(json.dumps(other))
    (run / "outcome.json").unlink()
    with folder_lock(run):
        found = start.run(tmp_path, words)
    assert found["code"] == 2
    assert "another process is training there; stop it, or choose another folder" in found["said"]
    assert (run / "checkpoints" / "last.ckpt").exists()
    assert not (run.parent / "earlier").exists()
    assert start.run(tmp_path, words)["code"] == 0
    assert (run.parent / "earlier" / f"{run.name}.1" / "checkpoints" / "last.ckpt").exists()


def test_a_sweep_takes_all_options_of_the_launcher_together(start: Sweeps, tmp_path: Path) -> None:
    words = re.findall(r"^\| `(hydra\.launcher\.[^`]+)` \|", DOCS, re.MULTILINE)
    assert len(words) == 5
    found = start.run(tmp_path, ["seed=0", *words, A])
    assert found["code"] == 0, found["said"]


@pytest.mark.slow
@pytest.mark.fault("sweeps", "a command of docs/sweeps.md is refused")
def test_every_sweep_of_the_docs_runs_as_it_is_written(start: Sweeps, tmp_path: Path) -> None:
    blocks = "\n".join(re.findall(r"```\n(.*?)```", DOCS, re.DOTALL)).replace("\\\n", " ")
    commands = [line.split("#")[0] for line in blocks.splitlines() if line.startswith("python train.py -m ")]
    assert len(commands) == 3
    for number, command in enumerate(commands):
        words = shlex.split(command)[3:]
        if any("optuna" in word for word in words) and not find_spec("optuna"):
            continue
        found = start.run(tmp_path / str(number), [*words, A])
        assert found["code"] == 0, found["said"]
