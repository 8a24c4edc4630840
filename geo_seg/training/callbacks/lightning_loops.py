"""Every private name of Lightning that geo_seg relies on, behind a function that says what it is for.

Lightning promises nothing about these names. A release that moves one breaks this file alone, and
tests/unit/test_lightning_loops.py names what has moved.
"""

from contextlib import AbstractContextManager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from geo_seg.data.windows.batch import Batch


def is_accumulating(trainer: pl.Trainer) -> bool:
    """Return whether the gradients of the current batch still wait for those of further batches."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def is_last_batch_of_epoch(trainer: pl.Trainer) -> bool:
    """Return whether the current training batch is the last one of its epoch."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def validation_is_due(trainer: pl.Trainer) -> bool:
    """Return whether validation follows the current training batch."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None  # noqa: S101 - there is a batch
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def is_validation_epoch(trainer: pl.Trainer) -> bool:
    """Return whether the current epoch is one that is validated (trainer.check_val_every_n_epoch)."""
    return trainer.fit_loop.epoch_loop._should_check_val_epoch()


def is_last_validation_batch(trainer: pl.Trainer) -> bool:
    """Return whether the current validation batch is the last one."""
    return trainer.fit_loop.epoch_loop.val_loop.batch_progress.is_last_batch


def batches_started(trainer: pl.Trainer) -> int:
    """Return how many training batches of the current epoch have been fetched."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def correct_restart_flag(trainer: pl.Trainer) -> None:
    """Tell the epoch loop that it starts an epoch, if it does.

    With max_steps Lightning takes the start of an epoch for its middle, and counts a step too many.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.batch_progress.current.ready == 0:
        loop.restarting = False


def log_step_metrics(trainer: pl.Trainer) -> None:
    """Send the logged values of the current step to the loggers, as Lightning does after the callbacks."""
    trainer._logger_connector.update_train_step_metrics()


def batch_to_device(trainer: pl.Trainer, batch: Batch) -> Batch:
    """Return a batch on the device of the run."""
    return trainer.strategy.batch_to_device(batch)


def forward_context(trainer: pl.Trainer) -> AbstractContextManager[None]:
    """Return the context in which the run's precision applies to a forward pass."""
    return trainer.precision_plugin.forward_context()


def drop_anonymous_argument(logger: WandbLogger) -> None:
    """Remove the argument `anonymous`, which Lightning always passes and wandb warns about."""
    logger._wandb_init.pop("anonymous", None)


def rewrite_loop_state(loops: dict[str, Any], epoch: int, batch: int, validate: bool) -> None:
    """Write a position into the state of Lightning's loops, so that they resume there.

    Lightning saves in the middle of its counting, and guesses from the counters what was going on; some of
    the guesses lose a validation or a step of a scheduler. At this position nothing is going on.

    Args:
        loops: state of the fit loop, changed in place.
        epoch: number of the epoch, from 0.
        batch: completed batches of the epoch; 0 is before the first one.
        validate: whether the validation that follows these batches is still to be done.
    """
    in_epoch = int(batch > 0)
    counts = {
        "ready": epoch + in_epoch,
        "started": epoch + in_epoch,
        "processed": epoch,
        "completed": epoch,
    }
    loops["epoch_progress"] = {"total": dict(counts), "current": dict(counts)}
    progress = loops["epoch_loop.batch_progress"]
    progress["is_last_batch"] = validate
    for scope, count in (("total", progress["total"]["ready"]), ("current", batch)):
        progress[scope] = dict.fromkeys(progress[scope], count)
    started = {"ready": int(validate), "started": int(validate), "processed": 0, "completed": 0}
    loops["epoch_loop.val_loop.batch_progress"] = {
        "total": dict(started),
        "current": dict(started),
        "is_last_batch": False,
    }
    if in_epoch and not validate:  # the loggers' count of the step that has just ended
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
