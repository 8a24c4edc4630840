"""Errors that are printed as one line: what was found, what was expected, what to do."""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches


class GeoSegError(Exception):
    """An error that the user can fix; printed as one line, without a traceback."""


class ConfigError(GeoSegError):
    """A key, a name or a value of the configuration is invalid."""


class MultipleConfigError(ConfigError):
    """Several errors of a configuration, printed one a line.

    Args:
        errors: 2 or more.
    """

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors


class IncompatibleChoiceError(ConfigError):
    """A choice that exists but doesn't suit this data; a sweep over all choices skips it."""


class DataError(GeoSegError):
    """Images, masks or rasters contradict the configuration, or can't be read."""


class TrainingError(GeoSegError):
    """Training can't continue: the loss is not finite, or the disk is full."""


class SweepError(GeoSegError):
    """Runs of a sweep failed; the other runs are complete."""


class CheckpointError(GeoSegError):
    """A checkpoint is missing, broken, or not from geo_seg."""


def missing_extra(name: str) -> str:
    """Return the end of a message about an optional dependency: that it is missing, and how to install it."""
    return f"not installed; pip install 'geo-seg[{name}]'"


OnError = Callable[[GeoSegError], object]
"""Callback for an error in one of many files; it raises, or records the error so that the file is skipped."""


def raise_error(error: GeoSegError) -> None:
    """Raise the error: the default of OnError."""
    raise error


def did_you_mean(name: object, names: Iterable[object]) -> str:
    """Return the hint that follows "unknown ...; " in a message about an unknown name.

    Args:
        name: the unknown name.
        names: all valid names.

    Returns:
        "did you mean 'b'? Available: a, b, c", or "available: a, b, c" if no name is similar.
    """
    available = sorted(map(str, names))
    matches = get_close_matches(str(name), available, n=1, cutoff=0.5)
    listed = ", ".join(available) or "nothing"
    return f"did you mean {matches[0]!r}? Available: {listed}" if matches else f"available: {listed}"


def first_line(error: Exception) -> str:
    """Return the first non-empty line of an error's text, joined with the next one if it ends in a colon.

    An error without a text is named by its type.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])
