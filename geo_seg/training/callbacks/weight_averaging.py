"""A mean of the weights over the run: exponential (EMA) or of the last epochs (SWA)."""

from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from geo_seg.config.training import AverageConfig
from geo_seg.training.callbacks import lightning_loops
from geo_seg.training.module import RAW_WEIGHTS

_PREFIX = "model."
_BATCHES = 64  # that the statistics of an equal mean are taken from, at most


class WeightAverage(pl.Callback):
    """Keeps the mean of weights and statistics of the model; validation sees the mean.

    An exponential mean is so near to the last weights that the mean of their statistics serves it. Weights
    of different epochs are not: for their mean the statistics of batch normalisation are taken anew, from
    training windows.

    Checkpoints hold the mean where weights are looked for, and the weights in training beside it.

    Args:
        config: which mean.
    """

    def __init__(self, config: AverageConfig) -> None:
        self.config = config
        self._mean: dict[str, Tensor] = {}
        self._count = 0  # steps or epochs in the mean
        self._step = 0  # global step that was taken in last
        self._swapped = False

    def state_dict(self) -> dict[str, Any]:
        """What went into the mean."""
        return {"count": self._count, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it up again."""
        self._count, self._step = state_dict["count"], state_dict["step"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Puts the mean where weights are looked for."""
        if self._mean:
            held = {_PREFIX + name: value for name, value in self._mean.items()}
            found = checkpoint["state_dict"]
            one, other = (found, {**found, **held})
            checkpoint["state_dict"], checkpoint[RAW_WEIGHTS] = (
                (one, other) if self._swapped else (other, one)
            )

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes the mean up again; the module has put the weights in training into their place."""
        mean = checkpoint.get(f"{RAW_WEIGHTS}_mean", {})
        self._mean = {k.removeprefix(_PREFIX): v.clone() for k, v in mean.items() if k.startswith(_PREFIX)}

    def roll_back(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Goes back to the mean of a checkpoint, whose weights the module has taken already.

        Args:
            trainer: of the run.
            module: with the weights in training, also where validation sees the mean.
            checkpoint: as on_load_checkpoint takes it.
        """
        swapped, self._swapped = self._swapped, False
        self.on_load_checkpoint(trainer, module, checkpoint)
        self.load_state_dict(checkpoint["callbacks"][self.state_key])
        self.on_train_start(trainer, module)
        if swapped:
            self._swap(module)

    def leave_out(self, step: int) -> None:
        """Takes no step up to this one into the exponential mean: it has changed nothing."""
        if self.config.name == "ema":
            self._step = step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Moves the mean to the device."""
        self._mean = {name: value.to(pl_module.device) for name, value in self._mean.items()}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes a step into the exponential mean."""
        if self.config.name == "ema" and trainer.global_step > self._step:
            part = min(self.config.decay, (1 + self._count) / (10 + self._count))
            self._update_mean(trainer, pl_module, 1 - part)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows the mean to validation."""
        if lightning_loops.is_last_batch_of_epoch(trainer):
            self._take_epoch(trainer, pl_module)
        self._swap(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the weights in training back."""
        self._swap(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the epoch into the mean, if no validation has."""
        self._take_epoch(trainer, pl_module)

    def _take_epoch(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        first = int(self.config.start * max(trainer.max_epochs or 1, 1))
        if self.config.name == "swa" and trainer.current_epoch >= first and trainer.global_step > self._step:
            self._update_mean(trainer, module, 1 / (self._count + 1))
            self._swap(module)
            update_batchnorm_statistics(trainer, module)
            self._swap(module)

    @torch.no_grad()
    def _update_mean(self, trainer: pl.Trainer, module: Any, part: float) -> None:
        found = module.model.state_dict()
        if not self._mean:
            self._mean = {name: value.clone() for name, value in found.items()}
        for name, value in found.items():
            if value.is_floating_point():
                self._mean[name].lerp_(value, part)
            else:
                self._mean[name].copy_(value)
        self._count += 1
        self._step = trainer.global_step

    @torch.no_grad()
    def _swap(self, module: Any) -> None:
        if self._mean:
            for name, value in module.model.state_dict().items():
                held = value.clone()
                value.copy_(self._mean[name])
                self._mean[name].copy_(held)
            self._swapped = not self._swapped


@torch.no_grad()
def update_batchnorm_statistics(trainer: pl.Trainer, module: Any) -> None:
    """Gives batch normalisation the statistics of the weights as they are (Izmailov et al. 2018).

    They are equal means over the first batches of the epoch, as training has seen them, of all processes.
    Parts that don't learn at present keep theirs.
    """
    loader: Any = trainer.train_dataloader
    count = min(_BATCHES, int(trainer.num_training_batches))
    modes = {part: part.training for part in module.model.modules()}
    module.model.train()
    module.model.net.encoder.train(not module.encoder_frozen)
    layers: list[Any] = [
        part
        for part in module.model.modules()
        if isinstance(part, _BatchNorm) and part.training and part.running_mean is not None
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # equal parts
    for number, batch in enumerate(islice(loader.full_epoch(), count)):
        image, _ = module.prepare(lightning_loops.batch_to_device(trainer, batch), number)
        with lightning_loops.forward_context(trainer):
            module.model(image)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        for found in (layer.running_mean, layer.running_var):
            found.copy_(trainer.strategy.reduce(found, reduce_op="mean"))
    for part, training in modes.items():
        part.training = training
