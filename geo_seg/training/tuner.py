"""Looking for a learning rate, or for the largest batch, before training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from rich.console import Console

from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.errors import ConfigError
from geo_seg.training.module import SegmentationModule

_STEPS = 100
_LOWEST, _HIGHEST = 1e-6, 1.0
_SMOOTH = 0.9  # part of the mean loss that stays at a step
_DIVERGED = 4.0  # times the lowest loss

Build = Callable[[TrainConfig, SceneDataModule], SegmentationModule]


def tune(
    config: TrainConfig, data: SceneDataModule, build: Build, options: Mapping[str, Any], console: Console
) -> TrainConfig:
    """Looks for what config.find names, on the training windows, with weights that are thrown away.

    Args:
        config: the run.
        data: its data; takes on the batch size that is found.
        build: makes the module of a configuration.
        options: of the Trainer.
        console: where the result is shown.

    Returns:
        The configuration with the findings in it, and nothing to find.

    Raises:
        ConfigError: it can't be found on this machine or with these options.
    """
    if options.get("devices") not in {1, "1"}:
        raise ConfigError(
            f"find={config.find}: expected trainer.devices=1; take what it finds to more devices"
        )
    if config.find in {"batch_size", "both"}:
        if options.get("accelerator") == "cpu" or not torch.cuda.is_available():
            raise ConfigError(
                f"find={config.find}: a CPU has no memory of its own to fill; set dataset.batch_size"
            )
        size = find_batch_size(config, data, build, options)
        console.print(f"found dataset.batch_size={size}")
        config = replace(config, dataset=replace(config.dataset, batch_size=size))
    if config.find in {"lr", "both"}:
        rate = find_lr(config, data, build, options)
        console.print(f"found optimizer.lr={rate}")
        config = replace(config, optimizer={**config.optimizer, "lr": rate})
    return replace(config, find="none")


def find_lr(config: TrainConfig, data: SceneDataModule, build: Build, options: Mapping[str, Any]) -> float:
    """The learning rate at which the loss falls fastest, as it rises from step to step (Smith 2017)."""
    probe = _LRProbe()
    _probe_steps(options, build(config, data), data, _STEPS, probe)
    return suggest_lr(np.array(probe.rates), np.array(probe.losses))


def suggest_lr(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> float:
    """The rate at which the mean loss falls fastest, rounded to two digits.

    Args:
        rates: rising.
        losses: mean loss at each.

    Raises:
        ConfigError: it falls nowhere.
    """
    upto = int(np.argmin(losses)) + 1
    if upto < 5:
        raise ConfigError("find=lr: the loss falls at no learning rate; set optimizer.lr")
    slope = np.gradient(losses[:upto], np.log(rates[:upto]))
    return float(f"{rates[int(np.argmin(slope))]:.1e}")


def find_batch_size(
    config: TrainConfig, data: SceneDataModule, build: Build, options: Mapping[str, Any]
) -> int:
    """The largest power of two whose training steps fit into memory, at most an epoch's windows.

    Raises:
        ConfigError: not even two windows fit.
    """
    most = 2
    size, held = 2, 0
    while size <= most:
        data.config = replace(data.config, batch_size=size)
        loader = data.train_dataloader()
        most = len(loader) * size
        try:
            _probe_steps(options, build(config, data), data, 2)
        except torch.OutOfMemoryError:
            break
        held, size = size, 2 * size
    torch.cuda.empty_cache()
    if not held:
        raise ConfigError("find=batch_size: not even 2 windows fit into memory; set dataset.window lower")
    data.config = replace(data.config, batch_size=held)
    return held


class _LRProbe(pl.Callback):
    """Raises the learning rate from step to step and follows the loss, until it diverges."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._mean = 0.0
        self._base: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        rate = _LOWEST * (_HIGHEST / _LOWEST) ** (len(self.rates) / (_STEPS - 1))
        groups = trainer.optimizers[0].param_groups
        self._base = self._base or [group["lr"] for group in groups]
        for group, base in zip(groups, self._base, strict=True):
            group["lr"] = rate * base / (self._base[0] or 1.0)
        self.rates.append(rate)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = float(outputs["loss"])
        self._mean = _SMOOTH * self._mean + (1 - _SMOOTH) * loss
        mean = self._mean / (1 - _SMOOTH ** len(self.rates))
        if not math.isfinite(mean) or mean > _DIVERGED * min(self.losses, default=mean):
            self.rates.pop()
            trainer.should_stop = True
        else:
            self.losses.append(mean)


def _probe_steps(
    options: Mapping[str, Any],
    module: SegmentationModule,
    data: SceneDataModule,
    steps: int,
    *callbacks: pl.Callback,
) -> None:
    """Trains some steps and leaves nothing behind."""
    changed = {"max_epochs": -1, "max_steps": steps, "limit_val_batches": 0, "enable_progress_bar": False}
    try:
        trainer = pl.Trainer(
            **{**options, **changed},
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"trainer: {str(error).splitlines()[0]}") from error
    trainer.fit(module, datamodule=data)
