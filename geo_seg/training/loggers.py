"""Loggers of a run: TensorBoard, MLflow, Weights & Biases, a CSV of steps."""

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
from geo_seg.runtime.files import atomic_write, write_csv
from geo_seg.training.callbacks.lightning_loops import drop_anonymous_argument

_IDS_FILE = "loggers.json"  # ids of the run in MLflow and W&B, so that a resumed run continues there


class StepCSVLogger(Logger):
    """Logger that writes the values of single steps into a CSV, row by row.

    A resumed run replaces the rows of the steps that it repeats.

    Args:
        save_dir: the run folder.
        name: subfolder of the CSV.
    """

    def __init__(self, save_dir: str | Path, name: str = "steps") -> None:
        super().__init__()
        self._file = Path(save_dir) / name / "metrics.csv"
        self._name = name
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """Subfolder of the CSV."""
        return self._name

    @property
    def version(self) -> str:
        """Empty: there is one version."""
        return ""

    def log_hyperparams(self, params: object, *arguments: object, **named: object) -> None:
        """Do nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write a row.

        Args:
            metrics: values by name.
            step: number of the step.
        """
        row = {"step": step or 0, **{name: float(value) for name, value in metrics.items()}}
        new_columns = [name for name in row if name not in self._columns]
        if new_columns:
            rows = self._rows(row["step"]) if not self._columns else self._rows(float("inf"))
            self._columns = list(dict.fromkeys([*(rows[0] if rows else ()), *self._columns, *new_columns]))
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_csv(self._file, [dict.fromkeys(self._columns, "") | values for values in [*rows, row]])
            return
        with self._file.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)

    def _rows(self, below: float) -> list[dict[str, Any]]:
        """Read the rows of steps below this one."""
        try:
            with self._file.open(newline="", encoding="utf-8") as file:
                return [row for row in csv.DictReader(file) if float(row["step"]) < below]
        except FileNotFoundError:
            return []


def build_loggers(config: TrainConfig, folder: Path) -> list[Logger]:
    """Build the configured loggers; a resumed run keeps its ids.

    Args:
        config: configuration of the run.
        folder: run folder.
    """
    loggers = []
    for options in config.logger.values():
        class_name = options["_target_"].rpartition(".")[2]
        given_options = {name: value for name, value in options.items() if value is not None}
        logger = instantiate({**_default_options(class_name, config, folder), **given_options})
        if isinstance(logger, WandbLogger):
            drop_anonymous_argument(logger)
        loggers.append(logger)
    return loggers


def log_start(loggers: list[Logger], config: TrainConfig, folder: Path) -> None:
    """Send the configuration to the loggers, and store the ids of the run.

    Args:
        loggers: loggers of the run.
        config: configuration of the run.
        folder: run folder.
    """
    ids = _ids(folder)
    for logger in loggers:
        text = yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)
        if isinstance(logger, MLFlowLogger):
            if "mlflow" not in ids:  # MLflow refuses to change a parameter
                logger.log_hyperparams(asdict(config))
            logger.experiment.log_text(logger.run_id, text, "config.yaml")
            ids["mlflow"] = str(logger.run_id)
            continue
        logger.log_hyperparams(asdict(config))
        if isinstance(logger, WandbLogger):
            ids["wandb"] = str(logger.experiment.id)
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("config", "    " + text.replace("\n", "\n    "))
    if ids:
        atomic_write(folder / _IDS_FILE, json.dumps(ids, indent=2))


def log_results(
    loggers: list[Logger], config: TrainConfig, folder: Path, scores: Mapping[str, float], step: int
) -> None:
    """Send scores and figures of the run to the loggers.

    Args:
        loggers: loggers of the run.
        config: configuration of the run.
        folder: run folder; its figures are in figures/.
        scores: scores by name.
        step: number of the last step.
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
    """Close what a logger keeps open in this process, where another run may follow."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
        elif isinstance(logger, TensorBoardLogger):
            logger.finalize("success")


def _default_options(class_name: str, config: TrainConfig, folder: Path) -> dict[str, Any]:
    """Return options that a logger gets from the run unless they are configured."""
    ids = _ids(folder)
    if class_name == "MLFlowLogger":
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # required since MLflow 3; needs no server
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        return {
            "experiment_name": config.dataset.name,
            "tracking_uri": (folder.absolute().parent / "mlruns").as_uri(),
            "run_name": folder.name,
            "run_id": ids.get("mlflow"),
        }
    if class_name == "WandbLogger":
        os.environ.setdefault("WANDB_SILENT", "true")
        name = ids.get("wandb", uuid.uuid4().hex[:8])
        return {"save_dir": str(folder), "name": folder.name, "project": config.dataset.name, "id": name}
    return {"save_dir": str(folder)}


def _ids(folder: Path) -> dict[str, str]:
    try:
        ids: dict[str, str] = json.loads((folder / _IDS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return ids
