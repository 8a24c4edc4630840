"""A training run: from the configuration to a folder with the model, its scores and a report."""

import gc
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from rich.console import Console

from geo_seg.checkpoints import checkpoint
from geo_seg.config.hydra_setup import portable_command, shell_command
from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.errors import CheckpointError, ConfigError, GeoSegError, first_line
from geo_seg.models.smp import check_window_sides
from geo_seg.run_folder import config_hash, write_run_state
from geo_seg.runtime.console import show_progress_bars, silence_library_warnings
from geo_seg.runtime.lock import folder_lock
from geo_seg.runtime.memory import tune_malloc
from geo_seg.runtime.orphans import adopt
from geo_seg.runtime.ranks import is_distributed, rank
from geo_seg.training.build import build_module, build_predictor, trainer_options
from geo_seg.training.callbacks.checkpoint_io import AtomicCheckpointIO
from geo_seg.training.callbacks.checkpointing import ResumableCheckpoint
from geo_seg.training.callbacks.config_sync import SameConfigOnAllRanks
from geo_seg.training.callbacks.csv_metrics import EpochCSVLogger, build_callbacks, progress_callback
from geo_seg.training.callbacks.nan_guard import NaNGuard
from geo_seg.training.callbacks.throughput import ThroughputLogger, reading_advice
from geo_seg.training.callbacks.training_state import RESTART_REMEDY
from geo_seg.training.callbacks.weight_averaging import WeightAverage
from geo_seg.training.evaluate_run import evaluate_run
from geo_seg.training.introduction import print_run_summary
from geo_seg.training.loggers import build_loggers, close_loggers, log_results, log_start
from geo_seg.training.module import SegmentationModule
from geo_seg.training.precision import choose_precision
from geo_seg.training.report import FinishedRun
from geo_seg.training.results import evaluate_splits, evaluated_splits, write_results
from geo_seg.training.resume import (
    check_data_unchanged,
    finished_score,
    hashes_at_start,
    resolve_resume,
    write_run_start,
)
from geo_seg.training.tuner import tune


def run(config: TrainConfig, folder: str | Path) -> float:
    """Trains, tests and reports; with config.mode "test" see geo_seg.training.evaluate_run.

    Args:
        config: what to do, checked.
        folder: the run folder; it must hold no earlier run, but for the one that config.resume goes on with.

    Returns:
        The best mean IoU on the validation scenes.

    Raises:
        ConfigError: the configuration doesn't fit the data or the machine.
        DataError: the data don't fit the configuration.
        TrainingError: the loss is not finite.
    """
    try:
        return _run(config, folder)
    finally:
        # trainer, loops and model refer to each other: what a run takes, files and threads too, would wait
        # for a look at all objects, which comes after half a dozen of runs in one process
        gc.collect()


def _run(config: TrainConfig, folder: str | Path) -> float:
    silence_library_warnings()
    leads = rank() == 0
    console = Console(highlight=False, quiet=not leads)
    if config.mode == "test":
        return evaluate_run(config, Path(folder), console)
    path, config, resumes = _place(config, Path(folder))
    if resumes and (score := finished_score(config, path)) is not None:
        console.print(f"{path}: this run is finished", markup=False, soft_wrap=True)
        return score
    torch.set_float32_matmul_precision("high")  # TF32 on the GPUs that have it
    data = _data(config)
    known = hashes_at_start(config, data.fingerprint, path)
    if resumes:
        check_data_unchanged(data.fingerprint, path)
    config = _settled(config, data, console)
    module = build_module(config, data)
    table = EpochCSVLogger(path / "metrics.csv", None if show_progress_bars(console) else console)
    trainer, best = _trainer(config, path, table, console, data)
    print_run_summary(console, config, data, module.model, module.loss, path)
    with ExitStack() as ending:
        if leads:
            _begin(config, known, path, trainer, ending)
        begin = time.monotonic()
        _fit(trainer, module, data, best)
        fitted = time.monotonic()
        score = best.best_model_score
        predictor = build_predictor(
            config, trainer, checkpoint.load_checkpoint(best.best_model_path), console
        )
        results = evaluate_splits(trainer, predictor, data, evaluated_splits(data), config)
        if leads:
            scored = time.monotonic() - fitted
            took = {"training, since it was last started": fitted - begin, "scores": scored}
            facts = {"best_val_miou": score, "epochs": len(table.rows), "steps": trainer.global_step}
            ended = FinishedRun(config, data, predictor, results, facts, list(table.rows), took, path)
            write_results(ended, console, _closing)
            scores = {} if score is None else {"best_val_miou": score}
            log_results(trainer.loggers, config, path, scores, trainer.global_step)
            write_run_state(path, known, finished=True)
    return float("nan") if score is None else score


def _data(config: TrainConfig) -> SceneDataModule:
    """The data, once it is certain that the model can see their windows."""
    window = config.dataset.window
    check_window_sides(config.model, (window, 2 * window))  # those of training and of evaluation
    return SceneDataModule(config.dataset, config.seed, margin=config.augment.border(window))


def _settled(config: TrainConfig, data: SceneDataModule, console: Console) -> TrainConfig:
    """The configuration with what this machine and these data decide in it."""
    config = choose_precision(config, data, build_module, console.print)
    if config.find != "none":
        config = tune(config, data, build_module, trainer_options(config, console), console)
    return config


def _begin(
    config: TrainConfig, known: dict[str, str], path: Path, trainer: pl.Trainer, ending: ExitStack
) -> None:
    """Takes hold of the run folder, and writes down and tells what begins; the process that leads does it."""
    ending.enter_context(folder_lock(path))
    write_run_start(config, known, path)
    ending.callback(close_loggers, trainer.loggers)
    log_start(trainer.loggers, config, path)


def _closing(run: FinishedRun, shared: bool) -> str:
    """What a run says in the end."""
    folder, scene = (Path() if shared else run.path), run.data.scenes[run.split][0]
    line = portable_command if shared else shell_command
    image = scene.name if shared else scene.image.path
    maps = line("inference.py", checkpoint=folder, input=image, output=folder / "predictions")
    return (
        f"report      {folder / 'report.html'}\ncheckpoint  {folder / 'checkpoints' / 'best.ckpt'}\n"
        f"go on with  {maps}"
    )


def _place(config: TrainConfig, folder: Path) -> tuple[Path, TrainConfig, bool]:
    """The run folder, the configuration, and whether the run goes on there; see taken_up."""
    if config.resume is None and rank() != 0:
        return folder, replace(config, rerun=None), False  # the first process looks for an earlier run
    if config.resume == "auto" and is_distributed():
        raise ConfigError("resume=auto: expected the folder of the run where several processes train")
    path = folder if config.resume in {None, "auto"} else Path(config.resume)
    return path, *resolve_resume(config, path)


def _trainer(
    config: TrainConfig, path: Path, table: EpochCSVLogger, console: Console, data: SceneDataModule
) -> tuple[pl.Trainer, ResumableCheckpoint]:
    options = trainer_options(config, console)
    validates = options.get("limit_val_batches") != 0

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    folder = path / "checkpoints"
    guard = NaNGuard(config.on_nan, data.describe_sample, path / "not_finite", folder / "last.ckpt", say)
    best = ResumableCheckpoint(
        folder, "val/miou" if validates else None, config.save_minutes, guard.check, say
    )
    same = SameConfigOnAllRanks(config_hash(config))
    callbacks = [same, table, guard, best, *build_callbacks(config.callbacks, validates)]
    decoded = all(found.decoded_path for found in data.index["train"])
    # its clock must stop before the mean of the weights looks at training windows
    callbacks.append(ThroughputLogger(path / "system.csv", say, reading_advice(config.dataset, decoded)))
    if config.average.name != "none":
        callbacks.append(WeightAverage(config.average))
    callbacks.append(progress_callback(console))
    try:
        trainer = pl.Trainer(
            **{
                "enable_progress_bar": show_progress_bars(console),
                "enable_model_summary": False,
                "log_every_n_steps": min(len(data.train_dataloader()), 10),
                **options,
            },
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(say)],
            logger=build_loggers(config, path) if rank() == 0 else False,
            default_root_dir=path,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the data module shares the windows out
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"trainer: {str(error).splitlines()[0]}") from error
    if trainer.world_size > 1:
        adopt(os.environ)  # the ranks that Lightning starts
    if trainer.strategy.root_device.type == "cpu":
        tune_malloc()
    return trainer, best


def _fit(
    trainer: pl.Trainer, module: SegmentationModule, data: SceneDataModule, best: ResumableCheckpoint
) -> None:
    last = best.last_path if best.last_path.exists() else None
    best.is_restoring = last is not None
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    except (GeoSegError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # Lightning and torch raise many kinds for a state that they can't take up
        if last is not None and best.is_restoring:
            raise CheckpointError(
                f"{last}: training can't go on from it ({type(error).__name__}: {first_line(error)}); "
                f"{RESTART_REMEDY}"
            ) from error
        if isinstance(error, ValueError) and "more than 1 value per channel" in str(error):
            raise ConfigError(
                "this model needs dataset.batch_size=2 or more to normalise its features"
            ) from error
        raise
    if not Path(best.best_model_path).exists():
        raise ConfigError(
            "no epoch was trained and validated, so that there is no best checkpoint; see "
            "trainer.max_epochs, limit_train_batches and check_val_every_n_epoch"
        )
