"""A run is resumed by the line that started it; what the run doesn't have is refused."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.run_config import resolve_config
from geo_seg.config.training import TrainConfig
from geo_seg.errors import ConfigError
from tests.conftest import REPOSITORY

FIRST = [
    *("dataset=own", "dataset.root=x", "dataset.classes=[a,b]", "dataset.window=64", "loss=focal"),
    *("loss.gamma=3", "optimizer=sgd", "average=ema", "callbacks=none", "seed=7"),
    *("trainer=cpu", "trainer.max_epochs=5", "experiment=short_cpu", "logger=csv", "launcher=process"),
]


@pytest.fixture(autouse=True)
def clean_hydra(hydra_restore_singletons: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves no state of Hydra's behind, and no words of pytest's on the command line."""
    monkeypatch.setattr("sys.argv", ["train.py"])


def resolved(*words: str) -> TrainConfig:
    """The configuration that a command line stands for."""
    register_schemas()
    with initialize_config_dir(str(REPOSITORY / "config"), version_base="1.3"):
        return resolve_config(compose("train", [*words]), words)


def write_run(folder: Path, config: TrainConfig) -> None:
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False))


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", resolved(*FIRST))
    return tmp_path / "run"


def test_the_line_that_started_a_run_resumes_it(run_folder: Path) -> None:
    again = resolved(*FIRST, f"resume={run_folder}")
    assert asdict(again) == {**asdict(resolved(*FIRST)), "resume": str(run_folder)}


@pytest.mark.parametrize(
    "words",
    [["seed=7"], ["loss=focal", "loss.gamma=3"], ["logger=csv"], ["trainer=cpu"], ["launcher=process"]],
    ids=" ".join,
)
def test_a_part_of_the_line_is_taken_too(run_folder: Path, words: list[str]) -> None:
    assert asdict(resolved(*words, f"resume={run_folder}"))["loss"] == {
        "name": "focal",
        "gamma": 3.0,
        "alpha": None,
    }


@pytest.mark.parametrize(
    ("words", "differing"),
    [
        (["seed=8"], "seed=8: the run has seed=7; resume= continues with the run's own configuration"),
        (["loss=dice"], "loss=dice: the run has loss.name=focal"),
        (["loss=focal"], "loss=focal: the run has loss.gamma=3"),
        (["+loss.alpha=0.3"], "the run has loss.alpha="),
        (["dataset.window=128"], "dataset.window=128: the run has dataset.window=64"),
        (["model=segformer"], "model=segformer: the run has model.name="),
    ],
)
def test_another_value_than_the_runs_is_refused_with_both(
    run_folder: Path, words: list[str], differing: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        resolved(*words, f"resume={run_folder}")
    assert differing in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_may_change_is_taken_beside_the_runs_own(run_folder: Path) -> None:
    again = resolved("seed=7", "trainer.max_epochs=9", "trainer=cpu", f"resume={run_folder}")
    assert (again.trainer["max_epochs"], again.seed, again.dataset.window) == (9, 7, 64)


def test_what_find_has_found_is_the_runs_own(tmp_path: Path) -> None:
    words = ["find=both", "optimizer=sgd", "dataset=demo"]
    config = resolved(*words)
    config.find, config.dataset.batch_size = "none", 2  # as it is written after the search
    config.optimizer["lr"] = 0.123
    write_run(tmp_path / "run", config)
    again = resolved(*words, f"resume={tmp_path / 'run'}")
    assert (again.find, again.dataset.batch_size, again.optimizer["lr"]) == ("none", 2, 0.123)


def test_a_line_that_is_refused_leaves_no_folder_and_the_run_as_it_was(run_folder: Path) -> None:
    before = sorted(run_folder.parent.rglob("*"))
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), "resume=run", "seed=8", "hydra.run.dir=other"],
        cwd=run_folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: seed=8: the run has seed=7; ")
    assert sorted(run_folder.parent.rglob("*")) == before
