"""The class table: names, colours, and the mask values that stand for each class."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_seg.config.class_rows import COLOR, mask_key, parse_class_rows
from geo_seg.config.dataset import DatasetConfig
from geo_seg.errors import DataError


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
        codes: what vector files and coloured masks may say (a number or text, "#rrggbb"), and the mask value
            that stands for it; None where it is ignored.
        remedy: what to do about labels of no class.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    values: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...] | None
    ignore_index: int
    ignore_values: tuple[int, ...]
    ignore_unlisted: bool
    codes: Mapping[str, int | None]
    remedy: str = "add them to dataset.classes or dataset.ignore_values, or set dataset.unlisted=ignore"

    @property
    def colors_of_masks(self) -> dict[str, int | None]:
        """Per colour of a coloured mask, "#rrggbb", its mask value; None where it is ignored.

        A class whose values name no colours has the one that the table shows it in.
        """
        found = {key: code for key, code in self.codes.items() if COLOR.fullmatch(key)}
        for color, values in zip(self.colors, self.values, strict=True):
            if values and not set(values) & set(found.values()):
                found["#{:02x}{:02x}{:02x}".format(*color)] = values[0]
        return found

    @property
    def text_keys(self) -> list[str]:
        """What classes are called that are not numbers: such masks are vector files or coloured."""
        return [key for key, code in self.codes.items() if code is not None and str(code) != key]

    @property
    def mask_dtype(self) -> tuple[np.dtype[Any], int]:
        """The type that labels are stored in, and a value that no class has: ignored."""
        used = {value for values in self.values for value in values}
        free = [value for value in range(255, -1, -1) if value not in used]
        if free and all(0 <= value <= 255 for value in used):
            return np.dtype(np.uint8), free[0]
        return np.dtype(np.int32), int(np.iinfo(np.int32).min)

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

    def unknown_values(self, counts: Mapping[int, int], nodata: float | None = None) -> dict[int, int]:
        """The mask values that fit nothing, out of a table of values and pixel counts."""
        if self.ignore_unlisted:
            return {}
        listed = {v for values in self.values for v in values} | set(self.ignore_values)
        return {v: n for v, n in sorted(counts.items()) if v not in listed and v != nodata}


def build_class_table(config: DatasetConfig) -> ClassTable:
    """The classes of a data set's configuration.

    Raises:
        ConfigError: a key, colour or value in it doesn't fit.
    """
    rows = parse_class_rows(config)
    numbers = [value for value in rows.ignored if isinstance(value, int)]
    codes = _codes([value for values in rows.values for value in values], numbers)
    return ClassTable(
        names=rows.names,
        colors=tuple((int(c[1:3], 16), int(c[3:5], 16), int(c[5:7], 16)) for c in rows.colors),
        values=tuple(tuple(codes[mask_key(value)] for value in values) for values in rows.values),
        weights=rows.weights,
        ignore_index=config.ignore_index,
        ignore_values=tuple(numbers),
        ignore_unlisted=config.unlisted == "ignore",
        codes={**codes, **{mask_key(value): None for value in rows.ignored}},
    )


def check_mask(table: ClassTable, path: str, counts: Mapping[int, int], nodata: float | None) -> None:
    """Raises where a mask holds values that the table doesn't.

    Raises:
        DataError: lists the values and how many pixels have each.
    """
    strange = table.unknown_values(counts, nodata)
    if strange:
        listed = ", ".join(f"{value} ({count} px)" for value, count in list(strange.items())[:8])
        more = f" and {len(strange) - 8} more" if len(strange) > 8 else ""
        known = {name: list(values) for name, values in zip(table.names, table.values, strict=True)}
        raise DataError(
            f"{path}: mask values in no class: {listed}{more}; the class table has {known}; {table.remedy}"
        )


def _codes(values: list[int | str], ignored: list[int]) -> dict[str, int]:
    """Mask values: numbers stand for themselves, texts get numbers that are free."""
    taken = {value for value in [*values, *ignored] if isinstance(value, int)}
    free = (number for number in itertools.count() if number not in taken)
    return {mask_key(value): value if isinstance(value, int) else next(free) for value in values}
