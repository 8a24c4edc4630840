"""Running again: the configuration of an earlier run, from its folder. No torch in here."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from geo_seg.config import TrainConfig
from geo_seg.errors import ConfigError

CONFIG = "config.yaml"
"""File of a run folder with its whole configuration."""

_OURS = ("resume", "rerun")
# keys that an interrupted run may go on with changed: where and for how long, not what is learnt
_CHANGEABLE = ("trainer.", "dataset.root", "dataset.num_threads", "save_minutes", "on_nan", "debug")


def configuration(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """What a run is to do: the composed configuration, or with resume= and rerun= that of a run folder.

    Args:
        cfg: composed from the YAML files and the command line.
        overrides: the command line's share of it, such as "seed=1".

    Raises:
        ConfigError: the folder holds no run, or an override doesn't go with it.
    """
    if cfg.resume and cfg.rerun:
        raise ConfigError("resume and rerun: expected one of them; resume goes on, rerun begins anew")
    if not cfg.rerun and cfg.resume in {None, "auto"}:
        return cfg
    found = read_configuration(cfg.resume or cfg.rerun)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group not in _OURS:
            _change(found, override, resumes=bool(cfg.resume))
    found.resume = cfg.resume
    return found


def read_configuration(folder: str | Path) -> DictConfig:
    """The configuration that a run folder holds.

    Raises:
        ConfigError: there is none, or one of another geo_seg.
    """
    file = Path(folder) / CONFIG
    if not file.is_file():
        raise ConfigError(f"{folder}: no {CONFIG} in there; expected the folder of a run")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML ({str(error).splitlines()[0]})") from error
    found = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(content))
    assert isinstance(found, DictConfig)  # noqa: S101 - merge says less than it knows
    return found


def _change(found: DictConfig, override: Override, resumes: bool) -> None:
    key, said = override.key_or_group, str(override.input_line)
    if resumes and not key.startswith(_CHANGEABLE):
        allowed = ", ".join(name + "*" if name.endswith(".") else name for name in _CHANGEABLE)
        raise ConfigError(
            f"{said}: resume= goes on with the run's own configuration, but for {allowed}; "
            "rerun= begins anew with any change"
        )
    if override.is_delete():
        _delete(found, key, said)
        return
    section, _, _ = key.rpartition(".")
    there = OmegaConf.select(found, key)
    if (isinstance(there, DictConfig) and isinstance(override.value(), str)) or key == "experiment":
        raise ConfigError(
            f"{said}: expected a single value, such as {key}.name=...: a run folder has no groups"
        )
    if section and OmegaConf.select(found, section) is None:
        raise ConfigError(f"{said}: the run has no section {section}")
    OmegaConf.update(found, key, override.value(), force_add=override.is_add() or override.is_force_add())


def _delete(found: DictConfig, key: str, said: str) -> None:
    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(found, section) if section else found
    if not isinstance(parent, DictConfig) or name not in parent:
        raise ConfigError(f"{said}: the run has no {key}")
    OmegaConf.set_struct(parent, False)
    del parent[name]
