"""How a run learns: each one-word choice does what it says."""

import copy
import csv
import json
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from geo_seg.checkpoints import checkpoint
from geo_seg.checkpoints.checkpoint import CheckpointMetadata
from geo_seg.data.augment import Augment
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.errors import ConfigError, TrainingError
from geo_seg.training import build, run
from geo_seg.training import results as concluding
from geo_seg.training.callbacks import csv_metrics
from geo_seg.training.callbacks.nan_guard import NaNGuard
from geo_seg.training.evaluation import Validation
from geo_seg.training.module import SegmentationModule
from geo_seg.training.run import run as train
from geo_seg.training.tuner import find_batch_size, suggest_lr
from tests.conftest import REPOSITORY, Run, ended_by_keeping_memory, small_overrides
from tests.end_to_end.test_interrupted_training import SMALL, weights
from tests.end_to_end.test_training import clean_hydra, configured, rows  # noqa: F401 - a fixture

COURSE = [SMALL, "trainer.precision=32", "scheduler=constant", "optimizer=sgd"]


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out pictures and report, which these tests don't look at and which take longest."""
    monkeypatch.setattr(concluding, "write_report", lambda *arguments: None)


def trained(root: Path, folder: Path, *options: str) -> dict[str, torch.Tensor]:
    """Trains; gives what last.ckpt holds."""
    train(configured(root, *COURSE, *options), folder)
    return weights(folder)


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    """The parts of the model in which two checkpoints differ."""
    changed = [key for key in one if not torch.equal(one[key], other[key])]
    return {"encoder" if ".encoder." in key else "decoder" for key in changed}


def test_two_runs_with_one_seed_give_the_same_table_and_weights(small_root: Path, tmp_path: Path) -> None:
    options = [SMALL, "augment=strong", "trainer.max_epochs=2", "trainer.deterministic=true"]
    for name, threads in (("a", 1), ("b", 3)):
        train(configured(small_root, *options, f"dataset.num_threads={threads}"), tmp_path / name)
    assert (tmp_path / "a" / "metrics.csv").read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()
    assert not differing(weights(tmp_path / "a"), weights(tmp_path / "b"))
    torch.use_deterministic_algorithms(False)


def test_training_on_a_processor_keeps_freed_memory(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ended_by_keeping_memory(run, monkeypatch):
        train(configured(small_root, *COURSE), tmp_path / "run")


def test_a_run_reads_the_border_that_its_augmentation_turns_in(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = set()
    original = Augment.forward

    def noted(self: Augment, image: torch.Tensor, *others: Any) -> tuple[torch.Tensor, ...]:
        found = original(self, image, *others)
        sides.add((image.shape[-1], *(part.shape[-1] for part in found)))
        return found

    monkeypatch.setattr(Augment, "forward", noted)
    trained(small_root, tmp_path / "run", "augment=none", "augment.scale=[0.5,1]")
    assert sides == {(64, 32, 32, 32)}


def test_a_run_trains_on_samples_of_ones_own_and_tells_how_long_it_waited(
    small_root: Path, tmp_path: Path
) -> None:
    samples = "dataset.samples={_target_:tests.unit.test_samples.Drawn,count:8}"
    train(configured(small_root, *COURSE, samples, "dataset.windows_per_epoch=8"), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"]
    with (tmp_path / "run" / "system.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert 0 < float(row["data_wait_share"]) < 1


@pytest.mark.parametrize("option", ["optimizer.lr=-1", "scheduler.factor=7"])
def test_values_that_an_optimizer_or_scheduler_refuses_are_answered_in_one_line(
    small_root: Path, tmp_path: Path, option: str
) -> None:
    config = configured(small_root, SMALL, "optimizer=sgd", "scheduler=plateau", option)
    with pytest.raises(ConfigError, match=r"^(optimizer SGD|scheduler ReduceLROnPlateau): \S.+$"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("trainer.limit_train_batches=0", "no epoch would be trained and validated"),
        ("trainer.check_val_every_n_epoch=9", "no epoch would be trained and validated"),
        ("dataset.batch_size=1", "dataset.batch_size=2 or more"),
    ],
)
def test_a_run_that_would_validate_nothing_is_answered_in_one_line(
    small_root: Path, tmp_path: Path, option: str, message: str
) -> None:
    config = configured(small_root, *COURSE, "dataset.windows_per_epoch=8", "dataset.batch_size=4", option)
    with pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run")
    assert not any(tmp_path.glob("run/*"))


@pytest.mark.parametrize(
    "options",
    [[], ["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=2"], ["+trainer.val_check_interval=1.0"]],
    ids=["epochs", "every second epoch", "interval"],
)
def test_a_run_of_fewer_steps_than_an_epoch_is_validated_at_its_end(
    small_root: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["dataset.windows_per_epoch=12", "trainer.limit_train_batches=null", "trainer.max_steps=2"]
    train(configured(small_root, *COURSE, *short, *options), tmp_path / "run")
    told = " ".join(capsys.readouterr().out.split())
    assert "trainer.max_steps=2 ends within the first epoch, of 3 batches" in told
    with (tmp_path / "run" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["step"] == "2" and 0 <= float(row["val/miou"]) <= 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"]
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


def test_the_run_folder_tells_data_revision_and_packages(small_root: Path, tmp_path: Path) -> None:
    trained(small_root, tmp_path / "a")
    trained(small_root, tmp_path / "b", "dataset.split.val=images/s3.tif")
    runs = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("a", "b")]
    assert runs[0]["data"] != runs[1]["data"]
    assert runs[0]["finished"]
    found = json.loads((tmp_path / "a" / "provenance.json").read_text())
    assert {"torch", "python", "revision"} <= found.keys()
    packages = (tmp_path / "a" / "packages.txt").read_text().splitlines()
    assert f"torch=={found['torch']}" in packages


def test_a_frozen_encoder_stays_as_it_is_for_so_many_epochs(small_root: Path, tmp_path: Path) -> None:
    frozen = ["encoder.freeze_epochs=1", "trainer.max_epochs=1"]
    one = trained(small_root, tmp_path / "a", *frozen)
    assert differing(one, trained(small_root, tmp_path / "b", *frozen, "optimizer.lr=0.2")) == {"decoder"}
    longer = trained(small_root, tmp_path / "c", frozen[0], "trainer.max_epochs=2")
    assert differing(one, longer) == {"encoder", "decoder"}


def test_the_encoder_has_a_learning_rate_of_its_own(small_root: Path, tmp_path: Path) -> None:
    def parameters(name: str, factor: float, rate: float) -> dict[str, torch.Tensor]:
        found = trained(small_root, tmp_path / name, f"encoder.lr_factor={factor}", f"optimizer.lr={rate}")
        return {key: value for key, value in found.items() if key.endswith(("weight", "bias"))}

    assert differing(parameters("a", 0, 0.05), parameters("b", 0, 0.1)) == {"decoder"}
    assert differing(parameters("c", 0.5, 0.05), parameters("d", 1, 0.05)) == {"encoder", "decoder"}


def test_swa_is_the_mean_of_the_weights_at_the_ends_of_the_epochs(small_root: Path, tmp_path: Path) -> None:
    options = ["average=swa", "average.start=0"]
    one = trained(small_root, tmp_path / "a", *options)
    two = trained(small_root, tmp_path / "b", *options, "trainer.max_epochs=2")
    names = [key for key in two if key.startswith("model.") and key.endswith(("weight", "bias"))]
    for key in names:
        mean = (one[f"raw {key}"] + two[f"raw {key}"]) / 2
        torch.testing.assert_close(two[key], mean, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(two[key], two[f"raw {key}"]) for key in names)
    late = trained(small_root, tmp_path / "c", "average=swa", "average.start=0.5", "trainer.max_epochs=2")
    assert all(torch.equal(late[key], late[f"raw {key}"]) for key in names)  # one epoch is its own mean


def test_batch_normalisation_has_the_statistics_of_the_averaged_weights(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["average=swa", "average.start=0", "trainer.max_epochs=2", "augment=none", "optimizer.lr=0.5"]
    options += ["loss=cross_entropy"]
    prepared: list[torch.Tensor] = []
    original = SegmentationModule.prepare

    def noted(self: SegmentationModule, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        found = original(self, *arguments)
        prepared.append(found[0])
        return found

    monkeypatch.setattr(SegmentationModule, "prepare", noted)
    found = trained(small_root, tmp_path / "a", *options)
    steps = prepared[-4:]  # two steps of the last epoch, and its windows again
    assert all(torch.equal(one, other) for one, other in zip(steps[:2], steps[2:], strict=True))
    model = checkpoint.load_checkpoint(tmp_path / "a" / "checkpoints" / "last.ckpt").model
    torch.optim.swa_utils.update_bn(steps[2:], model)  # torch's own way
    for key, value in model.state_dict().items():
        torch.testing.assert_close(found[f"model.{key}"], value, rtol=1e-4, atol=1e-5)
    moving = [key for key in found if key.startswith("model.") and key.endswith("running_mean")]
    assert any(not torch.allclose(found[key], found[f"raw {key}"], rtol=0.1) for key in moving)


def test_statistics_of_a_frozen_encoder_stay_as_they_are(small_root: Path, tmp_path: Path) -> None:
    found = trained(small_root, tmp_path / "a", "average=swa", "average.start=0", "encoder.freeze_epochs=9")
    changed = [k for k in found if k.startswith("model.") and not torch.equal(found[k], found[f"raw {k}"])]
    assert {"encoder" if ".encoder." in key else "decoder" for key in changed} == {"decoder"}
    assert all(not key.endswith(("weight", "bias")) for key in changed)  # of one epoch


def test_ema_is_what_validation_sees_and_prediction_gets(small_root: Path, tmp_path: Path) -> None:
    options = ["average=ema", "trainer.max_epochs=2"]
    found = trained(small_root, tmp_path / "a", *options, "average.decay=0.5")
    plain = trained(small_root, tmp_path / "b", "trainer.max_epochs=2")
    assert all(torch.equal(found[f"raw {key}"], plain[key]) for key in plain)  # training knows nothing of it
    assert differing({key: found[key] for key in plain}, plain) == {"encoder", "decoder"}
    assert rows(tmp_path / "a")[0]["val/loss"] != rows(tmp_path / "b")[0]["val/loss"]
    assert rows(tmp_path / "a")[0]["train/loss"] == rows(tmp_path / "b")[0]["train/loss"]
    model = checkpoint.load_checkpoint(tmp_path / "a").model.state_dict()
    best = weights(tmp_path / "a", "best")
    assert all(torch.equal(value, best[f"model.{key}"]) for key, value in model.items())
    other = trained(small_root, tmp_path / "c", *options, "average.decay=0")
    assert all(torch.equal(other[f"raw {key}"], other[key]) for key in plain)


def spoil(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """Makes the images of some training steps NaN; all of them without numbers."""
    original, count = Augment.forward, iter(range(10**6))

    def forward(self: Augment, *arguments: object) -> object:
        image, labels, valid = original(self, *arguments)  # type: ignore[arg-type]
        bad = next(count)
        return image * float("nan") if not calls or bad in calls else image, labels, valid

    monkeypatch.setattr(Augment, "forward", forward)


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_windows(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, 1)
        with pytest.raises(
            TrainingError, match=r"the loss is nan in epoch 0, batch 1 \(images/s\d\.tif rows \d"
        ) as stop:
            trained(small_root, tmp_path / "run")
    assert "\n" not in str(stop.value)
    (note,) = (tmp_path / "run" / "not_finite").glob("*.json")
    kept = torch.load(note.with_suffix(".pt"), weights_only=True)
    assert kept["image"].shape == (4, 2, 32, 32)
    windows = json.loads(note.read_text())["windows"]
    data = SceneDataModule(configured(small_root).dataset, 0)
    for text, image, place in zip(windows, kept["image"], kept["place"], strict=True):
        scene, row, col = place.tolist()
        assert text.startswith(f"{data.scenes['train'][scene].name} rows {row}-{row + 31} columns {col}-")
        assert image.any()
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())
    train(configured(small_root, *COURSE, f"resume={tmp_path / 'run'}"), tmp_path / "run")
    assert (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_a_skipped_step_changes_neither_weights_nor_statistics(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    options = ["on_nan=skip", "trainer.limit_train_batches=1", f"trainer.precision={precision}"]
    spoil(monkeypatch, 0)
    one = trained(small_root, tmp_path / "a", *options)
    spoil(monkeypatch, 0)
    assert not differing(one, trained(small_root, tmp_path / "b", *options, "optimizer.lr=0.3"))
    assert all(value.isfinite().all() for value in one.values())
    assert rows(tmp_path / "a")[0]["train/loss"] == "nan"


@pytest.mark.fault("resume", "on_nan=rollback leaves the mean of the weights as it was")
def test_a_rolled_back_run_goes_on_from_the_last_checkpoint(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["on_nan=rollback", "+optimizer.dampening=0.1", "optimizer.nesterov=false", "average=ema"]
    with monkeypatch.context() as patch:
        spoil(patch, 1)
        back = trained(small_root, tmp_path / "a", *options, "save_minutes=0")
    assert "back to the weights of" in capsys.readouterr().out
    one = trained(small_root, tmp_path / "b", *options, "trainer.limit_train_batches=1")
    assert any(key.startswith("raw ") for key in one)
    assert not differing(one, back)


@pytest.mark.parametrize(
    ("average", "bad"), [("ema", 2), ("swa", 4)], ids=["ema", "swa"]
)  # swa looks at the two windows of the first epoch again
@pytest.mark.fault("resume", "on_nan=rollback leaves the mean of the weights as it was")
def test_a_bad_loss_that_is_seen_late_takes_the_mean_of_the_weights_back_too(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average: str, bad: int
) -> None:
    options = ["on_nan=rollback", f"average={average}"]
    options += ["average.start=0"] if average == "swa" else []
    with monkeypatch.context() as patch:
        patch.setattr(NaNGuard, "on_before_optimizer_step", lambda *_: None)  # as between looks on a GPU
        spoil(patch, bad)
        back = trained(small_root, tmp_path / "a", *options, "trainer.max_epochs=2")
    assert (tmp_path / "a" / "not_finite" / "epoch1_batch0.json").exists()
    one = trained(small_root, tmp_path / "b", *options)
    assert any(key.startswith("raw ") for key in one)
    assert not differing(one, back)


@pytest.mark.parametrize("action", ["skip", "rollback"])
def test_a_run_of_bad_steps_only_is_given_up(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    spoil(monkeypatch)
    with pytest.raises(TrainingError, match="no help 10 times"):
        trained(small_root, tmp_path / "run", f"on_nan={action}", "trainer.max_epochs=9")


def test_the_steepest_fall_of_the_loss_gives_the_learning_rate() -> None:
    rates = np.logspace(-6, 0, 100)
    losses = 1 - 0.5 / (1 + np.exp(-3 * (np.log(rates) - np.log(1e-3)))) + 50 * rates**2
    assert suggest_lr(rates, losses) == pytest.approx(1e-3, rel=0.2)
    with pytest.raises(ConfigError, match="falls at no learning rate"):
        suggest_lr(rates, np.linspace(1, 2, 100))


def test_a_learning_rate_is_found_and_kept_in_the_configuration(small_root: Path, tmp_path: Path) -> None:
    config = configured(small_root, *COURSE, "find=lr", "optimizer=adamw", "trainer.limit_train_batches=20")
    train(config, tmp_path / "a")
    held = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert held["find"] == "none"
    assert 1e-5 < held["optimizer"]["lr"] < 1
    assert held["optimizer"]["lr"] != config.optimizer["lr"]
    assert float(rows(tmp_path / "a")[0]["lr"]) == held["optimizer"]["lr"]
    before = (tmp_path / "a" / "metrics.csv").stat().st_mtime_ns
    train(replace(config, resume="auto"), tmp_path / "a")  # knows what it has found, and that it is finished
    assert (tmp_path / "a" / "metrics.csv").stat().st_mtime_ns == before
    options = [f"optimizer.lr={held['optimizer']['lr']}", "optimizer=adamw", "trainer.limit_train_batches=20"]
    assert not differing(weights(tmp_path / "a"), trained(small_root, tmp_path / "b", *options))


def test_the_largest_batch_that_fits_is_found(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(small_root, *COURSE, "dataset.windows_per_epoch=64")
    data = SceneDataModule(config.dataset, 0)
    original = Augment.forward

    def forward(self: Augment, image: torch.Tensor, *rest: object) -> object:
        if len(image) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, image, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Augment, "forward", forward)
    options = {"accelerator": "cpu", "devices": 1, "precision": "32-true"}
    most = 10
    assert find_batch_size(config, data, build.build_module, options) == 8
    assert data.config.batch_size == 8
    most = 1
    with pytest.raises(ConfigError, match="not even 2 windows"):
        find_batch_size(config, data, build.build_module, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["find=batch_size"], "needs a GPU, whose memory is to be filled"),
        (["find=lr", "trainer.devices=2"], "devices=1"),
        (["trainer=fsdp"], "trainer: "),
        (["trainer=fsdp", "average=ema"], "take trainer=ddp"),
        (["scheduler=plateau", "trainer.limit_val_batches=0"], "watches the validation"),
        (["scheduler=plateau", "scheduler.interval=step"], "watches the validation"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    small_root: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match=message) as said:
        trained(small_root, tmp_path / "run", *options)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(("bf16", "precision"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_a_gpu_computes_in_the_fastest_precision_that_it_has(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert build._precision("auto") == build._precision("gpu") == precision
    assert build._precision("cpu") in {"bf16-mixed", "32-true"}


def test_compile_has_the_model_translated(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[nn.Module] = []

    def noted(self: nn.Module) -> None:
        calls.append(self)

    monkeypatch.setattr(nn.Module, "compile", noted)
    for word in ("false", "true"):
        config = configured(small_root, *COURSE, f"compile={word}")
        module = build.build_module(config, SceneDataModule(config.dataset, 0))
    assert calls == [module.model]


@pytest.mark.slow
def test_a_compiled_model_trains_and_its_checkpoint_predicts(small_root: Path, tmp_path: Path) -> None:
    compiled = trained(small_root, tmp_path / "a", "compile=true")
    plain = trained(small_root, tmp_path / "b")
    assert compiled.keys() == plain.keys()
    assert all(value.isfinite().all() for value in compiled.values())
    found = checkpoint.load_checkpoint(tmp_path / "a")
    with torch.inference_mode():
        assert found.model(torch.randn(1, 2, 32, 32)).isfinite().all()
    assert found.in_channels == 2


@pytest.mark.slow
def test_a_compiled_model_computes_what_the_plain_one_does_and_its_gradients(small_root: Path) -> None:
    config = configured(small_root, *COURSE)
    module = build.build_module(config, SceneDataModule(config.dataset, 0))
    torch.manual_seed(0)
    images, labels = torch.randn(4, 2, 32, 32), torch.randint(0, 3, (4, 32, 32))

    def computed(model: nn.Module) -> tuple[torch.Tensor, list[torch.Tensor]]:
        logits = model(images)
        weights = list(model.parameters())
        return logits.detach(), list(torch.autograd.grad(module.loss(logits, labels), weights))

    plain = copy.deepcopy(module.model)
    module.model.compile()
    for training in (True, False):  # statistics of the batch, and those of the run
        results = [computed(model.train(training)) for model in (module.model, plain)]
        torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-3, atol=1e-4)
        if training:  # statistics of a few pixels make gradients of rounding errors
            continue
        scale = max(float(value.abs().max()) for value in results[1][1])
        for found, wanted in zip(results[0][1], results[1][1], strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-4 * scale)


DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32", SMALL]


def test_two_processes_freeze_the_encoder_together(run: Run, small_root: Path, tmp_path: Path) -> None:
    options = [*small_overrides(small_root), *DDP, "optimizer=sgd", "scheduler=constant"]
    for name, rate in (("a", 0.1), ("b", 0.2)):
        more = ["encoder.freeze_epochs=1", f"optimizer.lr={rate}", f"hydra.run.dir={name}"]
        result = run("train.py", *options, *more)
        assert result.returncode == 0, result.stderr
    assert "sync_batchnorm needs GPUs" in result.stdout
    assert differing(weights(tmp_path / "a"), weights(tmp_path / "b")) == {"decoder"}


@pytest.mark.slow
def test_two_processes_take_the_statistics_of_averaged_weights_from_the_windows_of_both(
    run: Run, small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swa = ["average=swa", "average.start=0", "trainer.max_epochs=2", "augment=none", "optimizer.lr=0.01"]
    result = run("train.py", *small_overrides(small_root), *DDP, *swa, "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    data = SceneDataModule(configured(small_root).dataset, 0)
    monkeypatch.setattr(data, "_epoch", lambda: 1)
    monkeypatch.setattr(SceneDataModule, "_world_size", 2)
    of_ranks = []
    for rank in range(2):
        monkeypatch.setattr(SceneDataModule, "_rank", rank)
        model, normalize = (found := checkpoint.load_checkpoint(file)).model, found.normalize
        batches = list(data.train_dataloader())[:2]  # as many as the run takes
        images = [normalize(batch["image"], batch["valid"]) for batch in batches]
        torch.optim.swa_utils.update_bn(images, model)
        of_ranks.append(model.state_dict())
    kept = weights(tmp_path / "run")
    names = [key for key in of_ranks[0] if key.endswith(("running_mean", "running_var"))]
    assert any(not torch.allclose(of_ranks[0][key], of_ranks[1][key], rtol=0.01) for key in names)
    for key in names:
        mean = (of_ranks[0][key] + of_ranks[1][key]) / 2
        torch.testing.assert_close(kept[f"model.{key}"], mean, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_leave_together_and_go_on_together(run: Run, small_root: Path, tmp_path: Path) -> None:
    options = [*small_overrides(small_root), *DDP, "trainer.limit_train_batches=8", "trainer.max_epochs=4"]
    assert run("train.py", *options, "hydra.run.dir=whole").returncode == 0
    command = [sys.executable, str(REPOSITORY / "train.py"), *options, "hydra.run.dir=run", "save_minutes=0"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not (tmp_path / "run" / "metrics.csv").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, failed = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, failed.decode()
    assert said.decode().count("stopped by SIGTERM") == 1
    assert run("train.py", "resume=run").returncode == 0
    assert not differing(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (
        tmp_path / "whole" / "metrics.csv"
    ).read_bytes()


def test_the_table_of_the_report_goes_on_past_the_best_epoch(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.5, 0.4])
    original = Validation.finish

    def falling(evaluation: Validation, facts: CheckpointMetadata) -> Any:
        found, facts = original(evaluation, facts)
        return replace(found, miou=next(scores, 0.1)), facts

    monkeypatch.setattr(Validation, "finish", falling)
    trained(small_root, tmp_path / "run", "trainer.max_epochs=3")
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert found["epochs"] == 3
    assert found["best_val_miou"] == pytest.approx(0.9)


@pytest.mark.fault("first_hour", "without a terminal a long epoch prints nothing")
def test_an_epoch_prints_where_it_stands_when_a_minute_has_passed(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter(range(0, 10**6, 40))  # between two looks at the clock
    monkeypatch.setattr(csv_metrics, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    trained(small_root, tmp_path / "run", "dataset.batch_size=2", "trainer.limit_train_batches=6")
    lines = [line for line in capsys.readouterr().out.splitlines() if " batches" in line]
    expected = [
        rf"epoch 1/1  training {done}/6 batches  train/loss \d\.\d{{4}}" for done in (2, 4, 6)
    ]  # a look that prints takes a second one
    for line, pattern in zip(lines, expected, strict=False):
        assert re.fullmatch(pattern, line)
    assert [line.split()[2] for line in lines].count("training") == 3
    assert any(line.startswith("epoch 1/1  validation ") for line in lines)
    assert any(line.startswith("scores ") for line in lines)


@pytest.mark.fault("ranks", "a training in one process keeps 4.4 MB for good")
def test_a_training_leaves_nothing_of_it_in_its_process(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[object]] = []
    before = _readers()  # of other tests

    def noted(original: Any) -> Any:
        def make(*arguments: Any, **options: Any) -> Any:
            found = original(*arguments, **options)
            made.append(weakref.ref(found))
            return found

        return make

    for name in ("build_module", "SceneDataModule", "NaNGuard", "ResumableCheckpoint"):
        monkeypatch.setattr(run, name, noted(getattr(run, name)))
    monkeypatch.setattr(run.pl, "Trainer", noted(run.pl.Trainer))
    train(configured(small_root, *COURSE), tmp_path / "run")
    assert len(made) == 5
    assert [ref() for ref in made] == [None] * 5
    until = time.monotonic() + 30
    while _readers() - before and time.monotonic() < until:
        time.sleep(0.01)  # a pool tells its threads to end, and doesn't wait for them
    assert not _readers() - before


def _readers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("windows")}
