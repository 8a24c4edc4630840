"""Files that are whole or not there: written beside their place, and moved to it."""

import os
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geo_seg.errors import ConfigError


def expand_user(value: Any) -> Any:
    """A path, or a list of paths, with the home folder in place of ~: a shell doesn't expand it after a =.

    Raises:
        ConfigError: there is no such home folder.
    """
    if isinstance(value, list):
        return [expand_user(path) for path in value]
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    try:
        return str(Path(value).expanduser())
    except RuntimeError as error:
        raise ConfigError(
            f"{value}: there is no home folder to begin at; set HOME (or "
            "dataset.cache_dir, for what is kept between runs)"
        ) from error


def atomic_write(
    path: Path, content: str | bytes | Callable[[Path], Any], *, concurrent: bool = False, fsync: bool = False
) -> None:
    """Writes a file; whoever reads it finds the old one or the new one, never half of one.

    Args:
        path: of the file; its folder must exist.
        content: text, bytes, or what writes the file under the name that it is given.
        concurrent: whether others may write it at the same time, on this machine or another one.
        fsync: waits until the disk has it, so that not even a power cut leaves half of it.

    Raises:
        OSError: the disk doesn't take it; what was there before is still there.
    """
    part = temp_path(path, concurrent=concurrent)
    try:
        if callable(content):
            content(part)
        else:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
        if fsync:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def temp_path(path: Path, *, concurrent: bool) -> Path:
    """Where a file is written before it gets its name.

    Args:
        path: of the file.
        concurrent: a name that nobody else chooses, on any machine; else one and the same, so that
            what a killed process leaves is written over.
    """
    mark = f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}." if concurrent else ""
    return path.with_name(f".{path.name}.{mark}part")
