"""The class table: names, colours, and the mask values that stand for each class."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_seg.config import DatasetConfig
from geo_seg.errors import ConfigError, DataError, nearest

_PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#b279a2", "#eeca3b", "#72b7b2", "#9d755d", "#bab0ac")


@dataclass(frozen=True)
class ClassTable:
    """What the classes of a data set are.

    Attributes:
        names: per class.
        colors: per class, red, green and blue from 0 to 255.
        values: per class, the mask values that stand for it.
        weights: per class, or None when the table gives none.
        ignore_index: label of pixels that don't count.
        ignore_values: mask values that become ignore_index.
        ignore_unlisted: whether any other mask value does, too.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    values: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...] | None
    ignore_index: int
    ignore_values: tuple[int, ...]
    ignore_unlisted: bool

    def labels(self, mask: NDArray[Any]) -> NDArray[np.int16]:
        """Mask values to labels.

        Args:
            mask: integers of any shape.

        Returns:
            Labels of the same shape: 0 to classes - 1, or ignore_index; values that the table doesn't
            have become ignore_index too (unlisted() finds them).
        """
        found = np.full(mask.shape, self.ignore_index, np.int16)
        for index, values in enumerate(self.values):
            for value in values:
                found[mask == value] = index
        return found

    def unlisted(self, counts: Mapping[int, int], nodata: float | None = None) -> dict[int, int]:
        """The mask values that fit nothing, out of a table of values and pixel counts."""
        if self.ignore_unlisted:
            return {}
        listed = {v for values in self.values for v in values} | set(self.ignore_values)
        return {v: n for v, n in sorted(counts.items()) if v not in listed and v != nodata}


def class_table(config: DatasetConfig) -> ClassTable:
    """Reads and checks the classes of a data set's configuration.

    Raises:
        ConfigError: a key, colour or value in it doesn't fit.
    """
    rows = [_row(index, row) for index, row in enumerate(config.classes)]
    if len(rows) < 2 or (config.mode == "binary" and len(rows) != 2):
        expected = "2 (background first)" if config.mode == "binary" else "2 or more"
        raise ConfigError(f"dataset.classes: {len(rows)} classes, expected {expected}")
    values = tuple(tuple(int(v) for v in row["values"]) for row in rows)
    flat = [value for row in values for value in row]
    twice = sorted({value for value in flat if flat.count(value) > 1})
    if twice:
        raise ConfigError(f"dataset.classes: mask value {twice[0]} stands for two classes")
    if 0 <= config.ignore_index < len(rows):
        raise ConfigError(
            f"dataset.ignore_index={config.ignore_index} is the label of class "
            f"{rows[config.ignore_index]['name']!r}; take 255, or leave the class out of the table"
        )
    if not -32768 <= config.ignore_index <= 32767:
        raise ConfigError(f"dataset.ignore_index={config.ignore_index}: expected -32768 to 32767")
    ignored = config.ignore_values
    if ignored is None:
        ignored = [config.ignore_index] if config.ignore_index not in flat else []
    both = sorted(set(ignored) & set(flat))
    if both:
        raise ConfigError(f"dataset.ignore_values: {both[0]} stands for a class, too")
    weights = [row.get("weight") for row in rows]
    given = [weight for weight in weights if weight is not None]
    if given and len(given) < len(rows):
        raise ConfigError("dataset.classes: give every class a weight, or none")
    return ClassTable(
        names=tuple(row["name"] for row in rows),
        colors=tuple(_color(row["color"]) for row in rows),
        values=values,
        weights=tuple(float(weight) for weight in given) if given else None,
        ignore_index=config.ignore_index,
        ignore_values=tuple(ignored),
        ignore_unlisted=config.unlisted == "ignore",
    )


def check_mask(table: ClassTable, path: str, counts: Mapping[int, int], nodata: float | None) -> None:
    """Raises where a mask holds values that the table doesn't.

    Raises:
        DataError: lists the values and how many pixels have each.
    """
    strange = table.unlisted(counts, nodata)
    if strange:
        listed = ", ".join(f"{value} ({count} px)" for value, count in list(strange.items())[:8])
        more = f" and {len(strange) - 8} more" if len(strange) > 8 else ""
        known = {name: list(values) for name, values in zip(table.names, table.values, strict=True)}
        raise DataError(
            f"{path}: mask values in no class: {listed}{more}; the class table has {known}; add them to "
            "dataset.classes or dataset.ignore_values, or set dataset.unlisted=ignore"
        )


def _row(index: int, row: Any) -> dict[str, Any]:
    if isinstance(row, str):
        row = {"name": row}
    if not isinstance(row, Mapping) or "name" not in row:
        raise ConfigError(f"dataset.classes: expected a name or a mapping with a name, got {row!r}")
    known = ("name", "color", "values", "weight")
    for key in row:
        if key not in known:
            raise ConfigError(
                f"dataset.classes: nothing reads {key!r} of {row['name']!r}; {nearest(key, known)}"
            )
    default = {"color": _PALETTE[index % len(_PALETTE)], "values": [index]}
    full = {**default, **row, "name": str(row["name"])}
    if not isinstance(full["values"], list) or not all(type(v) is int for v in full["values"]):
        raise ConfigError(
            f"dataset.classes: values of {full['name']!r}: expected integers, got {full['values']!r}"
        )
    return full


def _color(text: Any) -> tuple[int, int, int]:
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", str(text)):
        raise ConfigError(f"dataset.classes: color {text!r}: expected #rrggbb")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
