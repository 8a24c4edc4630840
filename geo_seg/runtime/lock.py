"""Locks of run folders and maps; the system releases them however the process ends."""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from geo_seg.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOCK_FILE = ".lock"
_MAPS_LOCK_FILE = ".maps.lock"


@contextmanager
def folder_lock(folder: Path, conflict: str = "another process is training there") -> Iterator[None]:
    """Lock a folder while the block runs.

    Args:
        folder: created if it doesn't exist.
        conflict: text of the error if another process holds the lock.

    Raises:
        ConfigError: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    with (folder / _LOCK_FILE).open("ab") as file:
        if not _acquire(file, tries=3):  # a process that only asks holds it for a moment
            raise ConfigError(f"{folder}: {conflict}; wait for it, or choose another folder")
        yield


def is_unlocked(folder: Path) -> bool:
    """Return whether it is certain that no process holds the lock of a folder."""
    return _probe(folder) is True


def is_locked(folder: Path) -> bool:
    """Return whether it is certain that a process holds the lock of a folder."""
    return _probe(folder) is False


def _probe(folder: Path) -> bool | None:
    """Return whether a folder is unlocked; None if the system can't tell."""
    if fcntl is None:
        return None
    try:
        with (folder / _LOCK_FILE).open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:  # never locked
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _acquire(file: IO[bytes], tries: int) -> bool:
    """Lock a file; return False if another process holds it."""
    for left in reversed(range(tries)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1 if left else 0)
        except OSError:  # a file system without locks
            return True
        else:
            return True
    return False


@contextmanager
def maps_lock(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Lock maps of a folder while the block runs; other processes may write other maps there.

    Each name locks one byte of one file, so that thousands of maps need one file handle. The last process
    that holds a map deletes the file.

    Args:
        folder: of the maps.
        names: of the maps.

    Raises:
        ConfigError: another process writes one of them.
    """
    file = _lock_names(folder / _MAPS_LOCK_FILE, names)
    try:
        yield
    finally:
        if file is not None:
            with file, suppress(OSError):
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # all of it: no other process holds a map
                (folder / _MAPS_LOCK_FILE).unlink()


def _lock_names(path: Path, names: Sequence[str]) -> IO[bytes] | None:
    """Return the open file with a lock for each name; None if it can't be created or opened."""
    while fcntl is not None:
        try:
            file = path.open("ab")
        except OSError:
            return None
        try:
            for name in names:
                offset = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except (BlockingIOError, PermissionError) as error:
            file.close()
            raise ConfigError(
                f"output={path.parent}: another process is making the map {name} there; wait for it, or "
                "choose another folder"
            ) from error
        except FileNotFoundError:
            pass
        except OSError:  # a file system without locks
            return file
        file.close()  # its last holder has deleted it in between
    return None
