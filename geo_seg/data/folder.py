"""The folder of what is made once of a data set and kept between runs."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geo_seg.errors import DataError


def cache_folder(chosen: str | None) -> Path:
    """The folder; it need not exist.

    Args:
        chosen: by the configuration; None takes geo_seg in $XDG_CACHE_HOME or ~/.cache.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen or Path(home) / "geo_seg").expanduser().absolute()


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file that appears only when it is complete, whoever else writes it at the same time.

    Args:
        path: of the file; its folder is made.
        write: writes the file that it is given.

    Raises:
        DataError: the folder can't be written to.
    """
    part = path.with_name(f".{os.getpid()}_{threading.get_ident()}_{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); see dataset.cache_dir"
        ) from error
