"""What makes two runs the same run: configuration, data and code."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import geo_seg
from geo_seg.config.training import TrainConfig
from geo_seg.runtime.files import atomic_write

RUN_FILE = "run.json"
"""File of a run folder that says which run it holds, and whether that has finished."""

_KEYS_WITHOUT_EFFECT = (
    "debug",
    "resume",
    "rerun",
    "save_minutes",
)  # keys that change nothing about the result
_PACKAGES = ("torch", "pytorch-lightning", "segmentation-models-pytorch", "timm", "rasterio", "numpy")
_NOT_TRAINING = {"inference", "sweeps"}


def run_hashes(config: TrainConfig, data: str) -> dict[str, str]:
    """Hashes of all that decides what a run gives.

    Args:
        config: the resolved configuration.
        data: fingerprint of the data set.

    Returns:
        Hashes under config, data and code (our source files and the versions of the libraries).
    """
    return {"config": config_hash(config), "data": data, "code": code_hash()}


def config_hash(config: TrainConfig) -> str:
    """A hash of the resolved configuration, without the keys that change nothing about the result."""
    content = {key: value for key, value in asdict(config).items() if key not in _KEYS_WITHOUT_EFFECT}
    return _hash(json.dumps(content, sort_keys=True, default=str))


def code_hash() -> str:
    """A hash over the source of what trains, and the versions of the libraries."""
    repository = Path(geo_seg.__file__).parents[1]
    files = [*repository.glob("losses/**/*.py"), *repository.glob("geo_seg/**/*.py")]
    digest = hashlib.sha256()
    for path in sorted(files):
        if not _NOT_TRAINING & set(path.relative_to(repository).parts):
            digest.update(path.read_bytes())
    for package in _PACKAGES:
        digest.update(f"{package} {_version(package)}".encode())
    return digest.hexdigest()[:16]


def write_run_state(folder: Path, found: Mapping[str, str], finished: bool) -> None:
    """Says in a run folder which run it holds; the file is never half-written.

    Args:
        folder: of the run.
        found: identity() as the run began; the code may have been edited since.
        finished: whether it has ended, and well.
    """
    atomic_write(folder / RUN_FILE, json.dumps({**found, "finished": finished}, indent=2))


def read_run_state(folder: Path) -> dict[str, Any]:
    """What write_run_state wrote, or an empty dict."""
    try:
        found: dict[str, Any] = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
