"""What becomes of a loss that is not a number."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from geo_seg.errors import TrainingError
from geo_seg.training.callbacks.weight_averaging import WeightAverage

_MAX_BAD_STEPS = 10  # bad steps in a row, after which leaving them out is no help
_CHECK_EVERY = 8  # steps between looks at a GPU's losses: looking waits for the GPU


class NaNGuard(pl.Callback):
    """Finds losses that are not finite, keeps their batches, and does what the user wants.

    A bad step never changes the weights: gradients are thrown away before the optimizer uses them, and the
    statistics of normalising layers are put back. On a GPU "stop" and "rollback" look every 8 steps and
    before each checkpoint: what came between is thrown away too.

    Args:
        action: "stop", "skip" or "rollback".
        whereabouts: says where a sample comes from, by its place in a batch.
        folder: where the batches go.
        last: the checkpoint to go back to.
        say: shows a line to the user.
    """

    def __init__(
        self,
        action: str,
        whereabouts: Callable[[Sequence[int]], str],
        folder: Path,
        last: Path,
        say: Callable[[str], None],
    ) -> None:
        self.action = action
        self._whereabouts = whereabouts
        self._folder = folder
        self._last = last
        self._say = say
        self._steps: list[
            tuple[int, int, dict[str, Tensor]]
        ] = []  # epoch, batch number, batch; not looked at
        self._losses: list[Tensor] = []
        self._buffers: list[Tensor] = []
        self._in_a_row = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Takes the folders of the first process, which alone knows them for sure."""
        folder, last = trainer.strategy.broadcast((str(self._folder.absolute()), str(self._last.absolute())))
        self._folder, self._last = Path(folder), Path(last)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remembers the batch and the statistics before it."""
        if self.action == "skip" and not self._steps:
            self._buffers = [value.clone() for value in pl_module.buffers()]
        self._steps.append((trainer.current_epoch, batch_idx, batch))

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Remembers the loss."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Looks at the losses that the step goes by."""
        late = pl_module.device.type != "cpu" and self.action != "skip"
        if len(self._losses) >= (_CHECK_EVERY if late else 1) and self._check(trainer, pl_module):
            for average in _averages(trainer):
                average.leave_out(trainer.global_step + 1)

    def check(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Looks at the losses since the last look; every process has to.

        Raises:
            TrainingError: one is not finite and nothing can be done, or shall be.
        """
        self._check(trainer, module)

    @torch.no_grad()
    def _check(self, trainer: pl.Trainer, module: pl.LightningModule) -> bool:
        """As look; says whether the gradients were thrown away."""
        losses, steps, self._losses, self._steps = self._losses, self._steps, [], []
        if not losses:
            return False  # all processes have seen as many
        finite = torch.stack(losses).isfinite().tolist()
        bad = [(step, float(loss)) for step, loss, ok in zip(steps, losses, finite, strict=True) if not ok]
        if not trainer.strategy.reduce_boolean_decision(bool(bad), all=False):
            self._in_a_row = 0
            return False
        self._in_a_row += 1
        said = self._keep(*bad[0]) if bad else "the loss of another process is not finite"
        if self.action == "stop":
            raise TrainingError(
                f"{said}; lower optimizer.lr, set trainer.gradient_clip_val=1, or go on with resume= and "
                "on_nan=skip or on_nan=rollback"
            )
        if self._in_a_row > _MAX_BAD_STEPS:
            raise TrainingError(
                f"{said}; on_nan={self.action} has been of no help {_MAX_BAD_STEPS} times in a row"
            )
        if self.action == "skip":
            for value, before in zip(module.buffers(), self._buffers, strict=True):
                value.copy_(before)
            self._say(f"note: {said}; the step is left out")
        else:
            self._roll_back(trainer, module)
            self._say(f"note: {said}; back to the weights of {self._last}")
        for weight in module.parameters():
            weight.grad = None
        return True

    def _roll_back(self, trainer: pl.Trainer, module: Any) -> None:
        found = trainer.strategy.load_checkpoint(self._last, weights_only=True)
        optimizer = trainer.optimizers[0]
        rates = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        module.on_load_checkpoint(found)
        trainer.strategy.load_model_state_dict(found, strict=True)
        trainer.strategy.load_optimizer_state_dict(found)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group.update(rate)  # the schedule goes on
        for average in _averages(trainer):
            average.roll_back(trainer, module, found)

    def _keep(self, step: tuple[int, int, dict[str, Tensor]], loss: float) -> str:
        """Writes the batch down; gives the words for it."""
        epoch, number, batch = step
        places = [self._whereabouts(place) for place in batch["place"].tolist()]
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"epoch{epoch}_batch{number}.pt"
        torch.save({key: value.cpu() for key, value in batch.items()}, file)
        found = {"epoch": epoch, "batch": number, "loss": str(loss), "windows": places}
        file.with_suffix(".json").write_text(json.dumps(found, indent=2), encoding="utf-8")
        return f"the loss is {loss} in epoch {epoch}, batch {number} ({'; '.join(places)}; kept in {file})"


def _averages(trainer: pl.Trainer) -> list[WeightAverage]:
    found: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in found if isinstance(callback, WeightAverage)]
