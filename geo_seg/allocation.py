"""Memory that is asked for again and again."""

import ctypes
import sys

_OPTIONS = (  # of mallopt, in glibc's malloc.h
    (-4, 0),  # M_MMAP_MAX: no piece is taken from the system by itself, to be given back by itself
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: what is free stays
    (-8, 1),  # M_ARENA_MAX: and is there for all threads
)


def keep_freed_memory() -> None:
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
