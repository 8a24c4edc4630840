"""Keys and words of a configuration against what there is. No torch in here."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_origin

from omegaconf import DictConfig, OmegaConf

from geo_seg.errors import ConfigError, did_you_mean


def to_dataclass(cfg: DictConfig, schema: type) -> Any:
    """Turns a composed configuration into its dataclass.

    Raises:
        ConfigError: it has a key that the dataclass doesn't, or a text without a letter.
    """
    _check_keys(cfg, schema)
    found = OmegaConf.to_object(cfg)
    _check_texts(found)
    return found


def check_choice(key: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raises unless a value is one of the choices.

    Raises:
        ConfigError: it isn't.
    """
    if value not in choices:
        raise ConfigError(f"{key}={value}: there is no such choice; {did_you_mean(value, choices)}")


def scalar_parent(key: str, schema: type) -> str | None:
    """Return the part of a dotted key that is one value by the schema, although more follows; None without.

    Args:
        key: such as "split.by", where split is a text.
        schema: a dataclass; what it says nothing of (Any, dict) may hold anything.
    """
    first, _, rest = key.partition(".")
    kind = {field.name: field.type for field in fields(schema)}.get(first)
    if not rest or kind is None or kind is Any or get_origin(kind) is dict:
        return None
    if isinstance(kind, type) and is_dataclass(kind):
        below = scalar_parent(rest, kind)
        return below and f"{first}.{below}"
    return None if "list" in str(kind) and rest.split(".")[0].isdigit() else first


def dotted_keys(schema: type, at: str = "") -> Iterator[str]:
    """Yield every key of a dataclass and of those in it, such as "dataset.split.by"."""
    for field in fields(schema):
        yield f"{at}{field.name}"
        if isinstance(field.type, type) and is_dataclass(field.type):
            yield from dotted_keys(field.type, f"{at}{field.name}.")


def is_plain_data(value: Any, depth: int = 32) -> bool:
    """Whether a value is what a resolved configuration consists of, and nothing that acts.

    That is: texts, numbers, true, false, null, lists of these, and mappings. A text that
    OmegaConf would look up elsewhere (an interpolation, "${oc.env:HOME}") is not.

    Args:
        value: of a file.
        depth: of containers in containers at most.
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


def _check_keys(cfg: DictConfig, schema: type, at: str = "") -> None:
    """Raises for keys that were added with + to a section of which the dataclass knows all keys."""
    known = {field.name: field.type for field in fields(schema)}
    for key in map(str, cfg):
        if key not in known:
            raise ConfigError(f"{at}{key}: there is no such key; {did_you_mean(key, known)}")
        if is_dataclass(known[key]) and isinstance(cfg[key], DictConfig):
            _check_keys(cfg[key], known[key], f"{at}{key}.")  # type: ignore[arg-type]


def _check_texts(config: Any, at: str = "") -> None:
    """Raises for empty texts and such as no file can be called: nothing is meant by them."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            _check_texts(value, f"{at}{field.name}.")
        elif isinstance(value, str) and (not value.strip() or "\0" in value):
            raise ConfigError(f"{at}{field.name}={value!r}: expected a text with letters, or nothing given")
