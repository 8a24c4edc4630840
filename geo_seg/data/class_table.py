"""The class table: names, colours, and the mask values of each class."""

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
    """The classes of a data set.

    Attributes:
        names: name of each class.
        colors: red, green and blue of each class, 0 to 255.
        values: mask values of each class.
        weights: loss weight of each class, or None if the configuration gives none.
        ignore_index: label of ignored pixels.
        ignore_values: mask values that become ignore_index.
        ignore_unlisted: whether all mask values that are not listed become ignore_index, too.
        codes: mask value of each attribute value of a vector file (a number or text) and of each colour of a
            coloured mask ("#rrggbb"); None where it is ignored.
        remedy: end of the messages on unknown mask values: what to do.
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
        """Mask value of each colour of a coloured mask ("#rrggbb"); None where it is ignored.

        A class without colours among its values has its display colour.
        """
        mask_colors = {key: code for key, code in self.codes.items() if COLOR.fullmatch(key)}
        for color, values in zip(self.colors, self.values, strict=True):
            if values and not set(values) & set(mask_colors.values()):
                mask_colors["#{:02x}{:02x}{:02x}".format(*color)] = values[0]
        return mask_colors

    @property
    def text_keys(self) -> list[str]:
        """Values of classes that are not numbers: such masks are vector files, or coloured."""
        return [key for key, code in self.codes.items() if code is not None and str(code) != key]

    @property
    def mask_dtype(self) -> tuple[np.dtype[Any], int]:
        """Type in which mask values are stored, and the value that stands for nodata: that of no class."""
        used = {value for values in self.values for value in values}
        free = [value for value in range(255, -1, -1) if value not in used]
        if free and all(0 <= value <= 255 for value in used):
            return np.dtype(np.uint8), free[0]
        return np.dtype(np.int32), int(np.iinfo(np.int32).min)

    def labels(self, mask: NDArray[Any]) -> NDArray[np.int16]:
        """Map mask values to labels.

        Args:
            mask: integers of any shape.

        Returns:
            Labels of the same shape: 0 to classes - 1, or ignore_index, also for values that are not in the
            table (see unknown_values).
        """
        labels = np.full(mask.shape, self.ignore_index, np.int16)
        for index, values in enumerate(self.values):
            for value in values:
                labels[mask == value] = index
        return labels

    def unknown_values(self, counts: Mapping[int, int], nodata: float | None = None) -> dict[int, int]:
        """Return the values, with their pixel counts, that are in no class and not ignored."""
        if self.ignore_unlisted:
            return {}
        listed = {v for values in self.values for v in values} | set(self.ignore_values)
        return {v: n for v, n in sorted(counts.items()) if v not in listed and v != nodata}


def build_class_table(config: DatasetConfig) -> ClassTable:
    """Return the class table of a configuration.

    Raises:
        ConfigError: a key, colour or value in it is invalid.
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
    """Raise an error if a mask has values that are not in the table.

    Args:
        table: the classes.
        path: of the mask, for the message.
        counts: pixels of each mask value.
        nodata: nodata value of the mask, or None.

    Raises:
        DataError: names the values and their pixel counts.
    """
    unknown = table.unknown_values(counts, nodata)
    if unknown:
        listed = ", ".join(f"{value} ({count} px)" for value, count in list(unknown.items())[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        classes = {name: list(values) for name, values in zip(table.names, table.values, strict=True)}
        raise DataError(
            f"{path}: mask values in no class: {listed}{more}; the class table has {classes}; {table.remedy}"
        )


def _codes(values: list[int | str], ignored: list[int]) -> dict[str, int]:
    """Return the mask value of each key: numbers as they are, texts numbered with unused values."""
    used = {value for value in [*values, *ignored] if isinstance(value, int)}
    free = (number for number in itertools.count() if number not in used)
    return {mask_key(value): value if isinstance(value, int) else next(free) for value in values}
