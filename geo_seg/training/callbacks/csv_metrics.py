"""What is written down while a run goes on."""

import csv
import io
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from pytorch_lightning.callbacks import RichProgressBar
from rich.console import Console

from geo_seg.runtime.console import show_progress_bars
from geo_seg.runtime.files import atomic_write

MetricRow = dict[str, float]
_EVERY = 60.0  # seconds between two lines where no bar is shown


class EpochCSVLogger(pl.Callback):
    """Writes metrics.csv, one line per epoch, whole after every epoch; prints the line where no bar is shown.

    A resumed run goes on below the lines of its checkpoint.

    Args:
        path: the file.
        console: where the lines go; None for nowhere.
    """

    def __init__(self, path: Path, console: Console | None) -> None:
        self.path = path
        self.console = console
        self.rows: list[MetricRow] = []

    def state_dict(self) -> dict[str, Any]:
        """The lines so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them up again."""
        self.rows = list(state_dict["rows"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Adds the epoch's line."""
        means: dict[str, Any] = pl_module.means.values(trainer.strategy)
        if not trainer.is_global_zero:
            return
        found = {k: v for k, v in trainer.callback_metrics.items() if not k.endswith("_step")} | means
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row: MetricRow = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": rate}
        row |= {key: float(value) for key, value in sorted(found.items())}
        self.rows.append(row)
        write_rows(self.path, self.rows)
        if self.console:
            shown = "  ".join(
                f"{key} {row[key]:.4f}" for key in ("train/loss", "val/loss", "val/miou") if key in row
            )
            self.console.print(
                f"epoch {trainer.current_epoch + 1}/{last_epoch(trainer)}  {shown}", highlight=False
            )


class ProgressLines(pl.Callback):
    """Prints where an epoch stands once a minute, where no bar shows it.

    Args:
        console: where the lines go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tells of training."""
        self._say(trainer, "training", batch_idx + 1, trainer.num_training_batches)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Tells of validation."""
        self._say(trainer, "validation", batch_idx + 1, trainer.num_val_batches[dataloader_idx])

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Tells of the scores after training."""
        self._say(trainer, "scores", batch_idx + 1, trainer.num_test_batches[dataloader_idx])

    def _say(self, trainer: pl.Trainer, what: str, done: int, total: float) -> None:
        if time.monotonic() - self._said < _EVERY:
            return
        self._said = time.monotonic()
        epoch = "" if what == "scores" else f"epoch {trainer.current_epoch + 1}/{last_epoch(trainer)}  "
        # a value on a GPU is waited for, once a minute
        loss = trainer.callback_metrics.get("train/loss_step") if what == "training" else None
        said = "" if loss is None else f"  train/loss {float(loss):.4f}"
        self._console.print(f"{epoch}{what} {done}/{total} batches{said}", highlight=False)


def last_epoch(trainer: pl.Trainer) -> int | str:
    """The number of epochs, "?" where steps or time end a run."""
    return trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"


def write_rows(path: Path, rows: list[MetricRow]) -> None:
    """Writes a CSV whose columns are those of all rows; the file is never half-written."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())


def progress_callback(console: Console) -> pl.Callback:
    """A bar with the time left for a terminal, else lines.

    The bar refreshes every 20 steps: drawing costs as much as a small step.
    """
    return RichProgressBar(refresh_rate=20) if show_progress_bars(console) else ProgressLines(console)


def build_callbacks(config: dict[str, Any], validates: bool) -> list[pl.Callback]:
    """Builds the callbacks that the configuration names.

    Args:
        config: by any name, a mapping with a `_target_`.
        validates: whether there is validation; callbacks that monitor its metrics are left out if not.
    """
    return [
        instantiate(options)
        for options in config.values()
        if validates or not str(options.get("monitor", "")).startswith("val/")
    ]
