"""Throughput of training: samples per second, time spent waiting for windows, peak memory."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.windows.batch import Batch, Loader
from geo_seg.runtime.files import write_csv
from geo_seg.training.callbacks.csv_metrics import MetricRow

_STARVED_FRACTION = 0.1  # of the time spent waiting for windows, above which a note gives advice
_MIN_STEPS = 10  # of an epoch, below which the fraction says nothing


class ThroughputLogger(pl.Callback):
    """Callback that writes system.csv, one row per epoch, and notes once if training waits for windows.

    Times are of training steps alone: without validation, and without the first step of the run, which sets
    up what the others use. With several processes, times are of the main process and samples are of all.

    Args:
        path: the CSV file.
        log: prints a line to the console.
        advice: how to read windows faster on this machine.
    """

    def __init__(self, path: Path, log: Callable[[str], None], advice: str) -> None:
        self.path = path
        self.rows: list[MetricRow] = []
        self._log = log
        self._advice = advice
        self._is_first_step = True
        self._advised = False
        self._steps = self._samples = 0
        self._start = self._waited = self._pause_start = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the counts."""
        self._reset(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count a step."""
        if self._is_first_step:
            self._is_first_step = False
            self._reset(trainer)
            return
        self._steps += 1
        self._samples += len(batch["labels"]) * trainer.world_size

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._pause_start = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart the clock."""
        self._start += time.perf_counter() - self._pause_start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Append the row of the epoch."""
        if not trainer.is_global_zero:
            return
        on_gpu = pl_module.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()  # steps run asynchronously
        seconds = time.perf_counter() - self._start
        row: MetricRow = {"epoch": trainer.current_epoch, **_memory(on_gpu)}
        if self._steps:
            row["samples_per_second"] = self._samples / seconds
            row["step_seconds"] = seconds / self._steps
            row["data_wait_share"] = (_wait_seconds(trainer) - self._waited) / seconds
        self.rows.append(row)
        write_csv(self.path, self.rows)
        for logger in trainer.loggers:
            metrics = {f"system/{name}": value for name, value in row.items() if name != "epoch"}
            logger.log_metrics(metrics, max(trainer.global_step - 1, 0))  # as Lightning counts
        if (
            row.get("data_wait_share", 0) > _STARVED_FRACTION
            and self._steps >= _MIN_STEPS
            and not self._advised
        ):
            self._advised = True
            self._log(
                f"note: {row['data_wait_share']:.0%} of the time the model waits for windows; {self._advice}"
            )

    def _reset(self, trainer: pl.Trainer) -> None:
        self._steps = self._samples = 0
        self._start, self._waited = time.perf_counter(), _wait_seconds(trainer)


def reading_advice(config: DatasetConfig, decoded: bool) -> str:
    """Return advice on how to read windows faster.

    Args:
        config: options of the data set.
        decoded: whether all scenes have decoded copies.
    """
    cores = os.cpu_count() or 1
    if config.samples is not None:
        return f"dataset.num_workers={cores} reads samples with all cores of this machine"
    advice = []
    if config.num_threads < cores:
        advice.append(f"dataset.num_threads={cores} reads with all cores of this machine")
    if not decoded:
        advice.append("dataset.cache=memmap keeps decoded scenes on the disk")
    return " and ".join(advice) or "a faster disk or fewer bands are what is left"


def _wait_seconds(trainer: pl.Trainer) -> float:
    loader = cast(Loader, trainer.train_dataloader)
    return loader.wait_seconds


def _memory(on_gpu: bool) -> MetricRow:
    """Return peak memory so far in megabytes (1e6 bytes) of this process and of its GPU."""
    peaks: MetricRow = {}
    if sys.platform != "win32":
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        peaks["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    if on_gpu:
        peaks["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return peaks
