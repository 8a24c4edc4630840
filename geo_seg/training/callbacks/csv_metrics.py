"""Metrics of each epoch in metrics.csv, and progress on the console."""

import time
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from hydra.utils import instantiate
from pytorch_lightning.callbacks import RichProgressBar
from rich.console import Console

from geo_seg.runtime.console import show_progress_bars
from geo_seg.runtime.files import write_csv
from geo_seg.training.module import SegmentationModule

MetricRow = dict[str, float]
_LINE_SECONDS = 60.0  # between two progress lines where no bar is shown


class EpochCSVLogger(pl.Callback):
    """Callback that writes metrics.csv, one row per epoch, atomically; prints the row where no bar is shown.

    A resumed run continues below the rows of its checkpoint.

    Args:
        path: the CSV file.
        console: console for the rows; None prints nothing.
    """

    def __init__(self, path: Path, console: Console | None) -> None:
        self.path = path
        self.console = console
        self.rows: list[MetricRow] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Append the row of the epoch."""
        means = cast(SegmentationModule, pl_module).means.values(trainer.strategy)
        if not trainer.is_global_zero:
            return
        metrics = {k: v for k, v in trainer.callback_metrics.items() if not k.endswith("_step")} | means
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row: MetricRow = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": rate}
        row |= {key: float(value) for key, value in sorted(metrics.items())}
        self.rows.append(row)
        write_csv(self.path, self.rows)
        if self.console:
            scores = "  ".join(
                f"{key} {row[key]:.4f}" for key in ("train/loss", "val/loss", "val/miou") if key in row
            )
            self.console.print(
                f"epoch {trainer.current_epoch + 1}/{last_epoch(trainer)}  {scores}", highlight=False
            )


class ProgressLines(pl.Callback):
    """Callback that prints the progress of an epoch once a minute, where no bar shows it.

    Args:
        console: console for the lines.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_line = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Report training progress."""
        self._report(trainer, "training", batch_idx + 1, trainer.num_training_batches)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report validation progress."""
        self._report(trainer, "validation", batch_idx + 1, trainer.num_val_batches[dataloader_idx])

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report the progress of the final evaluation."""
        self._report(trainer, "scores", batch_idx + 1, trainer.num_test_batches[dataloader_idx])

    def _report(self, trainer: pl.Trainer, stage: str, done: int, total: float) -> None:
        if time.monotonic() - self._last_line < _LINE_SECONDS:
            return
        self._last_line = time.monotonic()
        epoch = "" if stage == "scores" else f"epoch {trainer.current_epoch + 1}/{last_epoch(trainer)}  "
        # waits for a GPU, once a minute
        loss = trainer.callback_metrics.get("train/loss_step") if stage == "training" else None
        loss_text = "" if loss is None else f"  train/loss {float(loss):.4f}"
        self._console.print(f"{epoch}{stage} {done}/{total} batches{loss_text}", highlight=False)


def last_epoch(trainer: pl.Trainer) -> int | str:
    """Return the number of epochs, "?" if steps or time end the run."""
    return trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"


def progress_callback(console: Console) -> pl.Callback:
    """Return a progress bar for a terminal, else progress lines.

    The bar is refreshed every 20 steps: drawing it costs as much as a small step.
    """
    return RichProgressBar(refresh_rate=20) if show_progress_bars(console) else ProgressLines(console)


def build_callbacks(config: dict[str, Any], validates: bool) -> list[pl.Callback]:
    """Build the configured callbacks.

    Args:
        config: options with a `_target_`, by name.
        validates: whether the run validates; if not, callbacks that monitor validation metrics are dropped.
    """
    return [
        instantiate(options)
        for options in config.values()
        if validates or not str(options.get("monitor", "")).startswith("val/")
    ]
