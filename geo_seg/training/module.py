"""The LightningModule of all models and losses."""

from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_class
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import LRSchedulerTypeUnion, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

import losses
from geo_seg.checkpoints.checkpoint import METADATA_KEY, CheckpointMetadata, to_dict
from geo_seg.config.training import EncoderConfig, EvaluationConfig
from geo_seg.data.augment import Augment
from geo_seg.data.windows.batch import Batch
from geo_seg.errors import ConfigError, first_line
from geo_seg.metrics.epoch_means import EpochMeans, WeightedMean
from geo_seg.models.layers import Normalize
from geo_seg.models.protocol import Model
from geo_seg.training.callbacks.lightning_loops import is_validation_epoch
from geo_seg.training.evaluation import Validation
from geo_seg.training.optim import check_has_encoder, parameter_groups
from geo_seg.training.seeding import seed_step

RAW_WEIGHTS = "raw_weights"
"""Entry of a checkpoint with the weights in training, if its state_dict holds a mean of them."""

LENGTH_OPTIONS = ("total_steps", "T_max", "total_iters")
"""Options of torch's schedulers for the length of a run; null in the configuration is set to the run's."""


class SegmentationModule(pl.LightningModule):
    """LightningModule with model, loss, metrics and optimizer of a run.

    Logs train/loss, val/loss, val/miou, val/accuracy, val/iou_<class> and the registered metrics per epoch,
    and each term of a compound loss.

    Args:
        model: (N, bands, H, W) float to logits (N, channels, H, W).
        loss: (logits, labels) to a scalar.
        task: mode, classes and ignore_index.
        metadata: metadata for every checkpoint.
        augment: augmentation of training windows.
        optimizer: `_target_` and options.
        scheduler: `_target_`, options and `interval`.
        encoder: freezing and learning rates of the encoder.
        evaluation: options of validation.
        seed: seed of all random numbers in training, together with epoch, batch and rank.
        num_scenes: number of validation scenes.
    """

    def __init__(
        self,
        model: Model,
        loss: losses.Loss,
        task: losses.Task,
        metadata: CheckpointMetadata,
        augment: Augment,
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        encoder: EncoderConfig,
        evaluation: EvaluationConfig,
        seed: int,
        num_scenes: int,
    ) -> None:
        super().__init__()
        self.model: Model = model.to(memory_format=torch.channels_last)
        self.loss: losses.Loss = loss
        self.task = task
        self.metadata = metadata
        self.augment = augment
        self.normalize = Normalize(metadata.mean, metadata.std)
        self.validation = Validation(task, metadata, num_scenes, evaluation.boundary)
        self.validation_loss = WeightedMean()
        self._optimizer = dict(optimizer)
        self._scheduler = dict(scheduler)
        self._encoder = encoder
        check_has_encoder(model, encoder)
        self._seed = seed
        self.means = EpochMeans()

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """Predict logits from raw band values.

        Args:
            image: (N, bands, H, W) of any real dtype.
            valid: (N, H, W) bool.

        Returns:
            (N, channels, H, W) logits.
        """
        return self.model(self.normalize(image, valid))

    def on_train_start(self) -> None:
        """Repeat the start of the epoch, which a resumed run has missed."""
        self._start_epoch()

    def on_train_epoch_start(self) -> None:
        """Start the epoch and reset its means."""
        self._start_epoch()
        self.means.clear()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch of random windows."""
        image, labels = self.prepare(batch, batch_idx)
        loss = self.loss(self.model(image), labels)
        self.log("train/loss_step", loss, prog_bar=True)
        self.means.add("train/loss", loss, len(labels))
        if isinstance(self.loss, losses.LossWithTerms):
            for name, value in self.loss.terms().items():
                self.means.add(f"train/{name}", value, len(labels))
        return loss

    def prepare(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return what the model is trained on: normalised and augmented images, and their labels.

        Args:
            batch: batch of training windows.
            batch_idx: number of the batch in the epoch; it decides the augmentation.
        """
        key = seed_step(self._seed, self.current_epoch, batch_idx, self.global_rank)
        generator = torch.Generator(self.device).manual_seed(key)
        image = self.normalize(batch["image"], batch["valid"])
        image, labels, _ = self.augment(image, batch["labels"], batch["valid"], generator)
        return image, labels

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch; step a scheduler that depends on validation scores."""
        for name, value in self.means.values(self.trainer.strategy).items():
            self.log(name, value, sync_dist=True)  # already the same on all processes
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau) and is_validation_epoch(self.trainer):
            scheduler.step(self.trainer.callback_metrics["val/miou"])

    def lr_scheduler_step(self, scheduler: LRSchedulerTypeUnion, metric: object) -> None:
        """Step a scheduler unless it depends on validation scores.

        Lightning would step that one after the epoch's checkpoint, so that a resumed run would miss the step.
        """
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Drop the gradients of a frozen encoder; DDP requires that they are computed."""
        if self.encoder_frozen:
            for weight in self._decoder_and_encoder()[1]:
                weight.grad = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count a batch of the validation grid."""
        # a metric instead of self.log: processes without validation windows must take part in the reduction
        logits = self(batch["image"], batch["valid"])
        self.validation.update(logits, batch)
        self.validation_loss.update(self.loss(logits, batch["labels"]), len(batch["labels"]))

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation split; store temperature and threshold in the metadata."""
        scores, self.metadata = self.validation.finish(self.metadata)
        self.log("val/loss", self.validation_loss.compute())
        self.validation_loss.reset()
        self.log("val/miou", scores.miou or 0.0, prog_bar=True)
        self.log("val/accuracy", scores.accuracy or 0.0)
        for name, value in {"boundary_iou": scores.boundary_iou, **scores.other}.items():
            if isinstance(value, int | float):
                self.log(f"val/{name}", float(value))
        for score in scores.classes:
            if score.iou is not None:
                self.log(f"val/iou_{score.name}", score.iou)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and scheduler from their `_target_`."""
        options = dict(self._optimizer)
        optimizer_class = _class_of("optimizer", options.pop("_target_"), Optimizer)
        groups = parameter_groups(self._decoder_and_encoder()[0], self.model.encoder, options, self._encoder)
        # fused: one kernel for all weights; the gradient scaler of float16 can't clip with it
        can_fuse = self.trainer.precision != "16-mixed" and not {"foreach", "differentiable"} & {*options}
        if "fused" in signature(optimizer_class).parameters and can_fuse:
            options.setdefault("fused", True)
        try:
            optimizer = optimizer_class(groups, **options)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(f"optimizer {optimizer_class.__name__}: {first_line(error)}") from error
        has_fixed_momentum = {"momentum", "betas"} & {*options} or not {"momentum", "betas"} & {
            *optimizer.defaults
        }
        options = dict(self._scheduler)
        scheduler_class = _class_of("scheduler", options.pop("_target_"), LRScheduler)
        interval = options.pop("interval", "epoch")
        steps = self.trainer.estimated_stepping_batches if interval == "step" else self.trainer.max_epochs
        if options.get("pct_start"):  # OneCycleLR divides by zero when its first phase has a single step
            steps = max(steps or 1, int(1 / options["pct_start"]) + 1)
        for name in LENGTH_OPTIONS:
            if name in options and options[name] is None:
                options[name] = int(steps or 1)
        if "max_lr" in options and options["max_lr"] is None:
            options["max_lr"] = [group["lr"] for group in optimizer.param_groups]
        if (
            "cycle_momentum" in signature(scheduler_class).parameters
            and options.get("cycle_momentum") is None
        ):
            options["cycle_momentum"] = not has_fixed_momentum
        if issubclass(scheduler_class, ReduceLROnPlateau) and (
            interval == "step" or not self.trainer.enable_validation
        ):
            raise ConfigError(
                f"scheduler {scheduler_class.__name__} watches the validation: expected one per epoch"
            )
        try:
            scheduler = scheduler_class(optimizer, **options)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"scheduler {scheduler_class.__name__}: {first_line(error)}") from error
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": interval, "reduce_on_plateau": False},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients as the Trainer says; Lightning's own clipping refuses all fused optimizers."""
        if not gradient_clip_val:
            return
        if self.trainer.precision == "16-mixed":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        else:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the metadata, and the means of the epoch so far."""
        checkpoint[METADATA_KEY] = to_dict(self.metadata)
        checkpoint["means"] = self.means.state(self.trainer.strategy)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the weights in training, the means of the epoch, normalization and calibration."""
        saved = checkpoint[METADATA_KEY]
        restored = {key: saved[key] for key in ("mean", "std", "temperature", "threshold") if key in saved}
        self.metadata = replace(self.metadata, **restored)
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.means.load(checkpoint["means"])
            if RAW_WEIGHTS in checkpoint:
                checkpoint[f"{RAW_WEIGHTS}_mean"] = checkpoint["state_dict"]
                checkpoint["state_dict"] = checkpoint.pop(RAW_WEIGHTS)

    @property
    def encoder_frozen(self) -> bool:
        """Whether the encoder is frozen in this epoch."""
        return self.current_epoch < self._encoder.freeze_epochs

    def _start_epoch(self) -> None:
        if isinstance(self.loss, losses.LossWithSchedule):
            self.loss.set_epoch(self.current_epoch)
        if self.model.encoder is not None:
            self.model.encoder.train(not self.encoder_frozen)
        if self.trainer.world_size == 1:  # DDP decides once, at its start, which gradients it expects
            for weight in self._decoder_and_encoder()[1]:
                weight.requires_grad_(not self.encoder_frozen)

    def _decoder_and_encoder(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the weights outside and inside the encoder; none are inside if the model has none."""
        encoder = list(self.model.encoder.parameters()) if self.model.encoder is not None else []
        encoder_weights = set(encoder)
        return [weight for weight in self.parameters() if weight not in encoder_weights], encoder


def _class_of(section: str, target: str, base: type) -> Any:  # whose constructor has its own options
    """Import the class that a `_target_` names.

    Raises:
        ConfigError: the class can't be imported, or is no subclass of the expected one.
    """
    try:
        imported = get_class(target)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{section}._target_={target}: {first_line(error)}") from error
    if not issubclass(imported, base):
        raise ConfigError(f"{section}._target_={target}: expected a class that is a {base.__name__}")
    return imported
