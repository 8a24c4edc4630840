"""A folder or a map belongs to one process at a time; the system frees it however that process ends."""

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

_FILE = ".lock"
_MAPS = ".maps.lock"


@contextmanager
def folder_lock(folder: Path, said: str = "another process is training there") -> Iterator[None]:
    """Holds a folder as long as the block lasts.

    Args:
        folder: made if it isn't there.
        said: what the error says of whoever holds it.

    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    with (folder / _FILE).open("ab") as file:
        if not _take(file, tries=3):  # whoever only looks at it holds it for a moment
            raise ConfigError(f"{folder}: {said}; wait for it, or choose another folder")
        yield


def is_unlocked(folder: Path) -> bool:
    """Whether it is certain that no process holds a folder."""
    return _look(folder) is True


def is_locked(folder: Path) -> bool:
    """Whether it is certain that a process holds a folder."""
    return _look(folder) is False


def _look(folder: Path) -> bool | None:
    """Whether a folder is free; None where the system doesn't tell."""
    if fcntl is None:
        return None
    try:
        with (folder / _FILE).open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:  # nobody has ever held it
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _take(file: IO[bytes], tries: int) -> bool:
    """Locks a file; False if another process has it."""
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
    """Hold maps of a folder as long as the block lasts; other processes may make others there.

    Each name locks one byte of one file, so that thousands of maps take one file handle. The file goes with
    the last process that holds a map.

    Args:
        folder: of the maps.
        names: of the maps.

    Raises:
        ConfigError: another process makes one of them.
    """
    file = _claim(folder / _MAPS, names)
    try:
        yield
    finally:
        if file is not None:
            with file, suppress(OSError):
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # all of it: nobody else holds a map
                (folder / _MAPS).unlink()


def _claim(path: Path, names: Sequence[str]) -> IO[bytes] | None:
    """Return the file with a lock for each name; None where the file system has none, or another user's."""
    while fcntl is not None:
        try:
            file = path.open("ab")
        except OSError:
            return None
        try:
            for name in names:
                place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
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
        file.close()  # its last holder has removed it in between
    return None
