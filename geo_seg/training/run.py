"""A training run: from the configuration to a folder with the model, its scores and a report."""

import gc
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from rich.console import Console

from geo_seg.checkpoints import checkpoint
from geo_seg.checkpoints.files import LAST_CHECKPOINT
from geo_seg.config.hydra_setup import portable_command, shell_command
from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.errors import ConfigError, DataError
from geo_seg.metrics.bootstrap import ResamplingUnits
from geo_seg.models.registry import check_window_sides
from geo_seg.prediction.scene_predictor import ScenePredictor
from geo_seg.run_folder import config_hash, write_run_state
from geo_seg.runtime.console import show_progress_bars, silence_library_warnings
from geo_seg.runtime.lock import folder_lock
from geo_seg.runtime.memory import tune_malloc
from geo_seg.runtime.orphans import adopt
from geo_seg.runtime.program import config_dir
from geo_seg.runtime.ranks import is_distributed, rank
from geo_seg.runtime.registration import import_own_module
from geo_seg.runtime.traces import remove_new_entries_on
from geo_seg.training.build import build_module, build_predictor, build_trainer, trainer_options
from geo_seg.training.callbacks.checkpoint_choice import LAST, CheckpointChoice, choose_checkpoint
from geo_seg.training.callbacks.checkpoint_io import AtomicCheckpointIO
from geo_seg.training.callbacks.checkpointing import ResumableCheckpoint
from geo_seg.training.callbacks.config_sync import SameConfigOnAllRanks
from geo_seg.training.callbacks.csv_metrics import EpochCSVLogger, build_callbacks, progress_callback
from geo_seg.training.callbacks.nan_guard import NaNGuard
from geo_seg.training.callbacks.throughput import ThroughputLogger, reading_advice
from geo_seg.training.callbacks.weight_averaging import WeightAverage
from geo_seg.training.evaluation import EvaluationResult
from geo_seg.training.loggers import build_loggers, close_loggers, log_results, log_start
from geo_seg.training.precision import choose_precision
from geo_seg.training.report import FinishedRun
from geo_seg.training.results import evaluate_splits, evaluated_splits, write_results
from geo_seg.training.resume import (
    check_data_unchanged,
    finished_score,
    fit,
    hashes_at_start,
    resolve_resume,
    write_run_start,
)
from geo_seg.training.run_summary import print_run_summary
from geo_seg.training.tuner import tune

_NOTHING_VALIDATED = (
    "no epoch would be trained and validated, so there would be no best checkpoint; see trainer.max_epochs, "
    "limit_train_batches and check_val_every_n_epoch"
)


def run(config: TrainConfig, folder: str | Path) -> float:
    """Train, evaluate and report.

    Args:
        config: checked configuration.
        folder: run folder; it must not hold a run, except the one that config.resume names.

    Returns:
        Best mean IoU on the validation scenes.

    Raises:
        ConfigError: the configuration doesn't fit the data or the machine.
        DataError: the data don't fit the configuration.
        TrainingError: the loss is not finite.
    """
    try:
        return _run(config, folder)
    finally:
        # Trainer, loops and model refer to each other: a run's memory, files and threads would stay until a
        # full garbage collection, which comes after half a dozen of runs in one process
        gc.collect()


def _run(config: TrainConfig, folder: str | Path) -> float:
    silence_library_warnings()
    import_own_module(config.model.get("module"))
    import_own_module(config.evaluation.module)
    is_main = rank() == 0
    console = Console(highlight=False, quiet=not is_main)
    path, config, is_resumed = _resolve_folder(config, Path(folder))
    if is_resumed and (score := finished_score(config, path)) is not None:
        console.print(f"{path}: this run is finished", markup=False, soft_wrap=True)
        return score
    torch.set_float32_matmul_precision("high")  # TF32 on the GPUs that have it
    data = _load_data(config)
    hashes = hashes_at_start(config, data.fingerprint, path)
    if is_resumed:
        check_data_unchanged(data.fingerprint, path)
    config = _resolve_auto_options(config, data, console)
    module = build_module(config, data, (path / LAST_CHECKPOINT).exists())
    csv_logger = EpochCSVLogger(path / "metrics.csv", None if show_progress_bars(console) else console)
    trainer, checkpoint_callback = _build_run_trainer(config, path, csv_logger, console, data)
    print_run_summary(console, config, data, module.model, module.loss, path)
    with ExitStack() as cleanup:
        if is_main:
            refusals = (ConfigError, DataError)
            cleanup.enter_context(
                remove_new_entries_on(refusals, path, lambda: not is_resumed and trainer.global_step == 0)
            )
            _start_run(config, hashes, path, trainer, cleanup)
        start = time.monotonic()
        fit(trainer, module, data, checkpoint_callback)
        if not Path(checkpoint_callback.best_model_path).exists():
            raise ConfigError(_NOTHING_VALIDATED)
        training_end = time.monotonic()
        score = checkpoint_callback.best_model_score
        choice, predictor, results = _evaluate(config, trainer, data, checkpoint_callback, console)
        if is_main:
            scored = time.monotonic() - training_end
            seconds = {"training, since it was last started": training_end - start, "scores": scored}
            counts = {"best_val_miou": score, "epochs": len(csv_logger.rows), "steps": trainer.global_step}
            summary = {**counts, "predicted_with": choice.to_dict()}
            finished = FinishedRun(
                config, data, predictor, results, summary, list(csv_logger.rows), seconds, path
            )
            write_results(finished, console, _closing_lines)
            scores = {} if score is None else {"best_val_miou": score}
            log_results(trainer.loggers, config, path, scores, trainer.global_step)
            write_run_state(path, hashes, finished=True)
    return float("nan") if score is None else score


def _evaluate(
    config: TrainConfig,
    trainer: pl.Trainer,
    data: SceneDataModule,
    checkpoints: ResumableCheckpoint,
    console: Console,
) -> tuple[CheckpointChoice, ScenePredictor, dict[str, EvaluationResult]]:
    """Choose the checkpoint to predict with, and score it; every process has to call this."""
    ended_early = trainer.should_stop
    validation: dict[Path, EvaluationResult] = {}

    def predictor_of(file: Path) -> ScenePredictor:
        return build_predictor(config, trainer, checkpoint.load_checkpoint(str(file)), console)

    def validate(file: Path) -> ResamplingUnits | None:
        validation[file] = evaluate_splits(trainer, predictor_of(file), data, ["val"], config)["val"]
        return validation[file].resampling_units()

    highest = checkpoints.highest_path
    choice = CheckpointChoice(LAST, "the run has no validation")
    if checkpoints.monitor:
        choice = choose_checkpoint(
            highest,
            checkpoints.last_path,
            validate,
            ended_early=ended_early,
            resamples=config.evaluation.draws,
            seed=config.seed,
        )
    choice = trainer.strategy.broadcast(choice)
    file = checkpoints.last_path if choice.checkpoint == LAST else highest
    val_result = validation.get(file)
    if trainer.is_global_zero:
        keep = checkpoints.keep_last if choice.checkpoint == LAST else checkpoints.keep_highest
        keep()
    trainer.strategy.barrier()
    predictor = predictor_of(Path(checkpoints.best_model_path))
    splits = [name for name in evaluated_splits(data) if val_result is None or name != "val"]
    results = evaluate_splits(trainer, predictor, data, splits, config)
    return choice, predictor, {"val": val_result, **results} if val_result else results


def _load_data(config: TrainConfig) -> SceneDataModule:
    """Read the data set; check that the model accepts its windows, a user's with the bands of the data."""
    window = config.dataset.window
    sides = (window, 2 * window)  # of training and of evaluation
    is_own = config.model.get("module") is not None
    if not is_own:
        check_window_sides(config.model, sides)
    data = SceneDataModule(config.dataset, config.seed, border=config.augment.border(window))
    if is_own:
        channels = 1 if config.dataset.mode == "binary" else len(data.table.names)
        check_window_sides(config.model, sides, len(data.bands.mean), channels)
    return data


def _resolve_auto_options(config: TrainConfig, data: SceneDataModule, console: Console) -> TrainConfig:
    """Return the configuration with the options that depend on this machine and these data."""
    config = choose_precision(config, data, build_module, console.print)
    if config.find != "none":
        config = tune(config, data, build_module, trainer_options(config, console), console)
    return config


def _start_run(
    config: TrainConfig, hashes: dict[str, str], path: Path, trainer: pl.Trainer, cleanup: ExitStack
) -> None:
    """Lock the run folder, and record the start of the run; on the main process only."""
    cleanup.enter_context(folder_lock(path))
    write_run_start(config, hashes, path)
    cleanup.callback(close_loggers, trainer.loggers)
    log_start(trainer.loggers, config, path)


def _closing_lines(run: FinishedRun, shared: bool) -> str:
    """Return the last lines on the console; paths are relative if `shared`."""
    folder, scene = (Path() if shared else run.path), run.data.scenes[run.split][0]
    command = portable_command if shared else shell_command
    image = scene.name if shared else scene.image.path
    map_command = command("predict", checkpoint=folder, input=image, output=folder / "predictions")
    lines = (
        f"report      {folder / 'report.html'}\ncheckpoint  {folder / 'checkpoints' / 'best.ckpt'}\n"
        f"go on with  {map_command}"
    )
    if shared or run.config.dataset.name != "demo":
        return lines
    own = f"{command('train', dataset='own')} dataset.root=<folder> 'dataset.classes=[land,water]'"
    return f"{lines}\nyour data   {own}  (docs/data.md, {config_dir() / 'dataset' / 'own.yaml'})"


def _resolve_folder(config: TrainConfig, folder: Path) -> tuple[Path, TrainConfig, bool]:
    """Return run folder, configuration, and whether the run is resumed there; see resolve_resume."""
    if config.resume is None and rank() != 0:
        return folder, replace(config, rerun=None), False  # the main process checks for an earlier run
    if config.resume == "auto" and is_distributed():
        raise ConfigError("resume=auto: expected the run folder if several processes train")
    path = folder if config.resume in {None, "auto"} else Path(config.resume)
    return path, *resolve_resume(config, path)


def _build_run_trainer(
    config: TrainConfig, path: Path, csv_logger: EpochCSVLogger, console: Console, data: SceneDataModule
) -> tuple[pl.Trainer, ResumableCheckpoint]:
    options = trainer_options(config, console)
    validates = options.get("limit_val_batches") != 0

    def log(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    folder = path / "checkpoints"
    nan_guard = NaNGuard(config.on_nan, data.describe_sample, path / "not_finite", folder / "last.ckpt", log)
    checkpoint_callback = ResumableCheckpoint(
        folder, "val/miou" if validates else None, config.save_minutes, nan_guard.check, log
    )
    config_sync = SameConfigOnAllRanks(config_hash(config))
    callbacks = [
        config_sync,
        csv_logger,
        nan_guard,
        checkpoint_callback,
        *build_callbacks(config.callbacks, validates),
    ]
    decoded = all(index.decoded_path for index in data.index["train"])
    # its clock must stop before the weight average reads training windows
    callbacks.append(ThroughputLogger(path / "system.csv", log, reading_advice(config.dataset, decoded)))
    if config.average.name != "none":
        callbacks.append(WeightAverage(config.average))
    callbacks.append(progress_callback(console))
    defaults = {
        "enable_progress_bar": show_progress_bars(console),
        "enable_model_summary": False,
        "log_every_n_steps": min(len(data.train_dataloader()), 10),
    }
    trainer = build_trainer(
        {**defaults, **options},
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(log)],
        logger=build_loggers(config, path) if rank() == 0 else False,
        default_root_dir=path,
        num_sanity_val_steps=0,
    )
    first_validated = trainer.check_val_every_n_epoch or 1
    if trainer.limit_train_batches == 0 or (validates and 0 < (trainer.max_epochs or 0) < first_validated):
        raise ConfigError(_NOTHING_VALIDATED)
    if trainer.world_size > 1:
        adopt(os.environ)  # the ranks that Lightning starts
    if trainer.strategy.root_device.type == "cpu":
        tune_malloc()
    return trainer, checkpoint_callback
