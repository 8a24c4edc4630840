"""Errors of losses, and the nearest name to a wrong one."""

from collections.abc import Iterable
from difflib import get_close_matches


class LossError(ValueError):
    """A loss, an option or a task does not fit; one line with what was given and what was expected."""


class ClassWeightsError(LossError):
    """The task has class weights, and the loss has no place for them."""


def did_you_mean(given: object, names: Iterable[str]) -> str:
    """What ends a message about an unknown name: the nearest one, and all that there are."""
    known = sorted(names)
    close = get_close_matches(str(given), known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{hint} There is: {', '.join(known) or 'nothing'}"
