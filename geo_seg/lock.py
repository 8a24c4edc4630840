"""A run folder or a map belongs to one process at a time; the system frees it however that process ends."""

import hashlib
import os
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
def held(folder: Path) -> Iterator[None]:
    """Holds a folder as long as the block lasts.

    Args:
        folder: made if it isn't there.

    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    with (folder / _FILE).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{folder}: another process is training there; wait for it, or choose another folder"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield


def is_free(folder: Path) -> bool:
    """Whether it is certain that no process holds a folder."""
    if fcntl is None:
        return False
    try:
        with (folder / _FILE).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def maps_held(folder: Path, names: Sequence[str]) -> Iterator[None]:
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
