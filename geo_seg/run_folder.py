"""Identity and state of a run folder: hashes of configuration, data and code in `run.json`."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import geo_seg
from geo_seg.config.fields import fingerprint_values
from geo_seg.config.training import TrainConfig
from geo_seg.runtime.files import atomic_write

RUN_FILE = "run.json"
"""File of a run folder with its hashes, and whether the run has finished."""

_PACKAGES = ("torch", "pytorch-lightning", "segmentation-models-pytorch", "timm", "rasterio", "numpy")
_TRAINING_CODE = (  # files and folders whose code may change the weights or the scores of a run
    "losses",
    "geo_seg/config",
    "geo_seg/raster",
    "geo_seg/data",
    "geo_seg/models",
    "geo_seg/metrics",
    "geo_seg/checkpoints",
    "geo_seg/prediction",
    "geo_seg/training",
    "geo_seg/tiling.py",
)


def run_hashes(config: TrainConfig, data: str) -> dict[str, str]:
    """Return the hashes of everything that determines the result of a run.

    Args:
        config: the resolved configuration.
        data: fingerprint of the data set.

    Returns:
        Hashes under config, data and code (source files and versions of libraries).
    """
    return {"config": config_hash(config), "data": data, "code": code_hash()}


def config_hash(config: TrainConfig) -> str:
    """Return a hash of the resolved configuration, without the keys that don't affect the result."""
    return _short_hash(json.dumps(fingerprint_values(config), sort_keys=True, default=str))


def code_hash() -> str:
    """Return a hash of the source files that affect training, and of the versions of libraries."""
    repository = Path(geo_seg.__file__).parents[1]
    digest = hashlib.sha256()
    for path in _training_files(repository):
        digest.update(path.read_bytes())
    for package in _PACKAGES:
        digest.update(f"{package} {_version(package)}".encode())
    return digest.hexdigest()[:16]


def write_run_state(folder: Path, hashes: Mapping[str, str], finished: bool) -> None:
    """Write `run.json` atomically.

    Args:
        folder: of the run.
        hashes: run_hashes() at the start of the run; the code may have been edited since.
        finished: whether the run has completed successfully.
    """
    atomic_write(folder / RUN_FILE, json.dumps({**hashes, "finished": finished}, indent=2))


def read_run_state(folder: Path) -> dict[str, Any]:
    """Return the content of `run.json`, or an empty dict if it can't be read."""
    try:
        state: dict[str, Any] = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state


def _training_files(repository: Path) -> list[Path]:
    paths = [repository / name for name in _TRAINING_CODE]
    return sorted(file for path in paths for file in ([path] if path.suffix else path.rglob("*.py")))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
