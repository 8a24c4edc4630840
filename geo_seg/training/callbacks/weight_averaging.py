"""Average of the weights over a run: exponential (EMA) or of the last epochs (SWA).

Lightning's `WeightAveraging` is not used: it averages the batch normalisation statistics of different epochs,
or leaves them to the caller. Here they are computed again from training windows, before each validation.
"""

from itertools import islice
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from geo_seg.config.training import AverageConfig
from geo_seg.data.windows.batch import Loader
from geo_seg.models.protocol import Model
from geo_seg.training.callbacks import lightning_loops
from geo_seg.training.module import RAW_WEIGHTS, SegmentationModule

_MODEL_PREFIX = "model."
_MAX_STATISTICS_BATCHES = 64  # that the batch normalisation statistics of an SWA mean are taken from


class WeightAverage(pl.Callback):
    """Callback that keeps the mean of the model's weights and buffers; validation uses the mean.

    An exponential mean is so near to the last weights that the mean of their batch normalisation statistics
    fits it. Weights of different epochs are not: for their mean (SWA) the statistics are computed again, from
    training windows (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima").

    Checkpoints hold the mean under `state_dict`, and the weights in training under `raw_weights`.

    Args:
        config: name, decay and start of the mean.
    """

    def __init__(self, config: AverageConfig) -> None:
        self.config = config
        self._mean: dict[str, Tensor] = {}
        self._count = 0  # steps or epochs in the mean
        self._step = 0  # global step of the last update
        self._swapped = False

    def state_dict(self) -> dict[str, Any]:
        """Return the number of updates and the step of the last one; the weights hold the mean."""
        return {"count": self._count, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._count, self._step = state_dict["count"], state_dict["step"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the mean under `state_dict`, the weights in training under `raw_weights`."""
        if self._mean:
            current = checkpoint["state_dict"]
            stored = {**current, **{_MODEL_PREFIX + name: value for name, value in self._mean.items()}}
            mean, raw = (current, stored) if self._swapped else (stored, current)
            checkpoint["state_dict"], checkpoint[RAW_WEIGHTS] = mean, raw

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the mean; the module has already moved the raw weights into `state_dict`."""
        mean = checkpoint.get(f"{RAW_WEIGHTS}_mean", {})
        self._mean = {
            k.removeprefix(_MODEL_PREFIX): v.clone() for k, v in mean.items() if k.startswith(_MODEL_PREFIX)
        }

    def roll_back(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the mean of a checkpoint, after the module has loaded its weights.

        Args:
            trainer: the Trainer of the run.
            module: the module with the raw weights, even if validation was using the mean.
            checkpoint: a checkpoint as `on_load_checkpoint` receives it.
        """
        swapped, self._swapped = self._swapped, False
        self.on_load_checkpoint(trainer, module, checkpoint)
        self.load_state_dict(checkpoint["callbacks"][self.state_key])
        self.on_train_start(trainer, module)
        if swapped:
            self._swap(module)

    def skip_step(self, step: int) -> None:
        """Exclude all steps up to this one from the exponential mean: they changed no weight."""
        if self.config.name == "ema":
            self._step = step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the mean to the device."""
        self._mean = {name: value.to(pl_module.device) for name, value in self._mean.items()}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Update the exponential mean after a step."""
        if self.config.name == "ema" and trainer.global_step > self._step:
            decay = min(self.config.decay, (1 + self._count) / (10 + self._count))
            self._update_mean(trainer, pl_module, weight=1 - decay)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Swap the mean in for validation; at the end of an epoch, first update it."""
        if lightning_loops.is_last_batch_of_epoch(trainer):
            self._update_after_epoch(trainer, pl_module)
        self._swap(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Swap the raw weights back in."""
        self._swap(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update the equal mean with the epoch, unless validation has."""
        self._update_after_epoch(trainer, pl_module)

    def _update_after_epoch(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        first_epoch = int(self.config.start * max(trainer.max_epochs or 1, 1))
        if (
            self.config.name == "swa"
            and trainer.current_epoch >= first_epoch
            and trainer.global_step > self._step
        ):
            self._update_mean(trainer, module, 1 / (self._count + 1))
            self._swap(module)
            update_batchnorm_statistics(trainer, cast(SegmentationModule, module))
            self._swap(module)

    @torch.no_grad()
    def _update_mean(self, trainer: pl.Trainer, module: pl.LightningModule, weight: float) -> None:
        current = _model(module).state_dict()
        if not self._mean:
            self._mean = {name: value.clone() for name, value in current.items()}
        for name, value in current.items():
            if value.is_floating_point():
                self._mean[name].lerp_(value, weight)
            else:
                self._mean[name].copy_(value)
        self._count += 1
        self._step = trainer.global_step

    @torch.no_grad()
    def _swap(self, module: pl.LightningModule) -> None:
        if self._mean:
            for name, value in _model(module).state_dict().items():
                raw = value.clone()
                value.copy_(self._mean[name])
                self._mean[name].copy_(raw)
            self._swapped = not self._swapped


def _model(module: pl.LightningModule) -> Model:
    return cast(SegmentationModule, module).model


@torch.no_grad()
def update_batchnorm_statistics(trainer: pl.Trainer, module: SegmentationModule) -> None:
    """Compute the batch normalisation statistics of the current weights (Izmailov et al. 2018).

    They are equal means over the first batches of the epoch, as training saw them, over all processes.
    Layers that are frozen at present keep theirs.
    """
    loader = cast(Loader, trainer.train_dataloader)
    count = min(_MAX_STATISTICS_BATCHES, int(trainer.num_training_batches))
    training_modes = {layer: layer.training for layer in module.model.modules()}
    module.model.train()
    if module.model.encoder is not None and module.encoder_frozen:
        module.model.encoder.eval()
    norm_layers = [
        layer
        for layer in module.model.modules()
        if isinstance(layer, _BatchNorm) and layer.training and layer.running_mean is not None
    ]
    momenta = [layer.momentum for layer in norm_layers]
    for layer in norm_layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean
    for number, batch in enumerate(islice(loader.full_epoch(), count)):
        image, _ = module.prepare(lightning_loops.batch_to_device(trainer, batch), number)
        with lightning_loops.forward_context(trainer):
            module.model(image)
    for layer, momentum in zip(norm_layers, momenta, strict=True):
        layer.momentum = momentum
        for statistic in (layer.running_mean, layer.running_var):
            if statistic is not None:
                statistic.copy_(trainer.strategy.reduce(statistic, reduce_op="mean"))
    for part, training in training_modes.items():
        part.training = training
