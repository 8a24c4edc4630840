"""What a run tells beside its table: steps, speed, and loggers of other programs."""

import csv
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from geo_seg.config.dataset import DatasetConfig
from geo_seg.training.callbacks import throughput
from geo_seg.training.loggers import StepCSVLogger
from geo_seg.training.run import run as train
from tests.end_to_end.test_interrupted_training import COURSE, again, interrupt
from tests.end_to_end.test_training import clean_hydra, configured, rows  # noqa: F401 - a fixture

SHORT = ["trainer.max_epochs=2", "+trainer.log_every_n_steps=1"]


def table(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def interrupted(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """A run that is stopped in its second epoch, and goes on."""
    with monkeypatch.context() as patch:
        interrupt(patch, "on_train_batch_end", 6, signal.SIGTERM)
        with pytest.raises(SystemExit):
            train(configured(root, *COURSE, *SHORT, *options), folder)
    train(again(root, folder, *SHORT, *options), folder)


def test_the_table_of_steps_grows_new_columns_and_replaces_the_lines_that_come_again(tmp_path: Path) -> None:
    log = StepCSVLogger(tmp_path)
    log.log_metrics({"a": 1}, 0)
    log.log_metrics({"a": 2}, 1)
    log.log_metrics({"b": 3}, 1)
    log.log_metrics({"a": 4}, 2)
    log = StepCSVLogger(tmp_path)  # goes on from a checkpoint after step 0
    log.log_metrics({"a": 5}, 1)
    log.log_metrics({"a": 6, "c": 7}, 2)
    assert (tmp_path / "steps" / "metrics.csv").read_text().split() == [
        "step,a,b,c",
        "0,1.0,,",
        "1,5.0,,",
        "2,6.0,,7.0",
    ]


def test_the_steps_of_an_interrupted_run_are_those_of_a_whole_one(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(small_root, tmp_path / "run", monkeypatch, "logger=csv")
    train(configured(small_root, *COURSE, *SHORT, "logger=csv"), tmp_path / "whole")
    both = []
    for name in ("run", "whole"):
        lines = table(tmp_path / name / "steps" / "metrics.csv")
        both.append([{k: v for k, v in line.items() if not k.startswith("system/")} for line in lines])
    assert both[0] == both[1]
    assert [line["step"] for line in both[0] if line["train/loss_step"]] == [str(i) for i in range(8)]
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (
        tmp_path / "whole" / "metrics.csv"
    ).read_bytes()
    found = table(tmp_path / "run" / "system.csv")
    assert [row["epoch"] for row in found] == ["0", "1"]
    assert all(0 <= float(row["data_wait_share"]) <= 1 for row in found)
    assert not any("system" in name for name in rows(tmp_path / "run")[0])  # which is the same everywhere


@pytest.mark.parametrize(
    ("decoded", "wait", "said"),
    [
        (False, 0.05, ""),
        (False, 0.2, "17% of the time the model waits for windows; dataset.cache=memmap"),
        (True, 0.2, "a faster disk"),
    ],
)
def test_speed_counts_steps_alone_and_says_once_that_the_model_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: bool, wait: float, said: str
) -> None:
    now = 0.0
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now)
    loader = SimpleNamespace(wait_seconds=0.0)
    trainer: Any = SimpleNamespace(
        train_dataloader=loader, world_size=2, is_global_zero=True, current_epoch=0, loggers=[], global_step=9
    )
    module: Any = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    lines: list[str] = []
    advice = throughput.reading_advice(DatasetConfig(num_threads=10**6), decoded)
    counted = throughput.ThroughputLogger(tmp_path / "system.csv", lines.append, advice)
    for epoch, setting_up in ((0, 100.0), (1, 1.0)):
        trainer.current_epoch = epoch
        counted.on_train_epoch_start(trainer, module)
        for batch in range(11):
            loader.wait_seconds += wait if batch or epoch else setting_up
            now += 1.0 + wait if batch or epoch else setting_up
            counted.on_train_batch_end(trainer, module, None, {"labels": [0] * 4}, batch)
        counted.on_validation_start(trainer, module)
        now += 1000.0
        counted.on_validation_end(trainer, module)
        counted.on_train_epoch_end(trainer, module)
    for row in table(tmp_path / "system.csv"):
        assert float(row["step_seconds"]) == pytest.approx(1 + wait)
        assert float(row["samples_per_second"]) == pytest.approx(4 * 2 / (1 + wait))
        assert float(row["data_wait_share"]) == pytest.approx(wait / (1 + wait))
    assert len(lines) == bool(said)
    assert said in "".join(lines)


@pytest.mark.slow
def test_tensorboard_has_curves_scores_configuration_and_pictures(small_root: Path, tmp_path: Path) -> None:
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(configured(small_root, *COURSE, *SHORT, "logger=[csv,tensorboard]"), tmp_path / "run")
    found = loading.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    tags = found.Tags()
    assert {"val/miou", "train/loss_step", "system/step_seconds", "best_val_miou"} <= set(tags["scalars"])
    assert len(found.Scalars("train/loss_step")) == 8
    assert {"figures/confusion", "figures/curves"} < set(tags["images"])
    assert "config/text_summary" in tags["tensors"]
    assert (tmp_path / "run" / "steps" / "metrics.csv").exists()


@pytest.mark.slow
def test_mlflow_keeps_an_interrupted_run_as_one_with_its_configuration_and_pictures(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    interrupted(small_root, tmp_path / "run", monkeypatch, "logger=mlflow")
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("own")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params["dataset/window"] == "32"
    assert {"val/miou", "train/loss_step", "system/step_seconds", "best_val_miou"} <= run.data.metrics.keys()
    listed = {file.path for file in client.list_artifacts(run.info.run_id, "figures")}
    assert {"figures/confusion.png", "figures/curves.png"} < listed
    held = client.download_artifacts(run.info.run_id, "config.yaml")
    assert yaml.safe_load(Path(held).read_text())["loss"]["name"] == "weighted_cross_entropy"


@pytest.mark.slow
def test_wandb_keeps_an_interrupted_run_under_one_name_without_a_network(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    interrupted(small_root, tmp_path / "run", monkeypatch, "logger=wandb")
    parts = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len({part.name.rpartition("-")[2] for part in parts}) == 1
    pictures = {
        file.name.rpartition("_")[0].rpartition("_")[0] for part in parts for file in part.rglob("*.png")
    }
    assert {"confusion", "curves"} < pictures
