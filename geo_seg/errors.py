"""Errors that are answers: what was found, what was expected, what to do; one line each."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any


class GeoSegError(Exception):
    """Something that the user can mend; printed as one line, without a traceback."""


class ConfigError(GeoSegError):
    """A key, a name or a value of the configuration does not fit."""


class IncompatibleChoiceError(ConfigError):
    """A choice that exists but is not for this data; a sweep over all choices leaves it out."""


class DataError(GeoSegError):
    """Images, masks or rasters do not fit what the configuration says of them."""


class TrainingError(GeoSegError):
    """Training cannot go on: the loss is no longer a number, or the disk is full."""


class SweepError(GeoSegError):
    """Runs of a sweep failed; the others are there."""


class CheckpointError(GeoSegError):
    """A checkpoint is missing, broken, or not one of geo_seg's."""


def missing_extra(name: str) -> str:
    """How a part of geo_seg that isn't installed is installed, as a shell takes it."""
    return f"not installed; pip install 'geo-seg[{name}]'"


OnError = Callable[[GeoSegError], Any]
"""What becomes of something wrong with one of many files: raised, or collected, and the file left out."""


def raise_error(error: GeoSegError) -> None:
    """Raises the error: the usual Wrong."""
    raise error


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The hint that ends a message about an unknown name.

    Args:
        name: what was given.
        names: what there is.

    Returns:
        "did you mean X? There is: A, B, C" or, with no name near, only the list.
    """
    known = sorted(str(n) for n in names)
    close = get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}There is: {', '.join(known) or 'nothing'}"


def first_line(error: Exception) -> str:
    """The first line of an error's text that says something, with the next one if it ends in a colon.

    An error without a text is named by its type.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])
