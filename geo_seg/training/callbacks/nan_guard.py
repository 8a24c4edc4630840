"""Callback for losses that are not finite: `on_nan`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from geo_seg.data.windows.batch import Batch
from geo_seg.errors import TrainingError
from geo_seg.training.callbacks.weight_averaging import WeightAverage

_MAX_BAD_STEPS = 10  # bad steps in a row, after which leaving them out is no help
_CHECK_EVERY = 8  # steps between looks at a GPU's losses: looking waits for the GPU


class NaNGuard(pl.Callback):
    """Callback that finds losses which are not finite, keeps their batches, and acts as configured.

    A bad step never changes the weights: gradients are discarded before the optimizer uses them, and the
    statistics of normalisation layers are restored. On a GPU "stop" and "rollback" check every 8 steps and
    before each checkpoint: the steps since the last check are discarded, too.

    Args:
        action: "stop", "skip" or "rollback".
        describe_sample: returns scene and position of a sample from its entry in the batch.
        folder: folder for the batches that are kept.
        last_path: the checkpoint to roll back to.
        log: prints a line to the console.
    """

    def __init__(
        self,
        action: str,
        describe_sample: Callable[[Sequence[int]], str],
        folder: Path,
        last_path: Path,
        log: Callable[[str], None],
    ) -> None:
        self.action = action
        self._describe_sample = describe_sample
        self._folder = folder
        self._last_path = last_path
        self._log = log
        # epoch, batch number and batch of the steps whose losses were not checked yet
        self._unchecked: list[tuple[int, int, dict[str, Tensor]]] = []
        self._losses: list[Tensor] = []
        self._buffers: list[Tensor] = []
        self._bad_steps_in_a_row = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Broadcast the folders of the main process, whose run folder counts."""
        folder, last = trainer.strategy.broadcast(
            (str(self._folder.absolute()), str(self._last_path.absolute()))
        )
        self._folder, self._last_path = Path(folder), Path(last)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Remember the batch, and the buffers before it."""
        if self.action == "skip" and not self._unchecked:
            self._buffers = [value.clone() for value in pl_module.buffers()]
        self._unchecked.append((trainer.current_epoch, batch_idx, batch))

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Remember the loss."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Check the losses of the step, on a GPU those of several steps at once."""
        deferred = pl_module.device.type != "cpu" and self.action != "skip"
        if len(self._losses) >= (_CHECK_EVERY if deferred else 1) and self._check(trainer, pl_module):
            for average in _weight_averages(trainer):
                average.skip_step(trainer.global_step + 1)

    def check(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Check the losses since the last check; all processes must call it.

        Raises:
            TrainingError: a loss is not finite, and the action is "stop" or did not help.
        """
        self._check(trainer, module)

    @torch.no_grad()
    def _check(self, trainer: pl.Trainer, module: pl.LightningModule) -> bool:
        """Check the losses as `check` does; return whether the gradients were discarded."""
        losses, steps, self._losses, self._unchecked = self._losses, self._unchecked, [], []
        if not losses:
            return False  # the same on all processes: they have done equally many steps
        finite = torch.stack(losses).isfinite().tolist()
        bad = [(step, float(loss)) for step, loss, ok in zip(steps, losses, finite, strict=True) if not ok]
        if not trainer.strategy.reduce_boolean_decision(bool(bad), all=False):
            self._bad_steps_in_a_row = 0
            return False
        self._bad_steps_in_a_row += 1
        message = self._save_batch(*bad[0]) if bad else "the loss of another process is not finite"
        if self.action == "stop":
            raise TrainingError(
                f"{message}; lower optimizer.lr, set trainer.gradient_clip_val=1, or resume with resume= and "
                "on_nan=skip or on_nan=rollback"
            )
        if self._bad_steps_in_a_row > _MAX_BAD_STEPS:
            raise TrainingError(
                f"{message}; on_nan={self.action} has been of no help {_MAX_BAD_STEPS} times in a row"
            )
        if self.action == "skip":
            for value, before in zip(module.buffers(), self._buffers, strict=True):
                value.copy_(before)
            self._log(f"note: {message}; the step is skipped")
        else:
            self._roll_back(trainer, module)
            self._log(f"note: {message}; back to the weights of {self._last_path}")
        for weight in module.parameters():
            weight.grad = None
        return True

    def _roll_back(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        checkpoint = trainer.strategy.load_checkpoint(self._last_path, weights_only=True)
        optimizer = trainer.optimizers[0]
        settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        module.on_load_checkpoint(checkpoint)
        trainer.strategy.load_model_state_dict(checkpoint, strict=True)
        trainer.strategy.load_optimizer_state_dict(checkpoint)
        for group, group_settings in zip(optimizer.param_groups, settings, strict=True):
            group.update(group_settings)  # the schedule continues
        for average in _weight_averages(trainer):
            average.roll_back(trainer, module, checkpoint)

    def _save_batch(self, step: tuple[int, int, dict[str, Tensor]], loss: float) -> str:
        """Save the batch of a bad step, and return a description of the step for the message."""
        epoch, number, batch = step
        windows = [self._describe_sample(origin) for origin in batch["place"].tolist()]
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"epoch{epoch}_batch{number}.pt"
        torch.save({key: value.cpu() for key, value in batch.items()}, file)
        record = {"epoch": epoch, "batch": number, "loss": str(loss), "windows": windows}
        file.with_suffix(".json").write_text(json.dumps(record, indent=2), encoding="utf-8")
        return f"the loss is {loss} in epoch {epoch}, batch {number} ({'; '.join(windows)}; kept in {file})"


def _weight_averages(trainer: pl.Trainer) -> list[WeightAverage]:
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, WeightAverage)]
