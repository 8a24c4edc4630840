"""What the machine does while it trains: speed, waiting, memory."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from geo_seg.config.dataset import DatasetConfig
from geo_seg.training.callbacks.csv_metrics import MetricRow, write_rows

_STARVED_FRACTION = 0.1  # share of the time in which the model waits for windows, above which there is advice
_MIN_STEPS = 10  # steps of an epoch that are worth a judgement


class ThroughputLogger(pl.Callback):
    """Writes system.csv, one line per epoch, tells the loggers, and says once if training waits for windows.

    The times are those of training steps alone: neither of validation nor of the run's first step, which
    sets up what the others use. With several processes, those of the first one; samples are of all.

    Args:
        path: the file.
        say: shows a line to the user.
        advice: what makes reading faster here.
    """

    def __init__(self, path: Path, say: Callable[[str], None], advice: str) -> None:
        self.path = path
        self.rows: list[MetricRow] = []
        self._say = say
        self._advice = advice
        self._first = True
        self._said = False
        self._steps = self._samples = 0
        self._begun = self._waited = self._paused = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The lines so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them up again."""
        self.rows = list(state_dict["rows"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins to count."""
        self._begin(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts a step."""
        if self._first:
            self._first = False
            self._begin(trainer)
            return
        self._steps += 1
        self._samples += len(batch["labels"]) * trainer.world_size

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets it go on."""
        self._begun += time.perf_counter() - self._paused

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the epoch's line."""
        if not trainer.is_global_zero:
            return
        gpu = pl_module.device.type == "cuda"
        if gpu:
            torch.cuda.synchronize()  # steps are sent ahead
        seconds = time.perf_counter() - self._begun
        row: MetricRow = {"epoch": trainer.current_epoch, **_memory(gpu)}
        if self._steps:
            row["samples_per_second"] = self._samples / seconds
            row["step_seconds"] = seconds / self._steps
            row["data_wait_share"] = (_waited(trainer) - self._waited) / seconds
        self.rows.append(row)
        write_rows(self.path, self.rows)
        for logger in trainer.loggers:
            found = {f"system/{name}": value for name, value in row.items() if name != "epoch"}
            logger.log_metrics(found, max(trainer.global_step - 1, 0))  # as Lightning counts
        if row.get("data_wait_share", 0) > _STARVED_FRACTION and self._steps >= _MIN_STEPS and not self._said:
            self._said = True
            self._say(
                f"note: {row['data_wait_share']:.0%} of the time the model waits for windows; {self._advice}"
            )

    def _begin(self, trainer: pl.Trainer) -> None:
        self._steps = self._samples = 0
        self._begun, self._waited = time.perf_counter(), _waited(trainer)


def reading_advice(config: DatasetConfig, decoded: bool) -> str:
    """What makes reading windows faster.

    Args:
        config: of the data set.
        decoded: whether there are decoded copies of all scenes.
    """
    cores = os.cpu_count() or 1
    if config.samples is not None:
        return f"dataset.num_workers={cores} reads samples with all cores of this machine"
    ways = []
    if config.num_threads < cores:
        ways.append(f"dataset.num_threads={cores} reads with all cores of this machine")
    if not decoded:
        ways.append("dataset.cache=memmap keeps decoded scenes on the disk")
    return " and ".join(ways) or "a faster disk or fewer bands are what is left"


def _waited(trainer: pl.Trainer) -> float:
    loader: Any = trainer.train_dataloader
    return float(loader.wait_seconds)


def _memory(gpu: bool) -> MetricRow:
    """Peaks so far in megabytes (1e6 bytes) of this process and of its GPU."""
    found: MetricRow = {}
    if sys.platform != "win32":
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        found["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    if gpu:
        found["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return found
