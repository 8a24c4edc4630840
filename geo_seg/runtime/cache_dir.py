"""The folder of files that are computed once per data set and kept between runs."""

import os
from collections.abc import Callable
from pathlib import Path

from geo_seg.errors import DataError
from geo_seg.runtime.files import atomic_write, expand_user


def cache_dir(configured: str | None) -> Path:
    """Return the absolute path of the cache folder; it need not exist.

    Args:
        configured: `dataset.cache_dir`; None for geo_seg in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        ConfigError: the path begins with ~, and this user has no home folder.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = expand_user(configured or str(Path(home) / "geo_seg"))
    return Path(folder).absolute()


def write_cache_file(path: Path, content: bytes | Callable[[Path], object]) -> None:
    """Write a file of the cache folder atomically, safe against other processes that write it too.

    Args:
        path: of the file; its folder is created.
        content: bytes, or a function that writes to the path it receives.

    Raises:
        DataError: the folder isn't writable, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content, concurrent=True)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); see dataset.cache_dir"
        ) from error
