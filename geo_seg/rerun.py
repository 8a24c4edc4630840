"""Running again: the configuration of an earlier run, from its folder. No torch in here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from geo_seg.checks import check_training
from geo_seg.config import TrainConfig, run_of
from geo_seg.errors import ConfigError

CONFIG = "config.yaml"
"""File of a run folder with its whole configuration."""

_OURS = ("resume", "rerun")
# keys that an interrupted run may go on with changed: where and for how long, not what is learnt
_CHANGEABLE = ("trainer.", "dataset.root", "dataset.num_threads", "save_minutes", "on_nan", "debug")
_OF_TEST = ("mode", "checkpoint", "split", "debug")
_GROUPS_OF_TEST = ("dataset", "trainer")
_SECTIONS_OF_TEST = ("dataset.", "trainer.", "evaluation.")


def configuration(cfg: DictConfig, overrides: Sequence[str]) -> TrainConfig:
    """What a run is to do, checked: the composed configuration, or that of a run folder.

    It comes from the run folder with resume= and rerun=, and in a test of a run, with what the command line
    changes.

    Args:
        cfg: composed from the YAML files and the command line.
        overrides: the command line's share of it, such as "seed=1".

    Raises:
        ConfigError: the folder holds no run, an override doesn't go with it, or see check_training.
    """
    return check_training(_asked(cfg, overrides))


def _asked(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    if cfg.mode == "test" and cfg.checkpoint:
        return _tested(cfg, overrides)
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
    return _structured(content)


def as_configuration(content: Mapping[str, Any]) -> TrainConfig:
    """The configuration out of plain containers, as a checkpoint holds it; what it doesn't say is default."""
    found: TrainConfig = OmegaConf.to_object(_structured(content))  # type: ignore[assignment]
    return found


def _structured(content: Mapping[str, Any]) -> DictConfig:
    found = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(dict(content)))
    assert isinstance(found, DictConfig)  # noqa: S101 - merge says less than it knows
    return found


def _tested(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a test: the run's where there is one, with data set and trainer as asked for."""
    run = run_of(cfg.checkpoint)
    found = read_configuration(run) if (run / CONFIG).is_file() else cfg
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    groups = {override.key_or_group for override in parsed} & set(_GROUPS_OF_TEST)
    for override in parsed:
        key, said = override.key_or_group, str(override.input_line)
        if not (key in _OF_TEST or key in groups or key.startswith(_SECTIONS_OF_TEST)):
            allowed = ", ".join((*_OF_TEST, *(f"{name}*" for name in _SECTIONS_OF_TEST)))
            raise ConfigError(f"{said}: nothing reads it in a test; it takes {allowed}")
        if found is not cfg and key.partition(".")[0] not in {*groups, *_OF_TEST}:
            _change(found, override, resumes=False)
    for name in {*groups, *_OF_TEST}:
        found[name] = cfg[name]
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
