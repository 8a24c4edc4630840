"""What each fact of a checkpoint has to be, in one table: a file from elsewhere may hold anything."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from geo_seg.config.fields import is_plain_data
from geo_seg.config.training_checks import check_model
from geo_seg.errors import CheckpointError, ConfigError

FORMAT = 1
"""Of the facts; a checkpoint of another one isn't read."""

_MAX_SIDE = 3e38  # that float32, in which models compute, can hold
_MIN_SIDE = 1e-37
_TYPES = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float16", "float32", "float64"),
)
_SEEDS = 1 << 32
_MOST_PIXELS = 1 << 16  # of the side of a window
_BAND_KEYS = ("std", "band_names", "bands", "scale_offset", "seen")
_LENGTHS = {"class_colors": "class_names", **dict.fromkeys(_BAND_KEYS, "mean")}
_OPTIONAL = (  # earlier versions didn't write them
    *("zero_is_nodata", "temperature", "threshold"),
    *("scale_offset", "seen", "trained_on"),
)


def check_metadata(content: Any, file: Path) -> tuple[str, ...]:
    """Check the facts that a checkpoint file holds: names, types, ranges, lengths that belong together.

    Args:
        content: what lies in the file in the place of the facts.
        file: named in errors.

    Returns:
        What the user should know: keys of a later version, which nothing reads.

    Raises:
        CheckpointError: names the fact, what was found and what was expected.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: not a checkpoint of geo_seg (it holds no facts of a training)")
    version = content.get("format")
    if type(version) is not int or version != FORMAT:
        raise CheckpointError(
            f"{file}: written in format {_shown(version)}, this geo_seg reads format {FORMAT}"
        )
    missing = [name for name in RULES if name not in content and name not in _OPTIONAL]
    if missing:
        raise CheckpointError(
            f"{file}: its facts lack {', '.join(missing)}; expected a checkpoint as a training run writes it"
        )
    _check_values(content, file)
    further = [_shown(key) for key in content if key not in RULES and key != "format"]
    if not further:
        return ()
    return (f"{file}: holds {', '.join(further)}, which this geo_seg doesn't know and leaves out",)


def _check_values(content: Mapping[Any, Any], file: Path) -> None:
    for name, (expected, holds) in RULES.items():
        if name in content and not holds(content[name]):
            raise CheckpointError(f"{file}: {name}={_shown(content[name])}: expected {expected}")
    for name, other in _LENGTHS.items():
        own, wanted = content.get(name), len(content[other])
        if own is not None and len(own) != wanted:
            raise CheckpointError(f"{file}: {name} has {len(own)} entries, {other} has {wanted}")
    if content["mode"] == "binary" and len(content["class_names"]) != 2:
        raise CheckpointError(
            f"{file}: a binary model of {len(content['class_names'])} classes, expected 2 (background first)"
        )
    try:
        check_model(content["model"])
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_int(value: Any, least: int, most: float) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any, least: float = -_MAX_SIDE, most: float = _MAX_SIDE) -> bool:
    return type(value) in (int, float) and least <= value <= most  # NaN is in no range


def _is_list(value: Any, least: int, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) >= least and all(map(holds, value))


def _are_classes(value: Any) -> bool:
    return _is_list(value, 2, _is_text) and len(set(value)) == len(value)


def _is_color(value: Any) -> bool:
    return _is_list(value, 3, lambda part: _is_int(part, 0, 255)) and len(value) == 3


def _is_band(value: Any) -> bool:
    return _is_text(value) or _is_int(value, 1, math.inf)


def _are_pairs(value: Any) -> bool:
    return value is None or _is_list(value, 1, lambda pair: _is_list(pair, 2, _is_number) and len(pair) == 2)


def _is_model(value: Any) -> bool:
    return (
        is_plain_data(value) and isinstance(value, dict) and all(_is_text(value.get(k)) for k in _MODEL_KEYS)
    )


def _is_config(value: Any) -> bool:
    if not isinstance(value, dict) or not is_plain_data(value):
        return False
    return all(holds(value[key]) for key, holds in _OF_CONFIG.items() if key in value)


_MODEL_KEYS = ("name", "encoder")
_OF_CONFIG: dict[str, Callable[[Any], bool]] = {  # what is read of it
    "seed": lambda value: _is_int(value, 0, _SEEDS - 1),
    "compile": lambda value: isinstance(value, bool),
    "loss": lambda value: isinstance(value, dict) and _is_text(value.get("name")),
    "dataset": lambda value: isinstance(value, dict),
}
RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "mode": ("binary or multiclass", lambda value: _is_text(value) and value in ("binary", "multiclass")),
    "class_names": ("two names or more, each another one", _are_classes),
    "class_colors": (
        "red, green and blue from 0 to 255 for each class",
        lambda value: _is_list(value, 2, _is_color),
    ),
    "ignore_index": ("an integer from -32768 to 32767", lambda value: _is_int(value, -32768, 32767)),
    "bands": (
        "null, or numbers from 1 and names",
        lambda value: value is None or _is_list(value, 1, _is_band),
    ),
    "band_names": ("a name for each band", lambda value: _is_list(value, 1, _is_text)),
    "nodata": ("null or a number", lambda value: value is None or type(value) in (int, float)),
    "dtype": (f"one of {', '.join(_TYPES)}", lambda value: _is_text(value) and value in _TYPES),
    "mean": ("a finite number for each band", lambda value: _is_list(value, 1, _is_number)),
    "std": (
        "a finite number above 0 for each band",
        lambda value: _is_list(value, 1, lambda one: _is_number(one, _MIN_SIDE)),
    ),
    "window": (
        f"pixels from 1 to {_MOST_PIXELS}",
        lambda value: _is_int(value, 1, _MOST_PIXELS),
    ),
    "model": ("name, encoder and options of the model", _is_model),
    "config": ("the configuration of a training run, in plain values", _is_config),
    "versions": (
        "the version of each program",
        lambda value: isinstance(value, dict) and is_plain_data(value) and all(map(_is_text, value.values())),
    ),
    "zero_is_nodata": ("true or false", lambda value: isinstance(value, bool)),
    "temperature": (
        "a finite number above 0",
        lambda value: _is_number(value, _MIN_SIDE),
    ),
    "threshold": (
        "a number between 0 and 1",
        lambda value: _is_number(value, _MIN_SIDE, 1) and value < 1,
    ),
    "scale_offset": ("null, or two finite numbers for each band", _are_pairs),
    "seen": ("null, or two finite numbers for each band", _are_pairs),
    "trained_on": ("a text for each training scene", lambda value: _is_list(value, 0, _is_text)),
}
"""Per fact what is expected, and whether a value is that."""


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
