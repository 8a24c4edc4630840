"""Atomic writes, and paths with ~."""

import csv
import io
import os
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geo_seg.errors import ConfigError


def expand_user(value: Any) -> Any:  # the same type, or a list of the same length
    """Replace ~ by the home folder in a path or a list of paths: a shell doesn't expand it after a =.

    Other values are returned as they are.

    Raises:
        ConfigError: this user has no home folder.
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
    path: Path,
    content: str | bytes | Callable[[Path], object],
    *,
    concurrent: bool = False,
    fsync: bool = False,
) -> None:
    """Write a file atomically: a reader finds the old file or the new one, never a part of one.

    Args:
        path: of the file; its folder must exist.
        content: text, bytes, or a function that writes to the path it receives.
        concurrent: whether other processes may write it at the same time, on this machine or another one.
        fsync: whether to wait until the disk has stored it, so that it survives a power cut.

    Raises:
        OSError: the file can't be written; the old one is unchanged.
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


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *, concurrent: bool = False) -> None:
    """Write rows as CSV, atomically; lines end with LF.

    Args:
        path: of the file; its folder must exist.
        rows: values by column; the columns are those of all rows, and a missing value or None is empty.
        concurrent: see atomic_write.

    Raises:
        OSError: writing fails.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue(), concurrent=concurrent)


def temp_path(path: Path, *, concurrent: bool) -> Path:
    """Return where a file is written before it is moved to its path.

    Args:
        path: of the file.
        concurrent: whether the name has to be unique among all processes on all machines; otherwise it is
            always the same, so that what a killed process left is overwritten.
    """
    mark = f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}." if concurrent else ""
    return path.with_name(f".{path.name}.{mark}part")
