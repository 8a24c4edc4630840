"""mode=test: scores of a trained model on splits of its own or another data set."""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

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
from geo_seg.runtime.registration import import_own_module
from geo_seg.training.build import build_predictor, build_trainer, trainer_options
from geo_seg.training.callbacks.csv_metrics import progress_callback
from geo_seg.training.report import FinishedRun
from geo_seg.training.results import evaluate_splits, write_results
from geo_seg.training.run_summary import data_notes


def evaluate_run(config: TrainConfig, path: Path, console: Console) -> float:
    """Evaluate a checkpoint and write scores, tables and report.

    Args:
        config: gives checkpoint, data set, trainer and evaluation; model, loss and seed are the checkpoint's.
        path: folder of the results.
        console: console for the scores.

    Returns:
        Mean IoU of the last evaluated split.

    Raises:
        CheckpointError: the checkpoint does not exist or can't be read.
        ConfigError: the data set does not fit the model, or has no such split.
        DataError: the data set can't be read.
    """
    import_own_module(config.model.get("module"))
    import_own_module(config.evaluation.module)
    trained = checkpoint.load_checkpoint(str(config.checkpoint))
    for note in trained.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    config = _with_trained_model(config, trained)
    data = SceneDataModule(
        config.dataset, config.seed, [config.split] if config.split else [], names=trained.band_names
    )
    _check_compatible(trained, data)
    for note in (*data_notes(data), *_scale_notes(trained, data)):
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    splits = [config.split] if config.split else [name for name in ("val", "test") if data.scenes[name]]
    if not splits:
        raise ConfigError("mode=test: the data set has no scenes for val and test; see dataset.split")
    for name in ("val", "test"):
        if config.split is None and name not in splits and getattr(config.dataset.split, name):
            console.print(f"note: the data set has no scenes for {name} here; see dataset.split.{name}")
    trainer = build_trainer(
        {"enable_progress_bar": show_progress_bars(console), **trainer_options(config, console)},
        callbacks=[progress_callback(console)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    if trainer.strategy.root_device.type == "cpu":
        tune_malloc()
    start = time.monotonic()
    predictor = build_predictor(config, trainer, trained, console)
    results = evaluate_splits(trainer, predictor, data, splits, config)
    if trainer.is_global_zero:
        summary = {"checkpoint": relative_name(trained.path, run_dir_of(str(trained.path)).parent)}
        path.mkdir(parents=True, exist_ok=True)
        atomic_write(path / CONFIG, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))
        seconds = {"scores": time.monotonic() - start}
        write_results(
            FinishedRun(config, data, predictor, results, summary, [], seconds, path), console, _closing_lines
        )
    return float(results[splits[-1]].scores.miou or 0.0)


def _closing_lines(run: FinishedRun, shared: bool) -> str:
    """Return the last lines on the console; paths are relative if `shared`."""
    folder = Path() if shared else run.path
    return (
        f"report      {folder / 'report.html'}\ntables      {folder / 'classes.csv'}, {folder / 'scenes.csv'}"
    )


def _with_trained_model(config: TrainConfig, trained: Checkpoint) -> TrainConfig:
    """Return the configuration with seed, loss and model of the checkpoint, names and numbers only.

    Sections with a `_target_` (augmentation, optimizer, callbacks, loggers) are of no use in a test, and are
    not taken from the checkpoint.

    Raises:
        CheckpointError: seed and loss of the training run are missing.
    """
    trained_config = trained.metadata.config
    if "seed" not in trained_config or "loss" not in trained_config:
        raise CheckpointError(
            f"{trained.path}: seed and loss of its training run are missing; mode=test needs a checkpoint "
            "of a training run"
        )
    compiled = trained_config.get("compile", False)
    return replace(
        config,
        seed=trained_config["seed"],
        loss=trained_config["loss"],
        model=trained.metadata.model,
        compile=compiled,
    )


def _scale_notes(trained: Checkpoint, data: SceneDataModule) -> Iterator[str]:
    """Yield a note if the images declare another scale and offset than the training images."""
    trained_scale, data_scale = trained.metadata.scale_offset, common_scale(data.whole[0])
    if trained_scale and data_scale and trained_scale != data_scale:
        trained_text, data_text = (
            format_scales([(scale, offset) for scale, offset in pairs])
            for pairs in (trained_scale, data_scale)
        )
        yield (
            f"the images declare another scale and offset ({data_text}) than the training images "
            f"({trained_text}); stored values are used unchanged; {SCALE_REMEDY}"
        )


def _check_compatible(trained: Checkpoint, data: SceneDataModule) -> None:
    """Raise if classes, mode, bands or data type of model and data set differ."""
    metadata = trained.metadata
    if list(data.table.names) != metadata.class_names or data.config.mode != metadata.mode:
        raise ConfigError(
            f"{trained.path}: a {metadata.mode} model of {', '.join(metadata.class_names)}; the data set is "
            f"{data.config.mode} with {', '.join(data.table.names)}"
        )
    if len(data.band_names) != len(metadata.mean):
        raise ConfigError(
            f"{trained.path}: a model of the bands {', '.join(metadata.band_names)}; the data set has "
            f"{', '.join(data.band_names)}; see dataset.bands"
        )
    if data.dtype != metadata.dtype:
        raise ConfigError(
            f"{trained.path}: a model of {metadata.dtype} images; those of the data set are {data.dtype}"
        )
