"""Configurations of earlier runs, and the defaults to compare with. No torch in here."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

import geo_seg
from geo_seg.config import yaml_files
from geo_seg.config.fields import is_plain_data
from geo_seg.config.hydra_setup import run_dir_of
from geo_seg.config.signatures import is_class_path
from geo_seg.config.split_checks import keys_of_other_kinds
from geo_seg.config.training import TrainConfig
from geo_seg.config.training_checks import parse_train_config
from geo_seg.errors import ConfigError
from geo_seg.runtime.ranks import rank

_CONFIG = Path(geo_seg.__file__).parents[1] / "config"
_HYDRA_KEYS = ("launcher", "sweeper", "experiment")  # groups that are no section of the configuration
ABSENT = "–"
"""Stands for a key that isn't there."""


def default_config() -> dict[str, Any]:
    """What `python train.py` runs with, without interpolations of Hydra."""
    content = yaml.safe_load((_CONFIG / "train.yaml").read_text(encoding="utf-8"))
    groups = [entry for entry in content.pop("defaults") if isinstance(entry, dict)]
    content.pop("hydra")
    for entry in groups:
        ((group, choice),) = entry.items()
        if group not in _HYDRA_KEYS and choice is not None:
            section = yaml.safe_load((_CONFIG / group / f"{choice}.yaml").read_text(encoding="utf-8"))
            content[group] = section
    found = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(content))
    plain: dict[str, Any] = OmegaConf.to_container(found)  # type: ignore[assignment]
    return plain


def diff_configs(config: Mapping[str, Any], default: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Key, default and value of everything that differs, section by section; a dash is not there.

    Args:
        config: plain containers.
        default: as well.
    """
    found = []
    for key in dict.fromkeys([*default, *config]):
        one, other = default.get(key, ABSENT), config.get(key, ABSENT)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += [(f"{key}.{name}", a, b) for name, a, b in diff_configs(other, one)]
        elif one != other:
            found.append((str(key), one, other))
    return found


CONFIG = "config.yaml"
"""File of a run folder with its whole configuration."""

_KNOWN_PACKAGES = (
    "torch",
    "pytorch_lightning",
    "lightning",
    "geo_seg",
)  # packages whose classes are called untold
_RUN_SOURCE_KEYS = ("resume", "rerun")
# keys that an interrupted run may go on with changed: where and for how long, not what is learnt
_CHANGEABLE_ON_RESUME = ("trainer.", "dataset.root", "dataset.num_threads", "save_minutes", "on_nan", "debug")
_TEST_KEYS = ("mode", "checkpoint", "split", "debug")
_TEST_GROUPS = ("dataset", "trainer")
_TEST_SECTIONS = ("dataset.", "trainer.", "evaluation.")


def resolve_config(cfg: DictConfig, overrides: Sequence[str]) -> TrainConfig:
    """What a run is to do, checked: the composed configuration, or that of a run folder.

    It comes from the run folder with resume= and rerun=, and in a test of a run, with what the command line
    changes.

    Args:
        cfg: composed from the YAML files and the command line.
        overrides: the command line's share of it, such as "seed=1".

    Raises:
        ConfigError: the folder holds no run, an override doesn't go with it, or see parse_train_config.
    """
    return parse_train_config(_requested_config(cfg, overrides))


def _requested_config(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    if cfg.mode == "test" and cfg.checkpoint:
        return _test_config(cfg, overrides)
    if cfg.resume and cfg.rerun:
        raise ConfigError("resume and rerun: expected one of them; resume goes on, rerun begins anew")
    if not cfg.rerun and cfg.resume in {None, "auto"}:
        return cfg
    folder = Path(cfg.resume or cfg.rerun)
    found = load_run_config(folder)
    _warn_of_targets(dict(_targets(OmegaConf.to_container(found))), folder / CONFIG)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group not in _RUN_SOURCE_KEYS:
            _apply_override(found, override, resumes=bool(cfg.resume))
    found.resume = cfg.resume
    return found


def load_run_config(folder: str | Path) -> DictConfig:
    """The configuration that a run folder holds.

    Raises:
        ConfigError: there is none, or one of another geo_seg.
    """
    yaml_files.forget_yaml_files()  # the run folder's file holds all of it
    file = Path(folder) / CONFIG
    if not file.is_file():
        raise ConfigError(f"{folder}: no {CONFIG} in there; expected the folder of a run")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or not is_plain_data(content):
        raise ConfigError(f"{file}: no configuration of a run; expected keys with resolved values")
    found = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(content))
    split = OmegaConf.select(OmegaConf.create(content), "dataset.split") or {}
    if split.get("by") == "blocks" and "balance" not in split:
        OmegaConf.update(
            found, "dataset.split.balance", False
        )  # as blocks were drawn before there was a choice
    assert isinstance(found, DictConfig)  # noqa: S101 - merge says less than it knows
    return found


def _test_config(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a test: data set, trainer and evaluation are the run's unless asked for otherwise.

    Nothing else of the run is read: a test needs none of it.
    """
    run = run_dir_of(cfg.checkpoint)
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    groups = {override.key_or_group for override in parsed} & set(_TEST_GROUPS)
    single = []
    for override in parsed:
        key, said = override.key_or_group, str(override.input_line)
        if not (key in _TEST_KEYS or key in groups or key.startswith(_TEST_SECTIONS)):
            allowed = ", ".join((*_TEST_KEYS, *(f"{name}*" for name in _TEST_SECTIONS)))
            raise ConfigError(f"{said}: nothing reads it in a test; it takes {allowed}")
        if key.partition(".")[0] not in {*groups, *_TEST_KEYS}:
            single.append(override)
    if (run / CONFIG).is_file():
        found = load_run_config(run)
        for override in single:
            _apply_override(found, override, resumes=False)
        for name in {section.rstrip(".") for section in _TEST_SECTIONS} - groups:
            cfg[name] = found[name]
    _drop_other_kinds(cfg.dataset.split, {override.key_or_group for override in parsed})
    return cfg


def _warn_of_targets(targets: Mapping[str, str], file: Path) -> None:
    """Shows what the configuration of a run has called, before it is: it may be of unknown origin."""
    strange = {key: target for key, target in targets.items() if not _is_known(target)}
    if strange and rank() == 0:
        listed = ", ".join(f"{target} ({key})" for key, target in strange.items())
        shown = listed if listed.isprintable() else ascii(listed)
        print(
            f"note: {file} has this called, which is no class of {', '.join(_KNOWN_PACKAGES)}: {shown}",
            flush=True,
        )


def _is_known(target: str) -> bool:
    """Whether a dotted name is a class of a package that is known."""
    package = target.partition(".")[0]
    return package in _KNOWN_PACKAGES and is_class_path(target)


def _targets(content: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Where something is called in a configuration, at any depth, and what."""
    if isinstance(content, Mapping):
        if "_target_" in content:
            yield at or "_target_", str(content["_target_"])
        parts = content.items()
    elif isinstance(content, list):
        parts = ((str(number), part) for number, part in enumerate(content))  # type: ignore[assignment]
    else:
        return
    for key, part in parts:
        yield from _targets(part, f"{at}.{key}" if at else str(key))


def _drop_other_kinds(split: DictConfig, given: Collection[str]) -> None:
    """Forget, in a test with another kind of split, what was said for the former kind: it names other scenes.

    Args:
        split: as changed by the command line.
        given: the keys that the command line names.
    """
    if "dataset.split.by" in given:
        for key in keys_of_other_kinds(OmegaConf.to_object(split)):  # type: ignore[arg-type]
            if f"dataset.split.{key}" not in given:
                split[key] = None


def _apply_override(found: DictConfig, override: Override, resumes: bool) -> None:
    key, said = override.key_or_group, str(override.input_line)
    if resumes and not key.startswith(_CHANGEABLE_ON_RESUME):
        allowed = ", ".join(name + "*" if name.endswith(".") else name for name in _CHANGEABLE_ON_RESUME)
        raise ConfigError(
            f"{said}: resume= goes on with the run's own configuration, but for {allowed}; "
            "rerun= begins anew with any change"
        )
    if override.is_delete():
        _delete_key(found, key, said)
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


def _delete_key(found: DictConfig, key: str, said: str) -> None:
    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(found, section) if section else found
    if not isinstance(parent, DictConfig) or name not in parent:
        raise ConfigError(f"{said}: the run has no {key}")
    OmegaConf.set_struct(parent, False)
    del parent[name]
