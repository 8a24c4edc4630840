"""Configurations of earlier runs, and the default configuration. No torch in here."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from geo_seg.config import yaml_files
from geo_seg.config.fields import is_plain_data, keys
from geo_seg.config.hydra_setup import run_dir_of
from geo_seg.config.signatures import is_class_path
from geo_seg.config.split_checks import keys_of_other_methods
from geo_seg.config.training import TrainConfig
from geo_seg.config.training_checks import parse_train_config
from geo_seg.errors import ConfigError
from geo_seg.runtime.program import config_dir
from geo_seg.runtime.ranks import rank

_GROUPS_WITHOUT_SECTION = ("launcher", "sweeper", "experiment")
ABSENT = "–"
"""Value of a missing key."""


def default_config() -> dict[str, Any]:
    """Return the configuration of `python train.py` without overrides, composed without Hydra."""
    content = yaml.safe_load((config_dir() / "train.yaml").read_text(encoding="utf-8"))
    groups = [entry for entry in content.pop("defaults") if isinstance(entry, dict)]
    content.pop("hydra")
    for entry in groups:
        ((group, choice),) = entry.items()
        if group not in _GROUPS_WITHOUT_SECTION and choice is not None:
            section = yaml.safe_load((config_dir() / group / f"{choice}.yaml").read_text(encoding="utf-8"))
            content[group] = section
    config = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(content))
    plain: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    return plain


def diff_configs(config: Mapping[str, Any], default: Mapping[str, Any]) -> list[tuple[str, object, object]]:
    """Return key, default and value of everything that differs; ABSENT for missing keys.

    Args:
        config: in plain containers.
        default: in plain containers.
    """
    differences = []
    for key in dict.fromkeys([*default, *config]):
        old, new = default.get(key, ABSENT), config.get(key, ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            differences += [(f"{key}.{name}", a, b) for name, a, b in diff_configs(new, old)]
        elif old != new:
            differences.append((str(key), old, new))
    return differences


CONFIG = "config.yaml"
"""File in a run folder with its resolved configuration."""

# packages whose classes are instantiated without a note
_TRUSTED_PACKAGES = ("torch", "pytorch_lightning", "lightning", "geo_seg")
_RUN_SOURCE_KEYS = ("resume", "rerun")
_CHANGEABLE_ON_RESUME = tuple(
    f"{name}." if name == "trainer" else name for name, key in keys(TrainConfig) if key.on_resume
)
"""Keys, and beginnings of keys, of where and for how long a run runs, not of what is learnt."""
_SEARCHED = {  # keys that a search sets, by the value of find
    "lr": ("optimizer.lr",),
    "batch_size": ("dataset.batch_size",),
    "both": ("optimizer.lr", "dataset.batch_size"),
}
_TEST_KEYS = ("mode", "checkpoint", "split", "debug", "model.module")
_TEST_GROUPS = ("dataset", "trainer")
_TEST_SECTIONS = ("dataset.", "trainer.", "evaluation.")


def resolve_config(cfg: DictConfig, overrides: Sequence[str]) -> TrainConfig:
    """Return the checked configuration of a run: the composed one, or that of a run folder.

    With resume= and rerun=, and in a test of a run, it is the one of the run folder with the overrides of the
    command line.

    Args:
        cfg: composed from the YAML files and the command line.
        overrides: of the command line, such as "seed=1".

    Raises:
        ConfigError: the folder is no run folder, an override isn't allowed, or see parse_train_config.
    """
    return parse_train_config(_requested_config(cfg, overrides))


def _requested_config(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    if cfg.mode == "test" and cfg.checkpoint:
        return _test_config(cfg, overrides)
    if cfg.resume and cfg.rerun:
        raise ConfigError(
            "resume and rerun: expected one of them; resume continues a run, rerun starts a new one"
        )
    if not cfg.rerun and cfg.resume in {None, "auto"}:
        return cfg
    folder = Path(cfg.resume or cfg.rerun)
    config = load_run_config(folder)
    _warn_of_targets(dict(_targets(OmegaConf.to_container(config))), folder / CONFIG)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group not in _RUN_SOURCE_KEYS:
            if cfg.resume and not override.key_or_group.startswith(_CHANGEABLE_ON_RESUME):
                _check_unchanged(config, cfg, override)
            else:
                _apply_override(config, override)
    config.resume = cfg.resume
    return config


def load_run_config(folder: str | Path) -> DictConfig:
    """Read the configuration of a run folder.

    Raises:
        ConfigError: it is missing, not YAML, or not a resolved configuration.
    """
    yaml_files.forget_yaml_files()  # the file of the run folder replaces them
    file = Path(folder) / CONFIG
    if not file.is_file():
        raise ConfigError(f"{folder}: no {CONFIG} in there; expected the folder of a run")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or not is_plain_data(content):
        raise ConfigError(f"{file}: no configuration of a run; expected keys with resolved values")
    config = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(content))
    split = OmegaConf.select(OmegaConf.create(content), "dataset.split") or {}
    if split.get("by") == "blocks" and "balance" not in split:
        # as blocks were drawn before the key was introduced
        OmegaConf.update(config, "dataset.split.balance", False)
    assert isinstance(config, DictConfig)  # noqa: S101 - the annotation of merge is wider
    return config


def _test_config(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration of a test: data set, trainer and evaluation are the run's unless overridden.

    Nothing else of the run is used: a test needs none of it.
    """
    run = run_dir_of(cfg.checkpoint)
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    groups = {override.key_or_group for override in parsed} & set(_TEST_GROUPS)
    single = []
    for override in parsed:
        key, text = override.key_or_group, str(override.input_line)
        if not (key in _TEST_KEYS or key in groups or key.startswith(_TEST_SECTIONS)):
            allowed = ", ".join((*_TEST_KEYS, *(f"{name}*" for name in _TEST_SECTIONS)))
            raise ConfigError(f"{text}: nothing reads it in a test; allowed: {allowed}")
        if key not in _TEST_KEYS and key.partition(".")[0] not in groups:
            single.append(override)
    if (run / CONFIG).is_file():
        config = load_run_config(run)
        config.dataset.module = config.evaluation.module = None  # code is named on the command line only
        for override in single:
            _apply_override(config, override)
        for name in {section.rstrip(".") for section in _TEST_SECTIONS} - groups:
            cfg[name] = config[name]
    _drop_other_methods(cfg.dataset.split, {override.key_or_group for override in parsed})
    return cfg


def _warn_of_targets(targets: Mapping[str, str], file: Path) -> None:
    """Print the targets of a run's configuration that aren't trusted: it may be of unknown origin."""
    untrusted = {key: target for key, target in targets.items() if not _is_trusted(target)}
    if untrusted and rank() == 0:
        listed = ", ".join(f"{target} ({key})" for key, target in untrusted.items())
        printable = listed if listed.isprintable() else ascii(listed)
        print(
            f"note: {file} has this called, which is no class of {', '.join(_TRUSTED_PACKAGES)}: {printable}",
            flush=True,
        )


def _is_trusted(target: str) -> bool:
    """Return whether a dotted name is a class of a trusted package."""
    package = target.partition(".")[0]
    return package in _TRUSTED_PACKAGES and is_class_path(target)


def _targets(content: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the key and the value of every `_target_` in a configuration, at any depth, and every module."""
    if isinstance(content, Mapping):
        if "_target_" in content:
            yield key or "_target_", str(content["_target_"])
        if key in {"dataset", "model", "evaluation"} and content.get("module") is not None:
            yield f"{key}.module", str(content["module"])
        parts = content.items()
    elif isinstance(content, list):
        parts = ((str(number), part) for number, part in enumerate(content))  # type: ignore[assignment]
    else:
        return
    for name, part in parts:
        yield from _targets(part, f"{key}.{name}" if key else str(name))


def _drop_other_methods(split: DictConfig, given: Collection[str]) -> None:
    """Reset keys of the run's `split.by` in a test with another one: they select other scenes.

    Args:
        split: with the overrides of the command line.
        given: keys of these overrides.
    """
    if "dataset.split.by" in given:
        for key in keys_of_other_methods(OmegaConf.to_object(split)):  # type: ignore[arg-type]
            if f"dataset.split.{key}" not in given:
                split[key] = None


def _check_unchanged(config: DictConfig, cfg: DictConfig, override: Override) -> None:
    """Raise if an override of a resumed run gives another value than the run has.

    A script that starts a run and resumes it types the same line, so that the run's own values are accepted.

    Args:
        config: of the run.
        cfg: composed from the YAML files and the whole command line.
        override: of a key or a group whose values may not change.
    """
    key, text = override.key_or_group, str(override.input_line)
    own, given = (_values_below("" if key == "experiment" else key, c) for c in (config, cfg))
    searched: set[str] = set()
    if config.find == "none":  # a search that the line asks for has been done: the run has what it gave
        searched = {"find", *_SEARCHED.get(cfg.find, ())} if cfg.find != "none" else set()
    for name in dict.fromkeys([*given, *own]):
        if name not in searched and own.get(name, ABSENT) != given.get(name, ABSENT):
            allowed = ", ".join(k + "*" if k.endswith(".") else k for k in _CHANGEABLE_ON_RESUME)
            raise ConfigError(
                f"{text}: the run has {name}={own.get(name, ABSENT)}; resume= continues with the run's own "
                f"configuration, except for {allowed}; rerun= starts a new run with any change"
            )


def _values_below(key: str, config: DictConfig) -> dict[str, Any]:
    """Return the single values of a section, or of all for "", by key; but for those that may change."""
    content = OmegaConf.to_container(config, resolve=True)
    for name in filter(None, key.split(".")):
        content = content.get(name, ABSENT) if isinstance(content, dict) else ABSENT
    values: dict[str, Any] = {}

    def walk(value: object, name: str) -> None:
        if isinstance(value, dict) and value:
            for part, inner in value.items():
                walk(inner, f"{name}.{part}".removeprefix("."))
        elif not name.startswith((*_CHANGEABLE_ON_RESUME, *_RUN_SOURCE_KEYS)):
            values[name] = value

    walk(content, key)
    return values


def _apply_override(config: DictConfig, override: Override) -> None:
    key, text = override.key_or_group, str(override.input_line)
    if override.is_delete():
        _delete_key(config, key, text)
        return
    section, _, _ = key.rpartition(".")
    current = OmegaConf.select(config, key)
    if (isinstance(current, DictConfig) and isinstance(override.value(), str)) or key == "experiment":
        raise ConfigError(
            f"{text}: expected a single value, such as {key}.name=...: a run folder has no groups"
        )
    if section and OmegaConf.select(config, section) is None:
        raise ConfigError(f"{text}: the run has no section {section}")
    OmegaConf.update(config, key, override.value(), force_add=override.is_add() or override.is_force_add())


def _delete_key(config: DictConfig, key: str, text: str) -> None:
    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, section) if section else config
    if not isinstance(parent, DictConfig) or name not in parent:
        raise ConfigError(f"{text}: the run has no {key}")
    OmegaConf.set_struct(parent, False)
    del parent[name]
