"""Checkpoints that are whole or not there, from which training goes on exactly where it was."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch.optim import Optimizer

from geo_seg.config.hydra_setup import shell_command
from geo_seg.errors import ConfigError
from geo_seg.runtime.files import atomic_write
from geo_seg.training.callbacks import lightning_loops
from geo_seg.training.callbacks.training_state import check_alike, check_sizes

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # USR1: what SLURM users ask for with --signal
POSITION = "position"
"""Entry of the checkpoint file that says where training stands."""


class ResumableCheckpoint(Checkpoint):
    """Keeps best.ckpt and last.ckpt, and leaves in good order when a signal asks for it.

    A checkpoint is written at the end of every epoch, within an epoch every few minutes, and before leaving
    on SIGTERM, SIGINT or SIGUSR1. Only at places where nothing is half done: no gradients accumulated, no
    validation in the middle.

    Args:
        folder: where they go.
        monitor: name of the validation score whose highest value makes the best checkpoint; None without
            validation: then the last one is the best.
        minutes: between checkpoints within an epoch.
        before: called on every process before a checkpoint is written; raises if the weights aren't good.
        say: shows a line to the user.

    Attributes:
        taking_up: whether an error now would come of the state that a checkpoint holds: while it is loaded,
            and in the first step of the optimizer.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str | None,
        minutes: float,
        before: Callable[[pl.Trainer, pl.LightningModule], None],
        say: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.monitor = monitor
        self.best_model_score: float | None = None
        self._minutes = minutes
        self._before = before
        self._say = say
        self._saved = time.monotonic()
        self._signal: int | None = None
        self._position: dict[str, Any] = {}
        self.taking_up = False
        self._first_step = True

    @property
    def best_model_path(self) -> str:
        """File of the best checkpoint."""
        return str(self.folder / "best.ckpt")

    @property
    def last(self) -> Path:
        """File of the last checkpoint."""
        return self.folder / "last.ckpt"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Takes the folder of the first process, which alone knows it for sure."""
        self.folder = Path(trainer.strategy.broadcast(str(self.folder.absolute())))

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self.best_model_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it up again."""
        self.best_model_score = state_dict["best"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Says where training stands, in the terms of Lightning's loops."""
        checkpoint[POSITION] = self._position
        lightning_loops.rewrite_loop_state(
            checkpoint["loops"]["fit_loop"], **{k: v for k, v in self._position.items() if k != "done"}
        )

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Knows of a run that it had stopped of itself.

        Raises:
            ValueError: the state of the loops isn't what Lightning writes; it would take anything.
        """
        check_alike(checkpoint["loops"]["fit_loop"], trainer.fit_loop.state_dict(), "loops.fit_loop")
        trainer.should_stop = checkpoint[POSITION]["done"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listens to signals; keeps the weights that training begins with."""
        if self.taking_up:
            check_sizes(trainer.optimizers)
        self.taking_up = False
        self._check_length(trainer)
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:  # Lightning puts the old handlers back in the end
                signal.signal(number, self._on_signal)
        lightning_loops.correct_restart_flag(trainer)
        if not self.last.exists():
            self._save(trainer, pl_module, epoch=trainer.current_epoch, batch=0)

    def _check_length(self, trainer: pl.Trainer) -> None:
        """Raises if training ends before the first validation: no weights would be the best."""
        batches, epoch = trainer.max_steps * trainer.accumulate_grad_batches, trainer.num_training_batches
        first = min(trainer.val_check_batch or epoch, epoch)
        if self.monitor and trainer.global_step == 0 and 0 < batches < first:
            raise ConfigError(
                f"trainer.max_steps={trainer.max_steps}: ends before the first epoch, of {epoch} batches, "
                "and nothing is validated; expected more steps, or a smaller dataset.windows_per_epoch"
            )

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves at once from now on: what is left of the run begins again from its checkpoints."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, _exit)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Knows the step that shows whether the optimizer can use the state that it was given."""
        self.taking_up, self._first_step = self._first_step, False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves within the epoch, where it is time or a signal has come."""
        self.taking_up = False
        if (
            lightning_loops.is_accumulating(trainer)
            or lightning_loops.is_last_batch_of_epoch(trainer)
            or lightning_loops.validation_is_due(trainer)
        ):
            return  # gradients are half there, or the end of the epoch or validation comes now
        due = time.monotonic() - self._saved >= 60 * self._minutes
        if trainer.strategy.reduce_boolean_decision(due or self._signal is not None, all=False):
            self._save(trainer, pl_module, epoch=trainer.current_epoch, batch=batch_idx + 1)
            if self._signal is not None:  # Lightning tells the loggers of a step after this
                lightning_loops.log_step_metrics(trainer)
            self._leave_if_asked(trainer)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Saves and leaves if a signal has come; validation then begins again."""
        if lightning_loops.is_last_validation_batch(trainer):
            return  # the end of the epoch is near, and ranks may differ in their number of batches
        if trainer.strategy.reduce_boolean_decision(self._signal is not None, all=False):
            batch_now = lightning_loops.batches_started(trainer)
            self._save(trainer, pl_module, epoch=trainer.current_epoch, batch=batch_now, validate=True)
            self._leave_if_asked(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves with all that the epoch brought."""
        best = self.monitor is None
        if self.monitor and lightning_loops.is_validation_epoch(trainer):
            score = float(trainer.callback_metrics.get(self.monitor, float("nan")))
            best = self.best_model_score is None or score > self.best_model_score
            if best:
                self.best_model_score = score
        self._save(trainer, pl_module, epoch=trainer.current_epoch + 1, batch=0, best=best)
        self._leave_if_asked(trainer)

    def _save(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        *,
        epoch: int,
        batch: int,
        validate: bool = False,
        best: bool = False,
    ) -> None:
        self._before(trainer, module)
        self._position = {"epoch": epoch, "batch": batch, "validate": validate, "done": trainer.should_stop}
        new = self.folder / "new.ckpt"
        trainer.save_checkpoint(new, weights_only=False)
        if trainer.is_global_zero:
            # the best one first: if the end comes between the two, the epoch is done again and finds it again
            if best:
                atomic_write(Path(self.best_model_path), lambda part: _link(new, part))
            new.replace(self.last)
        self._saved = time.monotonic()

    def _leave_if_asked(self, trainer: pl.Trainer) -> None:
        if not trainer.strategy.reduce_boolean_decision(self._signal is not None, all=False):
            return
        number = self._signal or signal.SIGTERM
        if trainer.is_global_zero:
            self._say(
                f"stopped by {signal.Signals(number).name} after step {trainer.global_step}; go on with\n"
                f"{shell_command('train.py', resume=self.folder.parent)}"
            )
        raise SystemExit(128 + number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal == signal.SIGINT == number:  # Ctrl-C twice: at once
            raise KeyboardInterrupt
        self._signal = number


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _link(file: Path, name: Path) -> None:
    """A second name for a file, or a copy where the file system has no links."""
    name.unlink(missing_ok=True)
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)
