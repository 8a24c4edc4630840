"""The folder of what is made once of a data set and kept between runs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geo_seg.errors import DataError
from geo_seg.runtime.files import atomic_write, expand_user


def cache_dir(chosen: str | None) -> Path:
    """The folder; it need not exist.

    Args:
        chosen: by the configuration; None takes geo_seg in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        ConfigError: it is in the home folder, and this user has none.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = expand_user(chosen or str(Path(home) / "geo_seg"))
    return Path(folder).absolute()


def write_cache_file(path: Path, content: bytes | Callable[[Path], Any]) -> None:
    """Writes a file of the folder, whoever else writes it at the same time.

    Args:
        path: of the file; its folder is made.
        content: what it holds, or what writes the file that it is given.

    Raises:
        DataError: the folder can't be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content, concurrent=True)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); see dataset.cache_dir"
        ) from error
