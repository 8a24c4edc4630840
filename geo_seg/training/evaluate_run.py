"""mode=test: scores of a trained model on splits of its data set or of another one."""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytorch_lightning as pl
import yaml
from rich.console import Console

from geo_seg.checkpoints import checkpoint
from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.config.hydra_setup import run_dir_of
from geo_seg.config.run_config import CONFIG
from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.scales import SCALE_REMEDY, common_scale, format_scales
from geo_seg.errors import CheckpointError, ConfigError
from geo_seg.runtime.console import show_progress_bars
from geo_seg.runtime.files import atomic_write
from geo_seg.runtime.memory import tune_malloc
from geo_seg.runtime.redaction import relative_name
from geo_seg.training.build import build_predictor, trainer_options
from geo_seg.training.callbacks.csv_metrics import progress_callback
from geo_seg.training.introduction import data_notes
from geo_seg.training.report import FinishedRun
from geo_seg.training.results import evaluate_splits, write_results


def evaluate_run(config: TrainConfig, path: Path, console: Console) -> float:
    """Tests a checkpoint and writes scores, tables and report.

    Args:
        config: checkpoint, data set, trainer and evaluation count; model, loss and seed are the checkpoint's.
        path: the folder.
        console: where the scores are printed.

    Returns:
        The mean IoU of the last split that was looked at.

    Raises:
        CheckpointError: there is no such checkpoint, or it can't be read.
        ConfigError: the data set is not for this model, or has no such split.
        DataError: the data set can't be read.
    """
    trained = checkpoint.load_checkpoint(str(config.checkpoint))
    for note in trained.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    config = _learnt(config, trained)
    data = SceneDataModule(
        config.dataset, config.seed, [config.split] if config.split else [], names=trained.band_names
    )
    _check(trained, data)
    for note in (*data_notes(data), *_scaled_otherwise(trained, data)):
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    splits = [config.split] if config.split else [name for name in ("val", "test") if data.scenes[name]]
    if not splits:
        raise ConfigError("mode=test: the data set has no scenes for val and test; see dataset.split")
    for name in ("val", "test"):
        if config.split is None and name not in splits and getattr(config.dataset.split, name):
            console.print(f"note: the data set has no scenes for {name} here; see dataset.split.{name}")
    trainer = pl.Trainer(
        **{"enable_progress_bar": show_progress_bars(console), **trainer_options(config, console)},
        callbacks=[progress_callback(console)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    if trainer.strategy.root_device.type == "cpu":
        tune_malloc()
    begin = time.monotonic()
    predictor = build_predictor(config, trainer, trained, console)
    results = evaluate_splits(trainer, predictor, data, splits, config)
    if trainer.is_global_zero:
        tested = {"checkpoint": relative_name(trained.path, run_dir_of(str(trained.path)).parent)}
        path.mkdir(parents=True, exist_ok=True)
        atomic_write(path / CONFIG, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))
        seconds = {"scores": time.monotonic() - begin}
        write_results(
            FinishedRun(config, data, predictor, results, tested, [], seconds, path), console, _closing
        )
    return float(results[splits[-1]].scores["miou"] or 0.0)


def _closing(run: FinishedRun, shared: bool) -> str:
    """What a test says in the end."""
    folder = Path() if shared else run.path
    return (
        f"report      {folder / 'report.html'}\ntables      {folder / 'classes.csv'}, {folder / 'scenes.csv'}"
    )


def _learnt(config: TrainConfig, trained: Checkpoint) -> TrainConfig:
    """The configuration of a test with what the checkpoint says of its model: names and numbers only.

    What could act (augmentation, optimizer, callbacks, loggers) is of no use in a test, and stays what it is
    by default.

    Raises:
        CheckpointError: it doesn't say how it was trained.
    """
    held = trained.metadata.config
    if "seed" not in held or "loss" not in held:
        raise CheckpointError(
            f"{trained.path}: doesn't say with which seed and loss it was trained; a test needs a checkpoint "
            "of a training run"
        )
    compiles = held.get("compile", False)
    return replace(
        config, seed=held["seed"], loss=held["loss"], model=trained.metadata.model, compile=compiles
    )


def _scaled_otherwise(trained: Checkpoint, data: SceneDataModule) -> Iterator[str]:
    """Tells of images that declare another scale and offset than those that the model learnt from."""
    learnt, here = trained.metadata.scale_offset, common_scale(data.whole[0])
    if learnt and here and learnt != here:
        there, own = (format_scales([(scale, offset) for scale, offset in pairs]) for pairs in (learnt, here))
        yield (
            f"the images declare another scale and offset ({own}) than those that the model learnt from "
            f"({there}); values are taken as they are stored; {SCALE_REMEDY}"
        )


def _check(trained: Checkpoint, data: SceneDataModule) -> None:
    """Raises if the model has not learnt what the data set asks for."""
    facts = trained.metadata
    if list(data.table.names) != facts.class_names or data.config.mode != facts.mode:
        raise ConfigError(
            f"{trained.path}: a {facts.mode} model of {', '.join(facts.class_names)}; the data set is "
            f"{data.config.mode} with {', '.join(data.table.names)}"
        )
    if len(data.band_names) != len(facts.mean):
        raise ConfigError(
            f"{trained.path}: a model of the bands {', '.join(facts.band_names)}; the data set has "
            f"{', '.join(data.band_names)}; see dataset.bands"
        )
    if data.dtype != facts.dtype:
        raise ConfigError(
            f"{trained.path}: a model of {facts.dtype} images; those of the data set are {data.dtype}"
        )
