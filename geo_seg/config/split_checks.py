"""Checks of `dataset.split`, before torch is imported."""

import re
from collections.abc import Iterator

from geo_seg.config.dataset import SplitConfig
from geo_seg.config.fields import errors_of
from geo_seg.errors import ConfigError

_METHODS_BY_KEY = {  # of keys that only some values of `by` use
    "train": ("pattern", "list"),
    "group": ("fraction",),
    "table": ("fraction",),
    "column": ("fraction",),
    "block": ("blocks",),
}


def split_errors(split: SplitConfig) -> Iterator[ConfigError]:
    """Yield the keys of a split that aren't valid for its `by`, or contradict each other."""
    for message in keys_of_other_methods(split).values():
        yield ConfigError(message)
    if not split.balance and split.by != "blocks":
        yield ConfigError(f"dataset.split.balance=false: is for dataset.split.by=blocks, not {split.by}")
    if split.by == "blocks" and split.block is None:
        yield ConfigError(
            f"dataset.split.block={split.block}: expected the side of a block in {split.unit}, some windows"
        )
    if (split.table is None) != (split.column is None):
        yield ConfigError(
            f"dataset.split.table={split.table} column={split.column}: expected a CSV and one of its "
            "columns, or neither"
        )
    if split.group is not None:
        yield from errors_of(lambda: _check_group(split))


def keys_of_other_methods(split: SplitConfig) -> dict[str, str]:
    """Return the keys that are for another value of `by`, each with its error message."""
    messages = {}
    for key, methods in _METHODS_BY_KEY.items():
        if getattr(split, key) is not None and split.by not in methods:
            messages[key] = (
                f"dataset.split.{key}={getattr(split, key)}: is for dataset.split.by={' or '.join(methods)}, "
                f"not {split.by}"
            )
    for key in ("train", "val", "test"):
        expected = _expected(split.by, getattr(split, key))
        if expected and key not in messages:
            messages[key] = (
                f"dataset.split.{key}={getattr(split, key)!r}: expected {expected}, "
                f"because of dataset.split.by={split.by}"
            )
    return messages


def _check_group(split: SplitConfig) -> None:
    if split.table is not None:
        raise ConfigError(f"dataset.split.group={split.group}: {split.table} says that, too; leave one out")
    try:
        re.compile(str(split.group))
    except re.error as error:
        raise ConfigError(f"dataset.split.group={split.group}: no regular expression ({error})") from error


def _expected(by: str, value: object) -> str | None:
    """Return what train, val or test should be for a value of `by`; None if the value is valid."""
    if value is None or by == "manifest":
        return None
    if by == "pattern":
        globs = value if isinstance(value, list) else [value]
        fits, expected = bool(globs), "a glob or a list of globs"
        fits = fits and all(isinstance(glob, str) for glob in globs)
    elif by == "list":
        fits, expected = isinstance(value, str), "a text file with an image per line"
    else:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
        expected = "a share of the scenes, 0 to below 1"
    return None if fits else expected
