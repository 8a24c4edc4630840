"""The run folder: what is written at a run's beginning, and how a run is taken up again from it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml

from geo_seg.checkpoints.checkpoint import library_versions
from geo_seg.config.run_config import CONFIG
from geo_seg.config.training import TrainConfig
from geo_seg.errors import ConfigError, DataError
from geo_seg.run_folder import read_run_state, run_hashes, write_run_state
from geo_seg.runtime.files import atomic_write
from geo_seg.training.module import LENGTH_OPTIONS

SCORES = "metrics.json"
"""File of a run folder with all scores."""

_PROVENANCE = "provenance.json"
_PACKAGES = "packages.txt"


def resolve_resume(config: TrainConfig, folder: Path) -> tuple[TrainConfig, bool]:
    """Whether a run goes on in its folder.

    Args:
        config: with resume: its own configuration for a folder, or "auto".
        folder: the run folder.

    Returns:
        The configuration, without resume and rerun; True if the folder holds the run.

    Raises:
        ConfigError: the folder holds a run that nobody asked to go on with.
    """
    asked = config.resume
    config = replace(config, resume=None, rerun=None)
    if asked is None:
        if (folder / "checkpoints").exists():
            raise ConfigError(
                f"hydra.run.dir={folder} holds an earlier run; choose another folder, or go on with "
                f"resume={folder}"
            )
        return config, False
    file = folder / CONFIG
    if not file.exists():
        return config, False
    held = yaml.safe_load(file.read_text(encoding="utf-8"))
    _check_length(config, held)
    if asked == "auto":
        config = _with_findings(config, held)
        changed = [key for key, value in asdict(config).items() if value != held.get(key)]
        if changed:
            raise ConfigError(
                f"{folder} holds a run with another {changed[0]}; choose another hydra.run.dir, or go on "
                f"with resume={folder}"
            )
    return config, True


def finished_score(config: TrainConfig, folder: Path) -> float | None:
    """The best validation score of a run that has nothing left to do, else None."""
    if not read_run_state(folder).get("finished"):
        return None
    found = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    held = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))["trainer"]
    if any(config.trainer.get(key) != held.get(key) for key in ("max_epochs", "max_steps")):
        return None  # it is to go on for longer
    return float("nan") if found["best_val_miou"] is None else float(found["best_val_miou"])


def write_run_start(config: TrainConfig, known: Mapping[str, str], folder: Path) -> None:
    """Writes what decides the result: configuration, data and code, and once revision and packages.

    Args:
        config: of the run.
        known: its identity.
        folder: where it goes.
    """
    write_run_state(folder, known, finished=False)
    (folder / SCORES).unlink(missing_ok=True)
    if not (folder / _PROVENANCE).exists():
        facts = [package.metadata for package in distributions()]  # every access reads the disk
        found = {f"{about['Name']}=={about['Version']}" for about in facts}
        atomic_write(folder / _PACKAGES, "\n".join(sorted(found, key=str.lower)) + "\n")
        atomic_write(folder / _PROVENANCE, json.dumps(library_versions(), indent=2))
    atomic_write(folder / CONFIG, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))


def hashes_at_start(config: TrainConfig, data: str, folder: Path) -> dict[str, str]:
    """The identity of a run; one that goes on unchanged keeps that of its beginning.

    Args:
        config: of the run.
        data: fingerprint of the data set.
        folder: of the run.
    """
    file, found = folder / CONFIG, read_run_state(folder)
    if found and file.exists() and yaml.safe_load(file.read_text(encoding="utf-8")) == asdict(config):
        return {key: found[key] for key in ("config", "data", "code")}
    return run_hashes(config, data)


def check_data_unchanged(data: str, folder: Path) -> None:
    """Raises if a run is to go on with other data than it began with.

    Args:
        data: fingerprint of the data set as it is now.
        folder: of the run.

    Raises:
        DataError: scenes, labels or pixels have changed.
    """
    if read_run_state(folder).get("data", data) != data:
        raise DataError(
            f"{folder}: the data set has changed since this run began (scenes, labels or pixels); "
            "put it back, or begin anew with rerun="
        )


def _check_length(config: TrainConfig, held: dict[str, Any]) -> None:
    lengths = ("max_epochs", "max_steps")
    changed = [key for key in lengths if config.trainer.get(key) != held["trainer"].get(key)]
    if changed and any(
        name in config.scheduler and config.scheduler[name] is None for name in LENGTH_OPTIONS
    ):
        raise ConfigError(
            f"trainer.{changed[0]}={config.trainer[changed[0]]}: this run's scheduler was laid out for "
            f"{held['trainer'].get(changed[0])}; begin anew with rerun="
        )


def _with_findings(config: TrainConfig, held: dict[str, Any]) -> TrainConfig:
    """The configuration with what find= and precision=auto have put into the one that the folder holds."""
    if config.trainer.get("precision") == "auto":
        precision = held["trainer"].get("precision")
        config = replace(config, trainer={**config.trainer, "precision": precision})
    if config.find == "none":
        return config
    optimizer = {**config.optimizer, "lr": held["optimizer"].get("lr")}
    dataset = replace(config.dataset, batch_size=held["dataset"]["batch_size"])
    return replace(config, find="none", optimizer=optimizer, dataset=dataset)
