"""Errors of losses, and suggestions for unknown names."""

from collections.abc import Iterable
from difflib import get_close_matches


class LossError(ValueError):
    """A loss, an option or a task is invalid; one line with what was found and what was expected."""


class ClassWeightsError(LossError):
    """The task has class weights, which the loss can't use."""


def did_you_mean(given: object, names: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the most similar one, and all valid ones.

    Args:
        given: the unknown name.
        names: all valid names.

    Returns:
        "; did you mean 'b'? Available: a, b, c", or "; available: a, b, c" if no name is similar.
    """
    available = sorted(names)
    matches = get_close_matches(str(given), available, n=1, cutoff=0.5)
    listed = ", ".join(available) or "nothing"
    return f"; did you mean {matches[0]!r}? Available: {listed}" if matches else f"; available: {listed}"
