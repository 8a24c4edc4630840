"""The one LightningModule, for every model and loss."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_class
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

import losses
from geo_seg.checkpoint import KEY, Facts, entry
from geo_seg.data.augment import Augment
from geo_seg.data.windows import Batch
from geo_seg.metrics import ConfusionMatrix, Mean, Scores, scores
from geo_seg.models import Normalize

_STEPS = ("total_steps", "T_max", "total_iters")  # what torch's schedulers call the length of a run


class SegmentationModule(pl.LightningModule):
    """Model, loss, metrics and optimizer of a run.

    Logs train/loss, val/loss, val/miou and val/accuracy per epoch, and each term of a compound loss.

    Args:
        model: (N, bands, H, W) float to logits (N, channels, H, W).
        loss: (logits, labels) to a scalar.
        task: mode, classes and ignore_index.
        facts: goes into every checkpoint.
        augment: random changes to training windows.
        optimizer: `_target_` and options.
        scheduler: `_target_`, options and `interval`.
        seed: of the augmentation.
        num_scenes: of the largest split that is evaluated.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        task: losses.Task,
        facts: Facts,
        augment: Augment,
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        seed: int,
        num_scenes: int,
    ) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.loss: Any = loss
        self.task = task
        self.facts = facts
        self.augment = augment
        self.normalize = Normalize(facts.mean, facts.std)
        self.confusion = ConfusionMatrix(task.num_classes, facts.ignore_index, num_scenes)
        self.validation_loss = Mean()
        self.test_scores: Scores = {}
        self.test_scenes = torch.zeros(0)
        self._optimizer = dict(optimizer)
        self._scheduler = dict(scheduler)
        self._seed = seed

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """Predicts logits from raw band values.

        Args:
            image: (N, bands, H, W) of any real dtype.
            valid: (N, H, W) bool.

        Returns:
            (N, channels, H, W) logits.
        """
        logits: Tensor = self.model(self.normalize(image, valid))
        return logits

    def on_train_epoch_start(self) -> None:
        """Moves losses whose weights follow a schedule."""
        if hasattr(self.loss, "set_epoch"):
            self.loss.set_epoch(self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step on a batch of random windows."""
        generator = torch.Generator(self.device)
        generator.manual_seed(hash((self._seed, self.current_epoch, batch_idx, self.global_rank)) % 2**63)
        image = self.normalize(batch["image"], batch["valid"])
        image, labels, _ = self.augment(image, batch["labels"], batch["valid"], generator)
        loss: Tensor = self.loss(self.model(image), labels)
        size = len(labels)
        self.log("train/loss_step", loss, on_epoch=False, prog_bar=True, batch_size=size)
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        if hasattr(self.loss, "terms"):
            for name, value in self.loss.terms().items():
                self.log(
                    f"train/{name}", value, on_step=False, on_epoch=True, sync_dist=True, batch_size=size
                )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts a batch of the validation grid."""
        # a metric and not self.log: a process that has no validation window must take part as well
        self.validation_loss.update(self._evaluate(batch), len(batch["labels"]))

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of the whole validation split."""
        found = self._scores()[0]
        self.log("val/loss", self.validation_loss.compute())
        self.validation_loss.reset()
        self.log("val/miou", found["miou"] or 0.0, prog_bar=True)
        self.log("val/accuracy", found["accuracy"] or 0.0)
        for score in found["classes"]:
            if score["iou"] is not None:
                self.log(f"val/iou_{score['name']}", score["iou"])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts a batch of the test grid."""
        self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        """Keeps the scores of the whole split, and the confusion matrix of each scene."""
        self.test_scores, self.test_scenes = self._scores()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Builds optimizer and scheduler from their _target_."""
        options = dict(self._optimizer)
        kind = get_class(options.pop("_target_"))
        trained = [p for p in self.parameters() if p.requires_grad]
        # one kernel for all weights; the scaler of float16 can't clip behind it
        if "fused" in signature(kind).parameters and self.trainer.precision != "16-mixed":
            options.setdefault("fused", True)
        optimizer = kind(trained, **options)
        options = dict(self._scheduler)
        target, interval = get_class(options.pop("_target_")), options.pop("interval", "epoch")
        steps = self.trainer.estimated_stepping_batches if interval == "step" else self.trainer.max_epochs
        if options.get("pct_start"):  # OneCycleLR divides by zero when its first phase has a single step
            steps = max(steps or 1, int(1 / options["pct_start"]) + 1)
        for name in _STEPS:
            if name in options and options[name] is None:
                options[name] = int(steps or 1)
        if "max_lr" in options and options["max_lr"] is None:
            options["max_lr"] = [group["lr"] for group in optimizer.param_groups]
        scheduler = target(optimizer, **options)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": interval, "monitor": "val/miou"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as the Trainer says; Lightning's own way refuses fused optimizers even without a scaler."""
        if not gradient_clip_val:
            return
        if self.trainer.precision == "16-mixed":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        else:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the facts that prediction needs."""
        checkpoint[KEY] = entry(self.facts)

    def _evaluate(self, batch: Batch) -> Tensor:
        logits = self(batch["image"], batch["valid"])
        self.confusion.update(self.task.decode(logits), batch["labels"], batch["scene"])
        loss: Tensor = self.loss(logits, batch["labels"])
        return loss

    def _scores(self) -> tuple[Scores, Tensor]:
        scenes = self.confusion.compute()
        self.confusion.reset()
        return scores(scenes.sum(0), self.facts.class_names), scenes.cpu()
