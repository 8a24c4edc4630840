"""What the configuration is when nothing is said, and what a run says that differs. No torch in here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

import geo_seg
from geo_seg.config import TrainConfig

_CONFIG = Path(geo_seg.__file__).parents[1] / "config"
_OF_HYDRA = ("launcher", "sweeper", "experiment")  # groups that are no section of the configuration
ABSENT = "–"
"""Stands for a key that isn't there."""


def default_configuration() -> dict[str, Any]:
    """What `python train.py` runs with, without interpolations of Hydra."""
    content = yaml.safe_load((_CONFIG / "train.yaml").read_text(encoding="utf-8"))
    groups = [entry for entry in content.pop("defaults") if isinstance(entry, dict)]
    content.pop("hydra")
    for entry in groups:
        ((group, choice),) = entry.items()
        if group not in _OF_HYDRA and choice is not None:
            section = yaml.safe_load((_CONFIG / group / f"{choice}.yaml").read_text(encoding="utf-8"))
            content[group] = section
    found = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(content))
    plain: dict[str, Any] = OmegaConf.to_container(found)  # type: ignore[assignment]
    return plain


def differences(config: Mapping[str, Any], default: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Key, default and value of everything that differs, section by section; a dash is not there.

    Args:
        config: plain containers.
        default: as well.
    """
    found = []
    for key in dict.fromkeys([*default, *config]):
        one, other = default.get(key, ABSENT), config.get(key, ABSENT)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += [(f"{key}.{name}", a, b) for name, a, b in differences(other, one)]
        elif one != other:
            found.append((str(key), one, other))
    return found
