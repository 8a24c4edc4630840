"""Search for a learning rate or the largest batch size, before training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from rich.console import Console

from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.errors import ConfigError
from geo_seg.training.build import build_trainer
from geo_seg.training.module import SegmentationModule

_LR_STEPS = 100
_MIN_LR, _MAX_LR = 1e-6, 1.0
_SMOOTHING = 0.9  # weight of the mean loss so far at each step
_DIVERGENCE_RATIO = 4.0  # of the mean loss to its minimum

Build = Callable[[TrainConfig, SceneDataModule], SegmentationModule]


def tune(
    config: TrainConfig, data: SceneDataModule, build: Build, options: Mapping[str, Any], console: Console
) -> TrainConfig:
    """Search for what config.find names, on the training windows, with weights that are discarded.

    Args:
        config: configuration of the run.
        data: data module; its batch size is set to the result.
        build: builds the module of a configuration.
        options: options of the Trainer.
        console: console for the result.

    Returns:
        The configuration with the results, and find="none".

    Raises:
        ConfigError: the search is not possible on this machine or with these options.
    """
    if options.get("devices") not in {1, "1"}:
        raise ConfigError(f"find={config.find}: expected trainer.devices=1; use its results for more devices")
    if config.find in {"batch_size", "both"}:
        if options.get("accelerator") == "cpu" or not torch.cuda.is_available():
            raise ConfigError(
                f"find={config.find}: needs a GPU, whose memory is to be filled; set dataset.batch_size"
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
    """Return the learning rate at which the loss falls fastest while the rate rises (Smith 2017)."""
    probe = _LRProbe()
    _probe_steps(options, build(config, data), data, _LR_STEPS, probe)
    return suggest_lr(np.array(probe.rates), np.array(probe.losses))


def suggest_lr(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> float:
    """Return the rate at which the mean loss falls fastest, rounded to two digits.

    Args:
        rates: learning rates in ascending order.
        losses: mean loss at each rate.

    Raises:
        ConfigError: the loss falls nowhere.
    """
    end = int(np.argmin(losses)) + 1
    if end < 5:
        raise ConfigError("find=lr: the loss falls at no learning rate; set optimizer.lr")
    slope = np.gradient(losses[:end], np.log(rates[:end]))
    return float(f"{rates[int(np.argmin(slope))]:.1e}")


def find_batch_size(
    config: TrainConfig, data: SceneDataModule, build: Build, options: Mapping[str, Any]
) -> int:
    """Return the largest power of two whose training steps fit into memory, at most an epoch's windows.

    Raises:
        ConfigError: not even two windows fit.
    """
    max_size = 2
    size, largest = 2, 0
    while size <= max_size:
        data.config = replace(data.config, batch_size=size)
        loader = data.train_dataloader()
        max_size = len(loader) * size
        try:
            _probe_steps(options, build(config, data), data, 2)
        except torch.OutOfMemoryError:
            break
        largest, size = size, 2 * size
    torch.cuda.empty_cache()
    if not largest:
        raise ConfigError("find=batch_size: not even 2 windows fit into memory; set dataset.window lower")
    data.config = replace(data.config, batch_size=largest)
    return largest


class _LRProbe(pl.Callback):
    """Callback that raises the learning rate from step to step and records the loss, until it diverges."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._mean = 0.0
        self._base_rates: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        rate = _MIN_LR * (_MAX_LR / _MIN_LR) ** (len(self.rates) / (_LR_STEPS - 1))
        groups = trainer.optimizers[0].param_groups
        self._base_rates = self._base_rates or [group["lr"] for group in groups]
        for group, base_rate in zip(groups, self._base_rates, strict=True):
            group["lr"] = rate * base_rate / (self._base_rates[0] or 1.0)
        self.rates.append(rate)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # a mapping in automatic optimization
        batch: object,
        batch_idx: int,
    ) -> None:
        loss = float(outputs["loss"])
        self._mean = _SMOOTHING * self._mean + (1 - _SMOOTHING) * loss
        mean = self._mean / (1 - _SMOOTHING ** len(self.rates))
        if not math.isfinite(mean) or mean > _DIVERGENCE_RATIO * min(self.losses, default=mean):
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
    """Train some steps without leaving anything behind."""
    overrides = {"max_epochs": -1, "max_steps": steps, "limit_val_batches": 0, "enable_progress_bar": False}
    trainer = build_trainer(
        {**options, **overrides},
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
