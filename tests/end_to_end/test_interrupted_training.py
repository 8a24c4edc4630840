"""An interrupted run goes on to the very weights and the table that it would have had."""

import multiprocessing
import multiprocessing.process
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from geo_seg.config.training import TrainConfig
from geo_seg.errors import ConfigError, DataError
from geo_seg.run_folder import read_run_state, write_run_state
from geo_seg.training.callbacks import checkpointing
from geo_seg.training.run import run as train
from tests.conftest import Run, draw_scene, small_overrides, write_raster
from tests.end_to_end.test_training import clean_hydra, configured, rows  # noqa: F401 - a fixture

SMALL = "model.encoder=tu-mobilenetv3_small_050"
COURSE = [
    SMALL,
    "trainer.limit_train_batches=4",
    "trainer.max_epochs=3",
    "augment=strong",
    "trainer.precision=32",
]
# every kind of state: momentum, a scheduler per step, dropout, stopping early, a mean, a mid-epoch freeze
RICH = [
    "model=fpn",
    "model.decoder_dropout=0.5",
    "average=ema",
    "encoder.freeze_epochs=1",
    "encoder.lr_factor=0.1",
]
TERMS = "loss.terms={cross_entropy: 1, dice: {from: 0, to: 1, over: 3}}"
STOP = ["callbacks.early_stopping.patience=1", "+callbacks.early_stopping.min_delta=2.0"]  # after two epochs


class Killed(BaseException):
    """What ends a run in these tests: like kill -9, nothing of ours handles it."""


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    found = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return {**found["state_dict"], **{f"raw {k}": v for k, v in found.get("raw_weights", {}).items()}}


def same(one: Path, other: Path) -> bool:
    for name in ("last", "best"):
        a, b = weights(one, name), weights(other, name)
        if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
            return False
    return (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()


def unfinished(folder: Path) -> None:
    """As if the run had been killed at its very end."""
    known = read_run_state(folder)
    write_run_state(folder, {key: known[key] for key in ("config", "data", "code")}, finished=False)


def interrupt(monkeypatch: pytest.MonkeyPatch, hook: str, nth: int, number: int | None) -> None:
    """Sends a signal to the run, or kills it, when a hook of Checkpoints is called for the nth time."""
    calls = iter(range(1, 10**6))
    original = getattr(checkpointing.ResumableCheckpoint, hook)

    def changed(self: checkpointing.ResumableCheckpoint, *arguments: object, **named: object) -> None:
        if next(calls) == nth:
            if number is None:
                raise Killed
            signal.raise_signal(number)
        original(self, *arguments, **named)

    monkeypatch.setattr(checkpointing.ResumableCheckpoint, hook, changed)


@pytest.fixture(scope="module")
def whole(small_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Uninterrupted runs by their options, made once."""
    yield {}


def uninterrupted(whole: dict[str, Path], root: Path, tmp: Path, *options: str) -> Path:
    key = " ".join(options)
    if key not in whole:
        whole[key] = tmp / "whole"
        train(configured(root, *COURSE, *options), whole[key])
    return whole[key]


def again(root: Path, folder: Path, *options: str) -> TrainConfig:
    return configured(root, *COURSE, *options, f"resume={folder}")


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("hook", "nth", "options"),
    [
        ("on_train_batch_end", 6, RICH),  # within the second epoch
        ("on_validation_batch_end", 2, RICH),  # in validation
        ("on_train_epoch_end", 2, RICH),  # between epochs
        pytest.param("on_train_batch_end", 1, RICH, marks=SLOW),  # in the first epoch
        pytest.param(
            "on_train_batch_end", 8, RICH, marks=SLOW
        ),  # at a last batch: the end of the epoch saves
        pytest.param("on_train_epoch_end", 2, ["scheduler=plateau", "scheduler.patience=0"], marks=SLOW),
        pytest.param("on_validation_batch_end", 2, ["scheduler=plateau", "scheduler.patience=0"], marks=SLOW),
        pytest.param("on_train_batch_end", 6, ["scheduler=step", "scheduler.step_size=1"], marks=SLOW),
        pytest.param("on_train_batch_end", 6, ["trainer.max_steps=10"], marks=SLOW),
        pytest.param("on_train_epoch_end", 1, ["trainer.max_steps=10"], marks=SLOW),
        pytest.param("on_train_batch_end", 1, ["trainer.max_steps=3"], marks=SLOW),  # within the first epoch
        pytest.param("on_validation_batch_end", 1, ["trainer.max_steps=3"], marks=SLOW),
        pytest.param("on_train_batch_end", 5, ["trainer.accumulate_grad_batches=2"], marks=SLOW),
        pytest.param("on_train_batch_end", 5, ["+trainer.val_check_interval=2"], marks=SLOW),
        pytest.param("on_validation_batch_end", 5, ["+trainer.val_check_interval=2"], marks=SLOW),
        pytest.param("on_train_epoch_end", 2, ["average=swa", "average.start=0.3"], marks=SLOW),
        pytest.param("on_validation_batch_end", 3, ["average=swa", "average.start=0.3"], marks=SLOW),
        pytest.param("on_train_batch_end", 6, ["trainer.limit_val_batches=0"], marks=SLOW),
        pytest.param("on_train_epoch_end", 2, ["trainer.limit_val_batches=0"], marks=SLOW),
        pytest.param("on_train_batch_end", 6, ["loss=compound", TERMS], marks=SLOW),
        pytest.param("on_train_epoch_end", 2, STOP, marks=SLOW),
    ],
)
def test_a_signal_saves_and_the_run_goes_on_to_the_very_same_weights(
    small_root: Path,
    tmp_path: Path,
    whole: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    hook: str,
    nth: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reference = uninterrupted(whole, small_root, tmp_path, *options)
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt(patch, hook, nth, signal.SIGTERM)
        with pytest.raises(SystemExit) as left:
            train(configured(small_root, *COURSE, *options), folder)
    assert left.value.code == 128 + signal.SIGTERM
    assert f"python train.py resume={folder}" in capsys.readouterr().out
    assert not (folder / "metrics.json").exists()
    train(again(small_root, folder, *options), folder)
    assert same(folder, reference)
    assert (folder / "metrics.json").read_bytes() == (reference / "metrics.json").read_bytes()


@pytest.mark.parametrize("nth", [1, 2])
def test_a_run_killed_while_it_saves_goes_on_from_the_checkpoint_before(
    small_root: Path, tmp_path: Path, whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    reference = uninterrupted(whole, small_root, tmp_path)
    folder = tmp_path / "run"

    with monkeypatch.context() as patch:
        original = checkpointing.os.fsync
        if nth == 1:
            interrupt(patch, "on_train_epoch_end", nth, None)

        def torn(descriptor: int) -> None:  # half of the file is there
            if (folder / "checkpoints" / "best.ckpt").exists():
                checkpointing.os.ftruncate(descriptor, checkpointing.os.fstat(descriptor).st_size // 2)
                raise Killed
            original(descriptor)

        patch.setattr(checkpointing.os, "fsync", torn if nth == 2 else original)
        with pytest.raises(Killed):
            train(configured(small_root, *COURSE), folder)
    train(again(small_root, folder), folder)
    assert same(folder, reference)
    assert {p.name for p in (folder / "checkpoints").iterdir()} - {"highest.ckpt"} == {
        "best.ckpt",
        "last.ckpt",
    }


def test_checkpoints_are_written_within_an_epoch_as_often_as_asked(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def places(name: str, *options: str) -> list[tuple[int, int]]:
        found = []
        original = checkpointing.ResumableCheckpoint._save

        def noted(self: checkpointing.ResumableCheckpoint, *arguments: object, **named: object) -> None:
            found.append((named["epoch"], named["batch"]))
            original(self, *arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(checkpointing.ResumableCheckpoint, "_save", noted)
            train(configured(small_root, *COURSE, "trainer.max_epochs=1", *options), tmp_path / name)
        return found

    assert places("seldom") == [(0, 0), (1, 0)]
    assert places("often", "save_minutes=0") == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    accumulating = ["save_minutes=0", "trainer.accumulate_grad_batches=2"]
    assert places("steps", *accumulating) == [(0, 0), (0, 2), (1, 0)]


def test_resuming_a_finished_run_does_nothing_unless_it_is_to_go_on_for_longer(
    small_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["trainer.max_epochs=1", "scheduler=constant"]
    score = train(configured(small_root, *COURSE, *short), tmp_path / "run")
    before = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    assert train(again(small_root, tmp_path / "run", *short), tmp_path / "run") == pytest.approx(score)
    assert "this run is finished" in capsys.readouterr().out
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes() == before
    train(again(small_root, tmp_path / "run", *short[1:], "trainer.max_epochs=2"), tmp_path / "run")
    train(configured(small_root, *COURSE, *short[1:], "trainer.max_epochs=2"), tmp_path / "whole")
    assert same(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_had_ended_training_only_makes_its_report(
    small_root: Path, tmp_path: Path, whole: dict[str, Path]
) -> None:
    reference = uninterrupted(whole, small_root, tmp_path, *STOP)
    folder = tmp_path / "run"
    shutil.copytree(reference, folder)
    for name in ("metrics.json", "report.html"):
        (folder / name).unlink()
    unfinished(folder)
    train(again(small_root, folder, *STOP), folder)
    assert same(folder, reference)
    assert len(rows(folder)) == 2
    assert (folder / "metrics.json").read_bytes() == (reference / "metrics.json").read_bytes()
    assert (folder / "report.html").exists()


def test_other_data_or_a_longer_schedule_stop_a_resumed_run(
    small_root: Path, tmp_path: Path, whole: dict[str, Path]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted(whole, small_root, tmp_path), folder)
    with pytest.raises(ConfigError, match="scheduler"):
        train(again(small_root, folder, "trainer.max_epochs=5"), folder)
    unfinished(folder)
    other = tmp_path / "other"
    shutil.copytree(small_root, other)
    image, _ = draw_scene(77)
    write_raster(other / "images" / "s0.tif", image, nodata=0)
    with pytest.raises(DataError, match="data set has changed"):
        train(again(small_root, folder, f"dataset.root={other}"), folder)


def test_auto_goes_on_with_the_same_configuration_only(small_root: Path, tmp_path: Path) -> None:
    auto = ["resume=auto", "trainer.max_epochs=1"]
    train(configured(small_root, *COURSE, *auto), tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 1
    train(configured(small_root, *COURSE, *auto), tmp_path / "run")
    with pytest.raises(ConfigError, match="another seed"):
        train(configured(small_root, *COURSE, *auto, "seed=5"), tmp_path / "run")


def test_the_command_line_goes_on_and_does_again(run: Run, small_root: Path, tmp_path: Path) -> None:
    options = [SMALL, "loss=dice", "hydra.run.dir=first", "trainer.max_epochs=2"]
    assert run("train.py", *small_overrides(small_root), *options).returncode == 0
    (tmp_path / "first" / "metrics.json").unlink()
    unfinished(tmp_path / "first")
    before = sorted(p.name for p in (tmp_path / "first").iterdir())
    result = run("train.py", "resume=first", "dataset.num_threads=1")
    assert (result.returncode, result.stderr) == (0, "")
    assert "loss dice" in result.stdout
    assert sorted({*before, "metrics.json"}) == sorted(p.name for p in (tmp_path / "first").iterdir())
    result = run("train.py", "rerun=first")
    assert (result.returncode, result.stderr) == (0, "")
    (second,) = tmp_path.glob("first_again_*")
    assert (second / "metrics.csv").read_bytes() == (tmp_path / "first" / "metrics.csv").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", second.name]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["resume=nowhere"], ("nowhere", "config.yaml")),
        (["resume=first", "rerun=first"], ("one of them",)),
        (["resume=first", "seed=3"], ("seed=3", "rerun=")),
        (["rerun=first", "loss=focal"], ("loss=focal", "loss.name")),
        (["rerun=first", "loss.smoth=1"], ("loss.smoth", "smooth")),
        (["rerun=first", "optimizer.lr=abc"], ("optimizer.lr", "a number")),
        (["rerun=first", "+optimizer.lrr=1"], ("optimizer.lrr", "'lr'")),
        (["rerun=first", "~callbacks.nothing"], ("callbacks.nothing",)),
    ],
)
def test_what_does_not_go_with_an_earlier_run_is_answered_in_one_line(
    run: Run, tmp_path: Path, small_root: Path, overrides: list[str], words: tuple[str, ...]
) -> None:
    (tmp_path / "first").mkdir()
    held = asdict(configured(small_root, "loss=dice"))
    (tmp_path / "first" / "config.yaml").write_text(yaml.safe_dump(held))
    result = run("train.py", *overrides)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.slow
def test_twenty_kills_at_random_moments_always_leave_a_run_that_goes_on(
    small_root: Path, tmp_path: Path, whole: dict[str, Path]
) -> None:
    options = ["save_minutes=0", "trainer.max_epochs=8", "trainer.limit_train_batches=8"]
    reference = uninterrupted(whole, small_root, tmp_path, *options)
    config = configured(small_root, *COURSE, *options, "resume=auto")
    checkpoints = tmp_path / "run" / "checkpoints"
    context = multiprocessing.get_context("forkserver")  # imports torch once, not twenty times
    context.set_forkserver_preload(["geo_seg.training.run"])
    draw, torn, kills = random.Random(0), 0, 0
    while kills < 20:
        process = context.Process(target=train, args=(config, tmp_path / "run"))
        process.start()
        wait_for(process, checkpoints / "last.ckpt")  # before it there is nothing to break
        if kills % 2:
            time.sleep(draw.uniform(0, 1))
        else:
            wait_for(process, checkpoints / ".new.ckpt.part")
        process.kill()
        process.join()
        if process.exitcode == 0:  # a fast machine ended the run before the kill: the others hit a new one
            assert same(tmp_path / "run", reference)
            shutil.rmtree(tmp_path / "run")
            continue
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        torn += any(checkpoints.glob("*.part"))
        for file in checkpoints.glob("*.ckpt"):
            torch.load(file, weights_only=True)
    assert torn  # some of the kills came while a checkpoint was being written
    train(config, tmp_path / "run")
    assert same(tmp_path / "run", reference)
    assert {p.name for p in checkpoints.iterdir()} - {"highest.ckpt"} == {"best.ckpt", "last.ckpt"}


def wait_for(process: multiprocessing.process.BaseProcess, file: Path) -> None:
    """Until the process has written a file anew, or has ended."""
    stamp = file.stat().st_mtime_ns if file.exists() else 0
    while process.is_alive():
        with suppress(FileNotFoundError):
            if file.stat().st_mtime_ns != stamp:
                return
        time.sleep(0.001)
