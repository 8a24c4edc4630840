"""Keys of a configuration: their declaration in a schema, and checks against it. No torch in here."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from geo_seg.errors import ConfigError, MultipleConfigError, did_you_mean

_KEY = "key"  # in the metadata of a field
_Schema = TypeVar("_Schema")


@dataclass(frozen=True)
class Key:
    """What a schema declares of a key beside its name, type, default and meaning.

    Attributes:
        in_fingerprint: whether results depend on its value, which therefore is part of the hash of a run or
            of the fingerprint of a map. Files that a key names have fingerprints of their own.
        on_resume: whether it may change when a run is resumed.
        choices: valid values beside those in range; all valid values if there is no range.
        at_least: smallest valid number; None for no limit, as below.
        above: number that a valid one exceeds.
        at_most: largest valid number.
        below: number that exceeds a valid one.
        multiple_of: number of which a valid one is a multiple.
        unit: of the number, in error messages.
    """

    in_fingerprint: bool
    on_resume: bool = False
    choices: tuple[object, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    multiple_of: int | None = None
    unit: str = ""

    @property
    def has_range(self) -> bool:
        """Whether numbers are valid in a range only."""
        return any(limit is not None for limit in (self.at_least, self.above, self.at_most, self.below))

    def is_valid(self, value: object) -> bool:
        """Return whether a value is one of the choices, or in the range."""
        if not self.has_range:
            return not self.choices or value in self.choices
        if not isinstance(value, int | float) or not math.isfinite(value):
            return value in self.choices
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
            and (self.multiple_of is None or value % self.multiple_of == 0)
        )

    def range_text(self) -> str:
        """Return the range in words: "0 or more pixels", "0 or more and less than 1"."""
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:.10g} to {self.at_most:.10g}"
        multiple = "" if self.multiple_of is None else f"a multiple of {self.multiple_of}, "
        lower = f"more than {self.above:g}" if self.at_least is None else f"{self.at_least:g} or more"
        upper = f" and up to {self.at_most:g}" if self.at_most is not None else ""
        upper = f" and less than {self.below:g}" if self.below is not None else upper
        return f"{multiple}{lower}{upper} {self.unit}".rstrip()


def key(
    default: object,
    *,
    in_fingerprint: bool,
    on_resume: bool = False,
    **limits: Any,  # choices and range of Key, which checks their names
) -> Any:  # dataclasses.field says so, too
    """Declare a key of a schema; the section Attributes of the schema's docstring gives its meaning.

    Args:
        default: a value, or a type that makes one, such as dict.
        in_fingerprint: see Key.
        on_resume: see Key.
        limits: choices and range, see Key.
    """
    metadata = {_KEY: Key(in_fingerprint, on_resume, **limits)}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def keys(schema: type, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Yield the dotted name and the declaration of every key of a schema that is no section."""
    for item in fields(schema):
        if isinstance(item.type, type) and is_dataclass(item.type):
            yield from keys(item.type, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", item.metadata[_KEY]


def fingerprint_values(config: Any) -> dict[str, Any]:  # dataclasses share no base class
    """Return the values on which results depend, sections nested.

    Args:
        config: a dataclass whose keys are declared with `key`.
    """
    chosen = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            chosen[item.name] = fingerprint_values(value)
        elif item.metadata[_KEY].in_fingerprint:
            chosen[item.name] = value
    return chosen


def to_dataclass(cfg: DictConfig, schema: type[_Schema]) -> _Schema:
    """Convert a composed configuration to its dataclass, and check keys and values one by one.

    Raises:
        ConfigError: unknown keys, empty texts, and values that are no choice or out of range.
    """
    raise_errors(_unknown_keys(cfg, schema))
    config: _Schema = OmegaConf.to_object(cfg)  # type: ignore[assignment] # it was made from the schema
    raise_errors(_invalid_values(config))
    return config


def raise_errors(errors: Iterable[ConfigError]) -> None:
    """Raise all errors of a configuration together.

    Raises:
        ConfigError: there are some; the only one is raised as it is.
    """
    collected = list(errors)
    if len(collected) == 1:
        raise collected[0]
    if collected:
        raise MultipleConfigError(collected)


def errors_of(*checks: Callable[[], object]) -> Iterator[ConfigError]:
    """Call checks, and yield what they raise."""
    for check in checks:
        try:
            check()
        except MultipleConfigError as error:
            yield from error.errors
        except ConfigError as error:
            yield error


def check_choice(key: str, value: object, choices: tuple[object, ...]) -> None:
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
    type_ = {item.name: item.type for item in fields(schema)}.get(first)
    if not rest or type_ is None or type_ is Any or get_origin(type_) is dict:
        return None
    if isinstance(type_, type) and is_dataclass(type_):
        nested = scalar_parent(rest, type_)
        return nested and f"{first}.{nested}"
    return None if "list" in str(type_) and rest.split(".")[0].isdigit() else first


def dotted_keys(schema: type, prefix: str = "") -> Iterator[str]:
    """Yield every key of a dataclass and of nested ones, such as "dataset.split.by"."""
    for item in fields(schema):
        yield f"{prefix}{item.name}"
        if isinstance(item.type, type) and is_dataclass(item.type):
            yield from dotted_keys(item.type, f"{prefix}{item.name}.")


def is_plain_data(value: object, depth: int = 32) -> bool:
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


def _unknown_keys(cfg: DictConfig, schema: type, prefix: str = "") -> Iterator[ConfigError]:
    """Yield an error for each key that was added with + to a section whose keys are all in the schema."""
    types = {item.name: item.type for item in fields(schema)}
    for name in map(str, cfg):
        if name not in types:
            yield ConfigError(f"{prefix}{name}: unknown key {name!r}; {did_you_mean(name, types)}")
        elif is_dataclass(types[name]) and isinstance(cfg[name], DictConfig):
            yield from _unknown_keys(cfg[name], types[name], f"{prefix}{name}.")  # type: ignore[arg-type]


def _invalid_values(config: Any, prefix: str = "") -> Iterator[ConfigError]:  # as fingerprint_values
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from _invalid_values(value, f"{prefix}{item.name}.")
        else:
            yield from _value_errors(f"{prefix}{item.name}", value, item.type, item.metadata[_KEY])


def _value_errors(name: str, value: object, annotation: object, declared: Key) -> Iterator[ConfigError]:
    """Yield what is wrong with a value: nothing, or one error.

    A text with a NUL character can't name a file.
    """
    nullable = type(None) in get_args(annotation)
    if isinstance(value, str) and (not value.strip() or "\0" in value):
        yield ConfigError(f"{name}={value!r}: expected a non-empty text without NUL characters")
    elif (value is None and nullable) or declared.is_valid(value):
        return
    elif declared.has_range:
        expected = [*map(str, declared.choices), declared.range_text(), *(["null"] if nullable else [])]
        shown = f"{value:g}" if isinstance(value, float) else value
        yield ConfigError(f"{name}={shown}: expected {', or '.join(expected)}")
    else:
        yield from errors_of(lambda: check_choice(name, value, declared.choices))
