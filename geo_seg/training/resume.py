"""Run folder at the start of a run: what is written first, and how a run is resumed from it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml

from geo_seg.checkpoints.checkpoint import library_versions
from geo_seg.config.run_config import CONFIG
from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.errors import CheckpointError, ConfigError, DataError, GeoSegError, first_line
from geo_seg.run_folder import read_run_state, run_hashes, write_run_state
from geo_seg.runtime.files import atomic_write
from geo_seg.training.callbacks.checkpointing import ResumableCheckpoint
from geo_seg.training.callbacks.training_state import RESTART_REMEDY
from geo_seg.training.module import LENGTH_OPTIONS, SegmentationModule

SCORES = "metrics.json"
"""File with all scores in a run folder."""

_PROVENANCE_FILE = "provenance.json"
_PACKAGES_FILE = "packages.txt"


def resolve_resume(config: TrainConfig, folder: Path) -> tuple[TrainConfig, bool]:
    """Decide whether a run is resumed in its folder.

    Args:
        config: configuration; with resume=<folder> the one of that folder's run.
        folder: run folder.

    Returns:
        The configuration without resume and rerun; whether the folder holds the run.

    Raises:
        ConfigError: the folder holds a run, but resume= is not given, or not for this configuration.
    """
    requested = config.resume
    config = replace(config, resume=None, rerun=None)
    if requested is None:
        if (folder / "checkpoints").exists():
            raise ConfigError(
                f"hydra.run.dir={folder} holds an earlier run; choose another folder, or resume with "
                f"resume={folder}"
            )
        return config, False
    file = folder / CONFIG
    if not file.exists():
        return config, False
    saved_config = yaml.safe_load(file.read_text(encoding="utf-8"))
    _check_length(config, saved_config)
    if requested == "auto":
        config = _with_findings(config, saved_config)
        changed = [key for key, value in asdict(config).items() if value != saved_config.get(key)]
        if changed:
            raise ConfigError(
                f"{folder} holds a run with another {changed[0]}; choose another hydra.run.dir, or resume "
                f"with resume={folder}"
            )
    return config, True


def finished_score(config: TrainConfig, folder: Path) -> float | None:
    """Return the best validation score of a run with nothing left to do, else None."""
    if not read_run_state(folder).get("finished"):
        return None
    metrics = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    saved_trainer = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))["trainer"]
    if any(config.trainer.get(key) != saved_trainer.get(key) for key in ("max_epochs", "max_steps")):
        return None  # it shall be trained for longer
    return float("nan") if metrics["best_val_miou"] is None else float(metrics["best_val_miou"])


def write_run_start(config: TrainConfig, hashes: Mapping[str, str], folder: Path) -> None:
    """Write what decides the result: configuration, hashes, and once library versions and packages.

    Args:
        config: configuration of the run.
        hashes: hashes of configuration, data and code.
        folder: run folder.
    """
    write_run_state(folder, hashes, finished=False)
    (folder / SCORES).unlink(missing_ok=True)
    if not (folder / _PROVENANCE_FILE).exists():
        all_metadata = [package.metadata for package in distributions()]  # each access reads the disk
        packages = {f"{metadata['Name']}=={metadata['Version']}" for metadata in all_metadata}
        atomic_write(folder / _PACKAGES_FILE, "\n".join(sorted(packages, key=str.lower)) + "\n")
        atomic_write(folder / _PROVENANCE_FILE, json.dumps(library_versions(), indent=2))
    atomic_write(folder / CONFIG, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))


def hashes_at_start(config: TrainConfig, data: str, folder: Path) -> dict[str, str]:
    """Return the hashes of a run; a run that is resumed unchanged keeps those of its start.

    Args:
        config: configuration of the run.
        data: fingerprint of the data set.
        folder: run folder.
    """
    file, state = folder / CONFIG, read_run_state(folder)
    if state and file.exists() and yaml.safe_load(file.read_text(encoding="utf-8")) == asdict(config):
        return {key: state[key] for key in ("config", "data", "code")}
    return run_hashes(config, data)


def check_data_unchanged(data: str, folder: Path) -> None:
    """Raise if a run would be resumed with other data than it started with.

    Args:
        data: current fingerprint of the data set.
        folder: run folder.

    Raises:
        DataError: scenes, labels or pixels have changed.
    """
    if read_run_state(folder).get("data", data) != data:
        raise DataError(
            f"{folder}: the data set has changed since this run started (scenes, labels or pixels); "
            "restore it, or start again with rerun="
        )


def _check_length(config: TrainConfig, saved_config: dict[str, Any]) -> None:
    lengths = ("max_epochs", "max_steps")
    changed = [key for key in lengths if config.trainer.get(key) != saved_config["trainer"].get(key)]
    if changed and any(
        name in config.scheduler and config.scheduler[name] is None for name in LENGTH_OPTIONS
    ):
        raise ConfigError(
            f"trainer.{changed[0]}={config.trainer[changed[0]]}: this run's scheduler was built for "
            f"{saved_config['trainer'].get(changed[0])}; start again with rerun="
        )


def _with_findings(config: TrainConfig, saved_config: dict[str, Any]) -> TrainConfig:
    """Return the configuration with the results of find= and precision=auto in the saved one."""
    if config.trainer.get("precision") == "auto":
        precision = saved_config["trainer"].get("precision")
        config = replace(config, trainer={**config.trainer, "precision": precision})
    if config.find == "none":
        return config
    optimizer = {**config.optimizer, "lr": saved_config["optimizer"].get("lr")}
    dataset = replace(config.dataset, batch_size=saved_config["dataset"]["batch_size"])
    return replace(config, find="none", optimizer=optimizer, dataset=dataset)


def fit(
    trainer: pl.Trainer,
    module: SegmentationModule,
    data: SceneDataModule,
    checkpoint_callback: ResumableCheckpoint,
) -> None:
    """Train, from the last checkpoint of the run if there is one.

    Raises:
        CheckpointError: training can't resume from it.
        ConfigError: the batches are too small for the model.
        GeoSegError: see the callbacks.
    """
    last_checkpoint = checkpoint_callback.last_path if checkpoint_callback.last_path.exists() else None
    checkpoint_callback.is_restoring = last_checkpoint is not None
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last_checkpoint, weights_only=True)
    except (GeoSegError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # Lightning and torch raise many types for a state that they can't load
        if last_checkpoint is not None and checkpoint_callback.is_restoring:
            raise CheckpointError(
                f"{last_checkpoint}: training can't resume from it "
                f"({type(error).__name__}: {first_line(error)}); {RESTART_REMEDY}"
            ) from error
        if isinstance(error, ValueError) and "more than 1 value per channel" in str(error):
            raise ConfigError(
                "this model needs dataset.batch_size=2 or more to normalise its features"
            ) from error
        raise
