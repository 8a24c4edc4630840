"""A training run: from the configuration to a folder with the model, its scores and a report."""

import gc
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console

from geo_seg.checkpoints import checkpoint
from geo_seg.config.hydra_setup import command, command_elsewhere
from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.errors import CheckpointError, ConfigError, GeoSegError, first_line
from geo_seg.models.smp import check_sides
from geo_seg.run_folder import config_hash, write_run_file
from geo_seg.runtime.console import quiet, shows_bars
from geo_seg.runtime.lock import held
from geo_seg.runtime.memory import keep_freed_memory
from geo_seg.runtime.orphans import adopt
from geo_seg.runtime.ranks import is_one_of_many, rank
from geo_seg.training.build import build_module, build_predictor, trainer_options
from geo_seg.training.callbacks.checkpoint_io import WholeFile
from geo_seg.training.callbacks.checkpointing import Checkpoints
from geo_seg.training.callbacks.config_sync import SameConfig
from geo_seg.training.callbacks.csv_metrics import MetricsTable, callbacks_of, progress
from geo_seg.training.callbacks.nan_guard import LossGuard
from geo_seg.training.callbacks.throughput import Speed, reading_advice
from geo_seg.training.callbacks.training_state import ELSE
from geo_seg.training.callbacks.weight_averaging import WeightAverage
from geo_seg.training.evaluate_run import test
from geo_seg.training.introduction import introduce
from geo_seg.training.loggers import build_loggers, close_loggers, log_beginning, log_end
from geo_seg.training.module import SegmentationModule
from geo_seg.training.precision import settle_precision
from geo_seg.training.report import Ended
from geo_seg.training.results import conclude, evaluate, splits_of
from geo_seg.training.resume import begun_as, check_data, score_of_finished, taken_up, write_beginning
from geo_seg.training.tuner import find


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
    quiet()
    leads = rank() == 0
    console = Console(highlight=False, quiet=not leads)
    if config.mode == "test":
        return test(config, Path(folder), console)
    path, config, resumes = _place(config, Path(folder))
    if resumes and (score := score_of_finished(config, path)) is not None:
        console.print(f"{path}: this run is finished", markup=False, soft_wrap=True)
        return score
    torch.set_float32_matmul_precision("high")  # TF32 on the GPUs that have it
    data = _data(config)
    known = begun_as(config, data.fingerprint, path)
    if resumes:
        check_data(data.fingerprint, path)
    config = _settled(config, data, console)
    module = build_module(config, data)
    table = MetricsTable(path / "metrics.csv", None if shows_bars(console) else console)
    trainer, best = _trainer(config, path, table, console, data)
    introduce(console, config, data, module.model, module.loss, path)
    with ExitStack() as ending:
        if leads:
            _begin(config, known, path, trainer, ending)
        begin = time.monotonic()
        _fit(trainer, module, data, best)
        fitted = time.monotonic()
        score = best.best_model_score
        predictor = build_predictor(config, trainer, checkpoint.load(best.best_model_path), console)
        results = evaluate(trainer, predictor, data, splits_of(data), config)
        if leads:
            scored = time.monotonic() - fitted
            took = {"training, since it was last started": fitted - begin, "scores": scored}
            facts = {"best_val_miou": score, "epochs": len(table.rows), "steps": trainer.global_step}
            ended = Ended(config, data, predictor, results, facts, list(table.rows), took, path)
            conclude(ended, console, _closing)
            scores = {} if score is None else {"best_val_miou": score}
            log_end(trainer.loggers, config, path, scores, trainer.global_step)
            write_run_file(path, known, finished=True)
    return float("nan") if score is None else score


def _data(config: TrainConfig) -> SceneDataModule:
    """The data, once it is certain that the model can see their windows."""
    window = config.dataset.window
    check_sides(config.model, (window, 2 * window))  # those of training and of evaluation
    return SceneDataModule(config.dataset, config.seed, margin=config.augment.margin(window))


def _settled(config: TrainConfig, data: SceneDataModule, console: Console) -> TrainConfig:
    """The configuration with what this machine and these data decide in it."""
    config = settle_precision(config, data, build_module, console.print)
    if config.find != "none":
        config = find(config, data, build_module, trainer_options(config, console), console)
    return config


def _begin(
    config: TrainConfig, known: dict[str, str], path: Path, trainer: pl.Trainer, ending: ExitStack
) -> None:
    """Takes hold of the run folder, and writes down and tells what begins; the process that leads does it."""
    ending.enter_context(held(path))
    write_beginning(config, known, path)
    ending.callback(close_loggers, trainer.loggers)
    log_beginning(trainer.loggers, config, path)


def _closing(run: Ended, shared: bool) -> str:
    """What a run says in the end."""
    folder, scene = (Path() if shared else run.path), run.data.scenes[run.split][0]
    line = command_elsewhere if shared else command
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
    if config.resume == "auto" and is_one_of_many():
        raise ConfigError("resume=auto: expected the folder of the run where several processes train")
    path = folder if config.resume in {None, "auto"} else Path(config.resume)
    return path, *taken_up(config, path)


def _trainer(
    config: TrainConfig, path: Path, table: MetricsTable, console: Console, data: SceneDataModule
) -> tuple[pl.Trainer, Checkpoints]:
    options = trainer_options(config, console)
    validates = options.get("limit_val_batches") != 0

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    folder = path / "checkpoints"
    guard = LossGuard(config.on_nan, data.whereabouts, path / "not_finite", folder / "last.ckpt", say)
    best = Checkpoints(folder, "val/miou" if validates else None, config.save_minutes, guard.look, say)
    same = SameConfig(config_hash(config))
    callbacks = [same, table, guard, best, *callbacks_of(config.callbacks, validates)]
    decoded = all(found.decoded for found in data.index["train"])
    # its clock must stop before the mean of the weights looks at training windows
    callbacks.append(Speed(path / "system.csv", say, reading_advice(config.dataset, decoded)))
    if config.average.name != "none":
        callbacks.append(WeightAverage(config.average))
    callbacks.append(progress(console))
    try:
        trainer = pl.Trainer(
            **{
                "enable_progress_bar": shows_bars(console),
                "enable_model_summary": False,
                "log_every_n_steps": min(len(data.train_dataloader()), 10),
                **options,
            },
            callbacks=callbacks,
            plugins=[WholeFile(say)],
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
        keep_freed_memory()
    return trainer, best


def _fit(trainer: pl.Trainer, module: SegmentationModule, data: SceneDataModule, best: Checkpoints) -> None:
    last = best.last if best.last.exists() else None
    best.taking_up = last is not None
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    except (GeoSegError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # Lightning and torch raise many kinds for a state that they can't take up
        if last is not None and best.taking_up:
            raise CheckpointError(
                f"{last}: training can't go on from it ({type(error).__name__}: {first_line(error)}); {ELSE}"
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
