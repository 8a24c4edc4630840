"""Where a run is followed beside its own tables: TensorBoard, MLflow, Weights & Biases, a table of steps."""

import csv
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import instantiate
from matplotlib.image import imread
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from geo_seg.config.training import TrainConfig
from geo_seg.runtime.files import atomic_write
from geo_seg.training.callbacks.csv_metrics import write_rows
from geo_seg.training.callbacks.lightning_loops import drop_anonymous_argument

_IDS = (
    "loggers.json"  # by which names the run is known elsewhere, so that it goes on there when it is resumed
)


class StepCSVLogger(Logger):
    """Writes values of single steps into a CSV of its own, each line as it comes.

    A run that goes on from a checkpoint replaces the lines that it writes again.

    Args:
        save_dir: the run folder.
        name: folder of the table in it.
    """

    def __init__(self, save_dir: str | Path, name: str = "steps") -> None:
        super().__init__()
        self._file = Path(save_dir) / name / "metrics.csv"
        self._name = name
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """Folder of the table."""
        return self._name

    @property
    def version(self) -> str:
        """There is one."""
        return ""

    def log_hyperparams(self, params: Any, *arguments: Any, **named: Any) -> None:
        """They stand in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Writes a line.

        Args:
            metrics: its values by name.
            step: its number.
        """
        row = {"step": step or 0, **{name: float(value) for name, value in metrics.items()}}
        new = [name for name in row if name not in self._columns]
        if new:
            rows = self._rows(row["step"]) if not self._columns else self._rows(float("inf"))
            self._columns = list(dict.fromkeys([*(rows[0] if rows else ()), *self._columns, *new]))
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_rows(self._file, [dict.fromkeys(self._columns, "") | found for found in [*rows, row]])
            return
        with self._file.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _rows(self, below: float) -> list[dict[str, Any]]:
        """The lines of steps below this one."""
        try:
            with self._file.open(newline="", encoding="utf-8") as file:
                return [row for row in csv.DictReader(file) if float(row["step"]) < below]
        except FileNotFoundError:
            return []


def build_loggers(config: TrainConfig, folder: Path) -> list[Logger]:
    """The loggers of a configuration; a run that goes on is taken up under its old names.

    Args:
        config: of the run.
        folder: of the run.
    """
    found = []
    for options in config.logger.values():
        kind = options["_target_"].rpartition(".")[2]
        given = {name: value for name, value in options.items() if value is not None}
        logger = instantiate({**_default_options(kind, config, folder), **given})
        if isinstance(logger, WandbLogger):
            drop_anonymous_argument(logger)
        found.append(logger)
    return found


def log_start(loggers: list[Logger], config: TrainConfig, folder: Path) -> None:
    """Tells the loggers the configuration; and keeps under which names they know the run.

    Args:
        loggers: of the run.
        config: of the run.
        folder: of the run.
    """
    known = _ids(folder)
    for logger in loggers:
        text = yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)
        if isinstance(logger, MLFlowLogger):
            if "mlflow" not in known:  # MLflow takes no other value for a parameter later on
                logger.log_hyperparams(asdict(config))
            logger.experiment.log_text(logger.run_id, text, "config.yaml")
            known["mlflow"] = str(logger.run_id)
            continue
        logger.log_hyperparams(asdict(config))
        if isinstance(logger, WandbLogger):
            known["wandb"] = str(logger.experiment.id)
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("config", "    " + text.replace("\n", "\n    "))
    if known:
        atomic_write(folder / _IDS, json.dumps(known, indent=2))


def log_results(
    loggers: list[Logger], config: TrainConfig, folder: Path, scores: Mapping[str, float], step: int
) -> None:
    """Shows the loggers the scores and all figures of the run.

    Args:
        loggers: of the run.
        config: of the run.
        folder: of the run; its figures are those in figures/.
        scores: by name.
        step: the last one.
    """
    for logger in loggers:
        figures = sorted((folder / "figures").glob("*.png"))
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(asdict(config), dict(scores))
            for file in figures:
                logger.experiment.add_image(f"figures/{file.stem}", imread(file), dataformats="HWC")
        elif scores:
            logger.log_metrics(dict(scores), step)
        if isinstance(logger, MLFlowLogger):
            for file in figures:
                logger.experiment.log_artifact(logger.run_id, str(file), "figures")
        elif isinstance(logger, WandbLogger):
            for file in figures:
                logger.log_image(f"figures/{file.stem}", [str(file)])


def close_loggers(loggers: list[Logger]) -> None:
    """Ends what a logger keeps open in this process: the next run of it is another one."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
        elif isinstance(logger, TensorBoardLogger):
            logger.finalize("success")


def _default_options(kind: str, config: TrainConfig, folder: Path) -> dict[str, Any]:
    """What the run says for a logger where its options don't."""
    known = _ids(folder)
    if kind == "MLFlowLogger":
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # asked for since MLflow 3; needs no server
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        return {
            "experiment_name": config.dataset.name,
            "tracking_uri": (folder.absolute().parent / "mlruns").as_uri(),
            "run_name": folder.name,
            "run_id": known.get("mlflow"),
        }
    if kind == "WandbLogger":
        os.environ.setdefault("WANDB_SILENT", "true")
        name = known.get("wandb", uuid.uuid4().hex[:8])
        return {"save_dir": str(folder), "name": folder.name, "project": config.dataset.name, "id": name}
    return {"save_dir": str(folder)}


def _ids(folder: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((folder / _IDS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found
