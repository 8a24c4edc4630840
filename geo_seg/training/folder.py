"""The run folder: what is written at a run's beginning, and how a run is taken up again from it."""

import hashlib
import json
from dataclasses import asdict, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml

from geo_seg.checkpoint import versions
from geo_seg.config import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.errors import ConfigError, DataError
from geo_seg.rerun import CONFIG
from geo_seg.training.module import LENGTHS

FINISHED = "metrics.json"
"""File of a run folder that is written last."""

_PROVENANCE = "provenance.json"
_PACKAGES = "packages.txt"


def taken_up(config: TrainConfig, folder: Path) -> tuple[TrainConfig, bool]:
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


def score_of_finished(config: TrainConfig, folder: Path) -> float | None:
    """The best validation score of a run that has nothing left to do, else None."""
    file = folder / FINISHED
    if not file.exists():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    held = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))["trainer"]
    if any(config.trainer.get(key) != held.get(key) for key in ("max_epochs", "max_steps")):
        return None  # it is to go on for longer
    return float("nan") if found["best_val_miou"] is None else float(found["best_val_miou"])


def write_beginning(config: TrainConfig, data: SceneDataModule, folder: Path) -> None:
    """Writes the configuration, and once what else decides the result: data, revision, packages."""
    (folder / FINISHED).unlink(missing_ok=True)
    if not (folder / _PROVENANCE).exists():
        found = {f"{d.metadata['Name']}=={d.version}" for d in distributions()}
        write_whole(folder / _PACKAGES, "\n".join(sorted(found, key=str.lower)) + "\n")
        write_whole(folder / _PROVENANCE, json.dumps({"data": fingerprint(data), **versions()}, indent=2))
    write_whole(folder / CONFIG, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))


def check_data(data: SceneDataModule, folder: Path) -> None:
    """Raises if a run is to go on with other data than it began with.

    Raises:
        DataError: scenes, labels or pixels have changed.
    """
    file = folder / _PROVENANCE
    if file.exists() and json.loads(file.read_text(encoding="utf-8"))["data"] != fingerprint(data):
        raise DataError(
            f"{folder}: the data set has changed since this run began (scenes, labels or pixels); "
            "put it back, or begin anew with rerun="
        )


def fingerprint(data: SceneDataModule) -> str:
    """A hash of all scenes, by split and by what was counted in them; moving files doesn't change it."""
    digest = hashlib.sha256()
    for split, scenes in data.scenes.items():
        for scene, found in zip(scenes, data.index[split], strict=True):
            header = [split, scene.name, scene.image.height, scene.image.width, scene.image.dtype]
            bands = found.bands
            counts = [bands.pixels, found.classes.tolist(), bands.mean.tolist(), bands.squares.tolist()]
            digest.update(json.dumps([header, counts]).encode())
    return digest.hexdigest()[:16]


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is never half there."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _check_length(config: TrainConfig, held: dict[str, Any]) -> None:
    lengths = ("max_epochs", "max_steps")
    changed = [key for key in lengths if config.trainer.get(key) != held["trainer"].get(key)]
    if changed and any(name in config.scheduler and config.scheduler[name] is None for name in LENGTHS):
        raise ConfigError(
            f"trainer.{changed[0]}={config.trainer[changed[0]]}: this run's scheduler was laid out for "
            f"{held['trainer'].get(changed[0])}; begin anew with rerun="
        )


def _with_findings(config: TrainConfig, held: dict[str, Any]) -> TrainConfig:
    """The configuration with what find= has put into the one that the folder holds."""
    if config.find == "none":
        return config
    optimizer = {**config.optimizer, "lr": held["optimizer"].get("lr")}
    dataset = replace(config.dataset, batch_size=held["dataset"]["batch_size"])
    return replace(config, find="none", optimizer=optimizer, dataset=dataset)
