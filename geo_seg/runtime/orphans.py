"""Child processes that end when their parent has ended. No torch in here.

A sweep starts runs, a run starts ranks, torchrun starts ranks. When the parent is killed it can't stop them:
they would continue to train in a folder that the same command then needs, or wait half an hour for each
other. So each of them polls the number of its parent. A pipe would react at once, but torchrun passes none
on, and PR_SET_PDEATHSIG exists on Linux only; the number of the parent exists on every POSIX system. On
Windows it never changes, so that an orphan trains on until it ends by itself.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, MutableMapping

PARENT = "GEO_SEG_PARENT"
"""Environment variable with the number of the process that a child ends with."""

GRACE = 45.0
"""Seconds that an orphan has to write its checkpoint."""

_POLL_SECONDS = 1.0


def adopt(environment: MutableMapping[str, str]) -> None:
    """Mark an environment so that processes started with it end with this one."""
    environment[PARENT] = str(os.getpid())


def end_with_parent() -> None:
    """End this process when its parent has ended, if a sweep, a run or torchrun has started it.

    It gets SIGTERM first, as when a user stops a run, and SIGKILL after GRACE seconds.
    """
    number = os.environ.pop(PARENT, None)
    if number is None and "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    parent = os.getppid() if number is None else int(number)
    threading.Thread(target=_watch, args=(parent, _end), daemon=True, name="parent").start()


def _watch(parent: int, end: Callable[[], None]) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # SIGTERM kills on Windows
