"""Checkpoints written atomically, from which training resumes exactly."""

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
from geo_seg.runtime.files import atomic_write
from geo_seg.training.callbacks import lightning_loops
from geo_seg.training.callbacks.training_state import check_alike, check_sizes

_END_SIGNALS = (signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))  # Windows lacks it
_SIGNALS = (*_END_SIGNALS, signal.SIGINT)  # SLURM sends USR1 with --signal
POSITION = "position"
"""Entry of a checkpoint with the position in training: epoch, batch, validate, done."""


class ResumableCheckpoint(Checkpoint):
    """Callback that keeps best.ckpt and last.ckpt, and saves before it ends the run on a signal.

    A checkpoint is written at the end of every epoch, every few minutes within an epoch, and before exiting
    on SIGTERM, SIGINT or SIGUSR1; only where nothing is half done: no accumulated gradients, no validation in
    progress.

    Args:
        folder: folder of the checkpoints.
        monitor: name of the validation score to maximise; None without validation: then the last checkpoint
            is the best.
        minutes: time between checkpoints within an epoch.
        check_weights: called on every process before a checkpoint is written; raises if the weights are bad.
        log: prints a line to the console.

    Attributes:
        is_restoring: whether an error now would be due to the state in a checkpoint: while it is loaded, and
            during the first optimizer step.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str | None,
        minutes: float,
        check_weights: Callable[[pl.Trainer, pl.LightningModule], None],
        log: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.monitor = monitor
        self.best_model_score: float | None = None
        self._minutes = minutes
        self._check_weights = check_weights
        self._log = log
        self._last_save = time.monotonic()
        self._signal: int | None = None
        self._position: dict[str, Any] = {}
        self.is_restoring = False
        self._is_first_step = True

    @property
    def best_model_path(self) -> str:
        """Path of the checkpoint that is predicted with: that of the highest score, until keep_last."""
        return str(self.folder / "best.ckpt")

    @property
    def highest_path(self) -> Path:
        """Path of the checkpoint of the highest score."""
        kept = self.folder / "highest.ckpt"
        return kept if kept.exists() else Path(self.best_model_path)

    def keep_last(self) -> None:
        """Make the last checkpoint the one that is predicted with; that of the highest score is kept."""
        if Path(self.best_model_path).samefile(self.last_path):
            return
        kept = self.folder / "highest.ckpt"
        if not kept.exists():
            atomic_write(kept, lambda temp: _link(Path(self.best_model_path), temp))
        atomic_write(Path(self.best_model_path), lambda temp: _link(self.last_path, temp))

    def keep_highest(self) -> None:
        """Make the checkpoint of the highest score the one that is predicted with."""
        if self.highest_path != Path(self.best_model_path):
            self.highest_path.replace(self.best_model_path)

    @property
    def last_path(self) -> Path:
        """Path of the last checkpoint."""
        return self.folder / "last.ckpt"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Broadcast the folder of the main process, whose run folder counts."""
        self.folder = Path(trainer.strategy.broadcast(str(self.folder.absolute())))

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far."""
        return {"best": self.best_model_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score."""
        self.best_model_score = state_dict["best"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the position, and rewrite the state of Lightning's loops accordingly."""
        checkpoint[POSITION] = self._position
        lightning_loops.rewrite_loop_state(
            checkpoint["loops"]["fit_loop"], **{k: v for k, v in self._position.items() if k != "done"}
        )

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check the loop state, and restore whether the run had stopped by itself.

        Raises:
            ValueError: the loop state is not what Lightning writes; Lightning itself doesn't check it.
        """
        check_alike(checkpoint["loops"]["fit_loop"], trainer.fit_loop.state_dict(), "loops.fit_loop")
        trainer.should_stop = checkpoint[POSITION]["done"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers; save the initial weights."""
        if self.is_restoring:
            check_sizes(trainer.optimizers)
        self.is_restoring = False
        self._end_with_validation(trainer)
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:  # Lightning restores the old handlers at the end
                signal.signal(number, self._on_signal)
        lightning_loops.correct_restart_flag(trainer)
        if not self.last_path.exists():
            self._save(trainer, pl_module, epoch=trainer.current_epoch, batch=0)

    def _end_with_validation(self, trainer: pl.Trainer) -> None:
        """Let the first epoch end where training does, if that is before any validation."""
        max_batches = trainer.max_steps * trainer.accumulate_grad_batches
        epoch_batches = trainer.num_training_batches
        first_validation = min(trainer.val_check_batch or epoch_batches, epoch_batches)
        if self.monitor and trainer.current_epoch == 0 and 0 < max_batches < first_validation:
            trainer.fit_loop.max_batches = trainer.val_check_batch = max_batches
            trainer.check_val_every_n_epoch = 1
            self._log(
                f"trainer.max_steps={trainer.max_steps} ends within the first epoch, of {epoch_batches} "
                "batches: its model is validated and kept there"
            )

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Exit at once on a signal from now on: the evaluation restarts from the checkpoints."""
        if threading.current_thread() is threading.main_thread():
            for number in _END_SIGNALS:
                signal.signal(number, _exit)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Mark the first step, which shows whether the optimizer can use its restored state."""
        self.is_restoring, self._is_first_step = self._is_first_step, False

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Save within the epoch when it is time, or when a signal has come."""
        self.is_restoring = False
        if (
            lightning_loops.is_accumulating(trainer)
            or lightning_loops.is_last_batch_of_epoch(trainer)
            or lightning_loops.validation_is_due(trainer)
        ):
            return  # gradients are incomplete, or the end of the epoch or validation follows
        due = time.monotonic() - self._last_save >= 60 * self._minutes
        if trainer.strategy.reduce_boolean_decision(due or self._signal is not None, all=False):
            self._save(trainer, pl_module, epoch=trainer.current_epoch, batch=batch_idx + 1)
            if self._signal is not None:  # Lightning would call the loggers after this
                lightning_loops.log_step_metrics(trainer)
            self._exit_if_signalled(trainer)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save and exit if a signal has come; a resumed run repeats the validation."""
        if lightning_loops.is_last_validation_batch(trainer) or trainer.global_step == trainer.max_steps:
            # the epoch is about to end, and ranks may differ in their number of batches; and a run that has
            # made all its steps would not be resumed in its last validation
            return
        if trainer.strategy.reduce_boolean_decision(self._signal is not None, all=False):
            train_batch = lightning_loops.batches_started(trainer)
            self._save(trainer, pl_module, epoch=trainer.current_epoch, batch=train_batch, validate=True)
            self._exit_if_signalled(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of an epoch, with its scores."""
        best = self.monitor is None
        if self.monitor and lightning_loops.is_validation_epoch(trainer):
            score = float(trainer.callback_metrics.get(self.monitor, float("nan")))
            best = self.best_model_score is None or score > self.best_model_score
            if best:
                self.best_model_score = score
        self._save(trainer, pl_module, epoch=trainer.current_epoch + 1, batch=0, best=best)
        self._exit_if_signalled(trainer)

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
        self._check_weights(trainer, module)
        self._position = {"epoch": epoch, "batch": batch, "validate": validate, "done": trainer.should_stop}
        new = self.folder / "new.ckpt"
        trainer.save_checkpoint(new, weights_only=False)
        if trainer.is_global_zero:
            # best.ckpt first: if the process dies between the two, the epoch is repeated and finds it again
            if best:
                atomic_write(Path(self.best_model_path), lambda temp: _link(new, temp))
                (self.folder / "highest.ckpt").unlink(missing_ok=True)  # of an earlier, shorter training
            new.replace(self.last_path)
        self._last_save = time.monotonic()

    def _exit_if_signalled(self, trainer: pl.Trainer) -> None:
        if not trainer.strategy.reduce_boolean_decision(self._signal is not None, all=False):
            return
        signal_number = self._signal or signal.SIGTERM
        if trainer.is_global_zero:
            self._log(
                f"stopped by {signal.Signals(signal_number).name} after step {trainer.global_step}; "
                "resume with\n"
                f"{shell_command('train', resume=self.folder.parent)}"
            )
        raise SystemExit(128 + signal_number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal == signal.SIGINT == number:  # Ctrl-C twice exits at once
            raise KeyboardInterrupt
        self._signal = number


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _link(file: Path, name: Path) -> None:
    """Create a second name for a file, or a copy where the file system has no hard links."""
    name.unlink(missing_ok=True)
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)
