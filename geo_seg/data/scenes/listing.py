"""What lists and tables call images: never one name for several of them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from geo_seg.errors import DataError, did_you_mean


def read_list(path: Path, key: str, names: Sequence[str], strict: bool) -> list[str]:
    """Read a text file with an image per line.

    Args:
        path: of the file.
        key: of dataset.split that names it.
        names: of the images, paths below root.
        strict: refuse a line that is none of the images; else it is left out.

    Returns:
        Names, in the order of the lines, each once.

    Raises:
        DataError: the file can't be read, or a line is no image or several.
    """
    called = _by_call(names)
    found: dict[str, None] = {}
    for line in filter(None, map(str.strip, _lines(path, key))):
        name = _called(line, called, path)
        if name is None and strict:
            raise DataError(
                f"{path}: {line!r} is none of the {len(names)} images; {did_you_mean(line, called)[:80]}"
            )
        if name is not None:
            found[name] = None
    return [*found]


def list_positions(path: Path, column: str | None, names: Sequence[str]) -> Mapping[str, str]:
    """Read where images lie from a CSV whose first column names them.

    Args:
        path: of the file.
        column: that says where.
        names: of the images, paths below root.

    Returns:
        What the column says, by name.

    Raises:
        DataError: the file can't be read, an image has no row or two that differ, or a row means several.
    """
    reader = csv.DictReader(_lines(path, "table"))
    head = list(reader.fieldnames or [])
    if column not in head:
        raise DataError(f"{path}: no column {column!r}; {did_you_mean(str(column), head)}")
    called = _by_call(names)
    found: dict[str, str] = {}
    for row in reader:
        name, place = _called(row[head[0]].strip(), called, path), row[column]
        if name is not None and found.setdefault(name, place) != place:
            raise DataError(f"{path}: {name} is both in {found[name]!r} and {place!r} of {column}")
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"{path}: no row for {missing[0]} ({len(missing)} of {len(names)} images; its first column holds "
            "the names)"
        )
    return found


def _by_call(names: Sequence[str]) -> dict[str, list[str]]:
    """Names of images by what they may be called: path or name of the file, with its suffix or without."""
    called: dict[str, list[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        for call in dict.fromkeys((name, str(path.with_suffix("")), path.name, path.stem)):
            called.setdefault(call, []).append(name)
    return called


def _called(call: str, called: Mapping[str, list[str]], path: Path) -> str | None:
    found = called.get(call, [])
    if call in found:  # a whole path means that image, whatever else is called so
        return call
    if len(found) > 1:
        more = f" and {len(found) - 2} more" if found[2:] else ""
        raise DataError(
            f"{path}: {call!r} may be {found[0]} or {found[1]}{more}; write such paths in place of names"
        )
    return found[0] if found else None


def _lines(path: Path, key: str) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; see dataset.split.{key}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin it with a BOM
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    return text.splitlines(keepends=True)
