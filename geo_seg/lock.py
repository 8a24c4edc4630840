"""A run folder belongs to one process at a time; the system frees it however that process ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geo_seg.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FILE = ".lock"


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
