"""Exceptions of the losses, and the hint that ends a message about an unknown name."""

from collections.abc import Iterable
from difflib import get_close_matches


class LossError(ValueError):
    """A loss, an option or a task is invalid; one line with what was given and what was expected."""


class ClassWeightsError(LossError):
    """The task has class weights, and the loss cannot use them."""


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest name, and all available ones.

    Args:
        name: what was given.
        names: the available names.

    Returns:
        "; did you mean 'x'? Available: x, y" or, with no name near, ". Available: x, y".
    """
    available = sorted(names)
    matches = get_close_matches(str(name), available, n=1, cutoff=0.5)
    hint = f"; did you mean {matches[0]!r}?" if matches else "."
    return f"{hint} Available: {', '.join(available) or 'nothing'}"
