"""Imports without the search for garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """What is made within it is kept for good: never searched for garbage, now or later.

    For the imports of large libraries: of their million objects none is garbage, and going through them over
    and over takes a fifth of the time of importing them. Only the first time in a process: later there is
    nothing left to import, and the garbage of an earlier training would be kept for good.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
