"""Modes of train.py: train, check, test and leaderboard, dispatched in one place."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from geo_seg.config.training import TrainConfig
from geo_seg.data.first_look import look_before_training
from geo_seg.runtime.console import silence_library_warnings
from geo_seg.runtime.memory import gc_frozen
from geo_seg.runtime.ranks import rank
from geo_seg.runtime.registration import import_own_module
from geo_seg.sweeps.jobs import resume_interrupted, reuse_finished_run
from geo_seg.sweeps.outcomes import validation_score


def dispatch(config: TrainConfig, folder: Path) -> float | None:
    """Run the mode of a configuration.

    Args:
        config: checked configuration.
        folder: output folder of the run.

    Returns:
        The mean IoU of a training (best, validation scenes) or a test; None of other modes.

    Raises:
        GeoSegError: see the functions in MODES.
    """
    import_own_module(config.dataset.module)
    return MODES[config.mode](config, folder)


def train(config: TrainConfig, folder: Path) -> float | None:
    """Train a model; in a sweep, reuse an identical finished run, or resume an interrupted one.

    Raises:
        ConfigError: see reuse_finished_run and geo_seg.training.run.
        DataError: see look_before_training and geo_seg.training.run.
        TrainingError: the loss is not finite.
    """
    look_before_training(config)
    finished = reuse_finished_run(config)
    if finished is not None:
        return validation_score(finished)
    with gc_frozen():
        from geo_seg.training.run import run
    return run(resume_interrupted(config), folder)


def check(config: TrainConfig, folder: Path) -> None:
    """Examine the data set without training, see geo_seg.doctor.run."""
    from geo_seg.doctor.run import check as check_data

    check_data(config, folder)


def evaluate(config: TrainConfig, folder: Path) -> float:
    """Evaluate a checkpoint, see geo_seg.training.evaluate_run.

    Raises:
        CheckpointError: the checkpoint doesn't exist or can't be read.
        ConfigError: the data set doesn't fit the model, or lacks the split.
        DataError: the data set can't be read.
    """
    look_before_training(config)
    with gc_frozen():
        from geo_seg.training.evaluate_run import evaluate_run
    silence_library_warnings()
    return evaluate_run(config, folder, Console(highlight=False, quiet=rank() != 0))


def leaderboard(config: TrainConfig, folder: Path) -> None:
    """Write and print the leaderboard of a sweep, see geo_seg.sweeps.leaderboard."""
    from geo_seg.sweeps.leaderboard import print_leaderboard  # imports torch

    print_leaderboard(str(config.sweep))


MODES: dict[str, Callable[[TrainConfig, Path], float | None]] = {
    "train": train,
    "check": check,
    "test": evaluate,
    "leaderboard": leaderboard,
}
"""Functions by value of the key mode."""
