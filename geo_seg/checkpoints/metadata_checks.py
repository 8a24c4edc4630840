"""Rules for the metadata of a checkpoint, in one table: a file from elsewhere may contain anything."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from geo_seg.config.fields import is_plain_data
from geo_seg.config.training_checks import check_model, registered_models
from geo_seg.errors import CheckpointError, ConfigError
from geo_seg.models.registry import own_modules

FORMAT = 1
"""Version of the metadata; a checkpoint of another version is refused."""

_MAX_NUMBER = 3e38  # largest that float32, in which models compute, can represent
_MIN_POSITIVE = 1e-37
_DTYPES = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float16", "float32", "float64"),
)
_NUM_SEEDS = 1 << 32
_MAX_WINDOW = 1 << 16  # pixels
_BAND_KEYS = ("std", "band_names", "bands", "scale_offset", "seen")
_SAME_LENGTH = {  # lists that belong together
    "class_colors": "class_names",
    **dict.fromkeys(_BAND_KEYS, "mean"),
}
_OPTIONAL = (  # earlier versions didn't write them
    *("zero_is_nodata", "temperature", "threshold"),
    *("scale_offset", "seen", "trained_on"),
)


def check_metadata(content: object, file: Path) -> tuple[str, ...]:
    """Check the metadata of a checkpoint file: names, types, ranges and matching lengths.

    Args:
        content: value of METADATA_KEY in the file.
        file: named in errors.

    Returns:
        Notes for the user: keys of a later version, which are ignored.

    Raises:
        CheckpointError: names the key, the value and what was expected.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: not a checkpoint of geo_seg (it has no metadata of a training run)")
    version = content.get("format")
    if type(version) is not int or version != FORMAT:
        raise CheckpointError(
            f"{file}: written in format {_repr(version)}, this geo_seg reads format {FORMAT}"
        )
    missing = [name for name in RULES if name not in content and name not in _OPTIONAL]
    if missing:
        raise CheckpointError(
            f"{file}: its metadata lack {', '.join(missing)}; expected a checkpoint of a training run"
        )
    _check_values(content, file)
    unknown = [_repr(key) for key in content if key not in RULES and key != "format"]
    if not unknown:
        return ()
    return (f"{file}: has unknown keys {', '.join(unknown)}, which are ignored",)


def _check_values(content: Mapping[str, Any], file: Path) -> None:
    for name, (expected, is_valid) in RULES.items():
        if name in content and not is_valid(content[name]):
            raise CheckpointError(f"{file}: {name}={_repr(content[name])}: expected {expected}")
    for name, reference in _SAME_LENGTH.items():
        values, length = content.get(name), len(content[reference])
        if values is not None and len(values) != length:
            raise CheckpointError(f"{file}: {name} has {len(values)} entries, {reference} has {length}")
    if content["mode"] == "binary" and len(content["class_names"]) != 2:
        raise CheckpointError(
            f"{file}: a binary model of {len(content['class_names'])} classes, expected 2 (background first)"
        )
    _check_model(content["model"], file)


def _check_model(model: Mapping[str, Any], file: Path) -> None:
    """Check the model against geo_seg's own and those that the user has imported: none is imported for it."""
    modules = own_modules()
    module = model.get("module")
    if module is not None and module not in modules and model["name"] not in registered_models(modules):
        raise CheckpointError(
            f"{file}: its model {_repr(model['name'])} is from the module {_repr(module)}, which is only "
            "imported if you name it, since it is code: module=... of inference.py, +model.module=... "
            "of train.py"
        )
    try:
        check_model(model, modules)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_int(value: object, low: int, high: float) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: object, low: float = -_MAX_NUMBER, high: float = _MAX_NUMBER) -> TypeGuard[float]:
    return (type(value) is int or type(value) is float) and low <= value <= high  # NaN is in no range


def _is_list(value: object, min_length: int, is_valid: Callable[[object], bool]) -> TypeGuard[list[object]]:
    return isinstance(value, list) and len(value) >= min_length and all(map(is_valid, value))


def _are_classes(value: object) -> bool:
    return _is_list(value, 2, _is_text) and len(set(value)) == len(value)


def _is_color(value: object) -> bool:
    return _is_list(value, 3, lambda part: _is_int(part, 0, 255)) and len(value) == 3


def _is_band(value: object) -> bool:
    return _is_text(value) or _is_int(value, 1, math.inf)


def _are_pairs(value: object) -> bool:
    return value is None or _is_list(value, 1, lambda pair: _is_list(pair, 2, _is_number) and len(pair) == 2)


def _is_model(value: object) -> bool:
    if not isinstance(value, dict) or not is_plain_data(value) or not _is_text(value.get("name")):
        return False
    return all(_is_text(value[key]) for key in ("encoder", "module") if value.get(key) is not None)


def _is_config(value: object) -> bool:
    if not isinstance(value, dict) or not is_plain_data(value):
        return False
    return all(is_valid(value[key]) for key, is_valid in _CONFIG_RULES.items() if key in value)


_CONFIG_RULES: dict[str, Callable[[object], bool]] = {  # of the keys that are read
    "seed": lambda value: _is_int(value, 0, _NUM_SEEDS - 1),
    "compile": lambda value: isinstance(value, bool),
    "loss": lambda value: isinstance(value, dict) and _is_text(value.get("name")),
    "dataset": lambda value: isinstance(value, dict),
}
RULES: dict[str, tuple[str, Callable[[object], bool]]] = {
    "mode": ("binary or multiclass", lambda value: _is_text(value) and value in ("binary", "multiclass")),
    "class_names": ("two names or more, all different", _are_classes),
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
    "dtype": (f"one of {', '.join(_DTYPES)}", lambda value: _is_text(value) and value in _DTYPES),
    "mean": ("a finite number for each band", lambda value: _is_list(value, 1, _is_number)),
    "std": (
        "a finite number above 0 for each band",
        lambda value: _is_list(value, 1, lambda number: _is_number(number, _MIN_POSITIVE)),
    ),
    "window": (
        f"pixels from 1 to {_MAX_WINDOW}",
        lambda value: _is_int(value, 1, _MAX_WINDOW),
    ),
    "model": ("name and options of the model", _is_model),
    "config": ("the configuration of a training run, in plain values", _is_config),
    "versions": (
        "the version of each program",
        lambda value: isinstance(value, dict) and is_plain_data(value) and all(map(_is_text, value.values())),
    ),
    "zero_is_nodata": ("true or false", lambda value: isinstance(value, bool)),
    "temperature": (
        "a finite number above 0",
        lambda value: _is_number(value, _MIN_POSITIVE),
    ),
    "threshold": (
        "a number between 0 and 1",
        lambda value: _is_number(value, _MIN_POSITIVE, 1) and value < 1,
    ),
    "scale_offset": ("null, or two finite numbers for each band", _are_pairs),
    "seen": ("null, or two finite numbers for each band", _are_pairs),
    "trained_on": ("a text for each training scene", lambda value: _is_list(value, 0, _is_text)),
}
"""Per key of the metadata, what is expected and a check of the value."""


def _repr(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
