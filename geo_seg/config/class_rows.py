"""Classes of a data set: parsing and checks of `dataset.classes`. No torch in here."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.fields import errors_of, raise_errors
from geo_seg.errors import ConfigError, did_you_mean

COLOR = re.compile(r"#[0-9a-fA-F]{6}")
"""Colour of a class, or of a pixel in a coloured mask."""

_PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#b279a2", "#eeca3b", "#72b7b2", "#9d755d", "#bab0ac")
_ROW_KEYS = ("name", "color", "values", "weight")
_LABEL_LIMIT = 1 << 31  # labels are kept as int32 at most


@dataclass(frozen=True)
class ClassRows:
    """Classes of a configuration, checked.

    Attributes:
        names: per class.
        colors: per class, "#rrggbb".
        values: per class, its mask values: numbers, texts or colours.
        weights: per class, or None if no class has one.
        ignored: mask values that become ignore_index.
    """

    names: tuple[str, ...]
    colors: tuple[str, ...]
    values: tuple[tuple[int | str, ...], ...]
    weights: tuple[float, ...] | None
    ignored: tuple[int | str, ...]


def parse_class_rows(config: DatasetConfig) -> ClassRows:
    """Parse and check `dataset.classes`, `ignore_index` and `ignore_values`.

    Raises:
        ConfigError: a key, name, colour, value or weight is invalid.
    """
    raise_errors(errors_of(*(partial(_row, index, row) for index, row in enumerate(config.classes))))
    rows = [_row(index, row) for index, row in enumerate(config.classes)]
    if len(rows) < 2 or (config.mode == "binary" and len(rows) != 2):
        expected = "2 (background first)" if config.mode == "binary" else "2 or more"
        raise ConfigError(f"dataset.classes: {len(rows)} classes, expected {expected}")
    names = [row["name"] for row in rows]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise ConfigError(f"dataset.classes: two are called {duplicate!r}; one class may have several values")
    all_values = [value for row in rows for value in row["values"]]
    keys = [mask_key(value) for value in all_values]
    duplicates = sorted({key for key in keys if keys.count(key) > 1})
    if duplicates:
        raise ConfigError(f"dataset.classes: mask value {duplicates[0]} stands for two classes")
    return ClassRows(
        names=tuple(names),
        colors=tuple(row["color"] for row in rows),
        values=tuple(tuple(row["values"]) for row in rows),
        weights=_weights([row.get("weight") for row in rows]),
        ignored=_ignored(config, names, all_values),
    )


def mask_key(value: int | str) -> str:
    """Return a mask value as text; colours in lower case."""
    text = str(value)
    return text.lower() if COLOR.fullmatch(text) else text


def _ignored(config: DatasetConfig, names: list[str], all_values: list[int | str]) -> tuple[int | str, ...]:
    index, ignored = config.ignore_index, config.ignore_values
    if 0 <= index < len(names):
        raise ConfigError(
            f"dataset.ignore_index={index} is the label of class {names[index]!r}; take 255, or leave the "
            "class out of the table"
        )
    if ignored is None:
        ignored = [index] if index not in all_values else []
    if not all(map(_is_value, ignored)):
        raise ConfigError(f"dataset.ignore_values={ignored}: expected integers, texts or colours")
    overlap = sorted(set(map(mask_key, ignored)) & set(map(mask_key, all_values)))
    if overlap:
        raise ConfigError(f"dataset.ignore_values: {overlap[0]} stands for a class, too")
    return tuple(ignored)


def _weights(weights: list[float | None]) -> tuple[float, ...] | None:
    if all(weight is None for weight in weights):
        return None
    for number, weight in enumerate(weights):
        if weight is None:
            raise ConfigError("dataset.classes: give every class a weight, or none")
        if type(weight) not in {int, float} or not 0 <= weight < math.inf:
            raise ConfigError(f"dataset.classes[{number}].weight={weight!r}: expected a number, 0 or more")
    if not any(weights):
        raise ConfigError("dataset.classes: all weights are 0; expected one above 0")
    return tuple(float(weight) for weight in weights if weight is not None)


def _row(index: int, row: object) -> dict[str, Any]:
    location = f"dataset.classes[{index}]"
    if isinstance(row, str):
        row = {"name": row}
    if not isinstance(row, Mapping) or "name" not in row:
        raise ConfigError(f"{location}: expected a name or a mapping with a name, got {row!r}")
    for key in row:
        if key not in _ROW_KEYS:
            raise ConfigError(
                f"{location}.{key}: nothing reads {key!r} of {row['name']!r}; {did_you_mean(key, _ROW_KEYS)}"
            )
    defaults = {"color": _PALETTE[index % len(_PALETTE)], "values": [index]}
    complete = {**defaults, **row, "name": _name(location, row["name"])}
    if not isinstance(complete["values"], list) or not all(map(_is_value, complete["values"])):
        raise ConfigError(
            f"{location}.values={complete['values']!r} of {complete['name']!r}: expected a list of integers, "
            "texts or colours"
        )
    color = complete["color"]
    if not isinstance(color, str) or not COLOR.fullmatch(color):
        raise ConfigError(
            f'{location}.color={color!r} of {complete["name"]!r}: expected "#rrggbb", in quotes'
        )
    return complete


def _name(location: str, name: object) -> str:
    if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
        hint = "; YAML reads yes, no, on and off as true and false: put the name into quotes"
        raise ConfigError(
            f"{location}.name={name!r}: expected a text{hint if isinstance(name, bool) else ''}"
        )
    return str(name)


def _is_value(value: object) -> bool:
    return type(value) is str or (type(value) is int and -_LABEL_LIMIT <= value < _LABEL_LIMIT)
