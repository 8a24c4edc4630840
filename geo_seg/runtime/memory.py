"""Memory of the process: malloc settings, and imports without garbage collection."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MALLOC_OPTIONS = (  # parameter and value of mallopt, see glibc's malloc.h
    (-4, 0),  # M_MMAP_MAX: large blocks come from the heap, so that none goes back to the OS by itself
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: the heap doesn't shrink
    (-8, 1),  # M_ARENA_MAX: all threads share one heap
)


def tune_malloc() -> None:
    """Stop glibc from returning freed memory to the OS.

    A model on a CPU allocates the same hundreds of megabytes for every batch. glibc takes large blocks from
    the OS and returns them each time, and the OS fills them with zeros each time, which can take a fifth of
    the time. Does nothing with other C libraries.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for option, value in _MALLOC_OPTIONS:
                mallopt(option, value)


@contextmanager
def gc_frozen() -> Iterator[None]:
    """Disable the garbage collector inside the block and freeze what it created.

    For imports of large libraries: none of their million objects is garbage, and traversing them again and
    again takes a fifth of the import time. It does so only the first time in a process: later there is
    nothing left to import, and garbage of an earlier training would be kept forever.
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
