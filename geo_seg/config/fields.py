"""Keys and plain values of a configuration, checked against its schema. No torch in here."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_origin

from omegaconf import DictConfig, OmegaConf

from geo_seg.errors import ConfigError, did_you_mean


def to_dataclass(cfg: DictConfig, schema: type) -> Any:
    """Convert a composed configuration to its dataclass.

    Raises:
        ConfigError: an unknown key, or an empty text.
    """
    _check_keys(cfg, schema)
    config = OmegaConf.to_object(cfg)
    _check_texts(config)
    return config


def check_choice(key: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise unless a value is one of the choices.

    Raises:
        ConfigError: it isn't.
    """
    if value not in choices:
        raise ConfigError(f"{key}={value}: unknown choice {value!r}; {did_you_mean(value, choices)}")


def scalar_parent(key: str, schema: type) -> str | None:
    """Return the prefix of a dotted key that is a single value by the schema; None if there is none.

    Args:
        key: such as "split.by", where split is a text.
        schema: a dataclass; fields of type Any or dict may contain anything.
    """
    first, _, rest = key.partition(".")
    type_ = {field.name: field.type for field in fields(schema)}.get(first)
    if not rest or type_ is None or type_ is Any or get_origin(type_) is dict:
        return None
    if isinstance(type_, type) and is_dataclass(type_):
        nested = scalar_parent(rest, type_)
        return nested and f"{first}.{nested}"
    return None if "list" in str(type_) and rest.split(".")[0].isdigit() else first


def dotted_keys(schema: type, prefix: str = "") -> Iterator[str]:
    """Yield every key of a dataclass and of nested ones, such as "dataset.split.by"."""
    for field in fields(schema):
        yield f"{prefix}{field.name}"
        if isinstance(field.type, type) and is_dataclass(field.type):
            yield from dotted_keys(field.type, f"{prefix}{field.name}.")


def is_plain_data(value: Any, depth: int = 32) -> bool:
    """Return whether a value is plain data, as in a resolved configuration.

    Plain data are texts, numbers, true, false, null, lists of these, and mappings. A text with an
    interpolation ("${oc.env:HOME}"), which OmegaConf would resolve, is not.

    Args:
        value: of a file.
        depth: maximum depth of nested containers.
    """
    if isinstance(value, str):
        return "${" not in value
    if isinstance(value, dict):
        return depth > 0 and all(
            is_plain_data(k, 0) and is_plain_data(v, depth - 1) for k, v in value.items()
        )
    if isinstance(value, list):
        return depth > 0 and all(is_plain_data(part, depth - 1) for part in value)
    return value is None or type(value) in (bool, int, float)


def _check_keys(cfg: DictConfig, schema: type, prefix: str = "") -> None:
    """Raise for keys that were added with + to a section whose keys are all in the schema."""
    types = {field.name: field.type for field in fields(schema)}
    for key in map(str, cfg):
        if key not in types:
            raise ConfigError(f"{prefix}{key}: unknown key {key!r}; {did_you_mean(key, types)}")
        if is_dataclass(types[key]) and isinstance(cfg[key], DictConfig):
            _check_keys(cfg[key], types[key], f"{prefix}{key}.")  # type: ignore[arg-type]


def _check_texts(config: Any, prefix: str = "") -> None:
    """Raise for empty texts, and for texts with a NUL character, which can't name a file."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            _check_texts(value, f"{prefix}{field.name}.")
        elif isinstance(value, str) and (not value.strip() or "\0" in value):
            raise ConfigError(
                f"{prefix}{field.name}={value!r}: expected a non-empty text without NUL characters"
            )
