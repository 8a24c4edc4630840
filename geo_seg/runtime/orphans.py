"""Processes of a run end with the one that started them. No torch in here.

A sweep starts runs, a run starts ranks, torchrun starts ranks. When the parent is killed it can't stop them:
they would go on training in a folder that the same command then wants, or wait half an hour for each other.
So each of them looks at who its parent is. A pipe would tell at once, but torchrun hands none over, and
PR_SET_PDEATHSIG is Linux alone; the number of the parent is there on every POSIX system.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, MutableMapping

PARENT = "GEO_SEG_PARENT"
"""Environment variable with the number of the process that a process ends with."""

GRACE = 45.0
"""Seconds that an orphan has to write its checkpoint."""

_POLL = 1.0  # seconds between two looks


def adopt(environment: MutableMapping[str, str]) -> None:
    """Has the processes that are started with an environment end with this one."""
    environment[PARENT] = str(os.getpid())


def end_with_parent() -> None:
    """Ends this process when its parent has ended, if a sweep, a run or torchrun has started it.

    It is told by SIGTERM, as by whoever stops a run, and killed when that is of no use.
    """
    told = os.environ.pop(PARENT, None)
    if told is None and "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    parent = os.getppid() if told is None else int(told)
    threading.Thread(target=_watch, args=(parent, _end), daemon=True, name="parent").start()


def _watch(parent: int, end: Callable[[], None]) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)
    end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
