"""Memory of the process: freed memory kept for the next request, imports without garbage collection."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OPTIONS = (  # of mallopt, in glibc's malloc.h
    (-4, 0),  # M_MMAP_MAX: no piece is taken from the system by itself, to be given back by itself
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: what is free stays
    (-8, 1),  # M_ARENA_MAX: and is there for all threads
)


def tune_malloc() -> None:
    """Has this process keep the memory that it frees, for what it asks for next.

    A model on a CPU asks for the same hundreds of megabytes with every batch. glibc takes large pieces from
    the system and gives them back each time, and the system fills them with zeros each time, which can take a
    fifth of the time. Other C libraries stay as they are.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for option, value in _OPTIONS:
                mallopt(option, value)


@contextmanager
def gc_frozen() -> Iterator[None]:
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
