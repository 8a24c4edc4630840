"""Keys that have no effect in combination with other keys. No torch in here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.training import TrainConfig
from geo_seg.errors import ConfigError

_TRAINER = "pytorch_lightning.Trainer"
_MOMENTUM_KEYS = ("momentum", "betas")
"""Of optimizers; a scheduler with cycle_momentum overwrites them."""


def _may_read_outside(config: DatasetConfig) -> bool:
    globs = config.images if isinstance(config.images, list) else [config.images]
    return config.manifest is not None or any(str(glob).endswith(".json") for glob in globs)


# key, whether it has an effect, and with what it has one
_READERS: tuple[tuple[str, Callable[[TrainConfig], bool], str], ...] = (
    ("init_normalize", lambda c: c.init is not None, "init=<run>"),
    ("average.decay", lambda c: c.average.name == "ema", "average=ema"),
    ("average.start", lambda c: c.average.name == "swa", "average=swa"),
    ("dataset.allow_outside", lambda c: _may_read_outside(c.dataset), "dataset.manifest and STAC items"),
    ("dataset.unlabelled", lambda c: c.dataset.manifest is None, "globs: a manifest names every label"),
    ("dataset.sampler", lambda c: c.dataset.samples is None, "windows of scenes, not for dataset.samples"),
    (
        "dataset.split.unit",
        lambda c: c.dataset.split.by == "blocks" or c.dataset.split.buffer > 0,
        "dataset.split.block and dataset.split.buffer, and neither is given",
    ),
)


def idle_errors(config: TrainConfig) -> Iterator[ConfigError]:
    """Yield an error for each key that differs from its default but has no effect.

    The error says what would make the key effective.
    """
    for key, is_read, reader in _READERS:
        value, default = _value_and_default(config, key)
        if value != default and not is_read(config):
            yield ConfigError(f"{key}={value}: does nothing here; it is for {reader}")
    yield from _rate_errors(config.optimizer, config.scheduler)
    if (target := config.trainer.get("_target_")) != _TRAINER:
        yield ConfigError(
            f"trainer._target_={target}: {_TRAINER} trains, whatever this says; leave it as it is"
        )
    clips = config.trainer.get("gradient_clip_val")
    if config.trainer.get("gradient_clip_algorithm") is not None and not clips:
        yield ConfigError(
            "trainer.gradient_clip_algorithm: does nothing without trainer.gradient_clip_val; give both"
        )


def _rate_errors(optimizer: Mapping[str, Any], scheduler: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield where a scheduler would overwrite options of the optimizer, or options contradict each other."""
    if scheduler.get("max_lr") is not None:
        yield ConfigError(
            f"scheduler.max_lr={scheduler['max_lr']}: would overwrite optimizer.lr and the rates of the "
            "encoder; give optimizer.lr, which is the highest"
        )
    momentum = next((key for key in _MOMENTUM_KEYS if optimizer.get(key) is not None), None)
    cycles = scheduler.get("cycle_momentum")
    if cycles and momentum:
        yield ConfigError(
            f"scheduler.cycle_momentum=true: would overwrite optimizer.{momentum}={optimizer[momentum]}; "
            f"leave one out (~optimizer.{momentum})"
        )
    limit = next((key for key in ("base_momentum", "max_momentum") if key in scheduler), None)
    if limit and (cycles is False or (cycles is None and momentum)):
        yield ConfigError(
            f"scheduler.{limit}={scheduler[limit]}: does nothing without scheduler.cycle_momentum=true"
            + (f" and ~optimizer.{momentum}" if momentum else "")
        )


def _value_and_default(config: TrainConfig, key: str) -> tuple[object, object]:
    """Return the value of a dotted key, and its default."""
    section, _, rest = key.partition(".")
    if rest:
        return _value_and_default(getattr(config, section), rest)
    field = next(field for field in fields(config) if field.name == section)
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return getattr(config, section), default
