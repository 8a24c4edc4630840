"""Lists and tables of images: names in text and CSV files, resolved to unique scenes."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from geo_seg.errors import DataError, did_you_mean


def read_list(path: Path, key: str, names: Sequence[str], strict: bool) -> list[str]:
    """Read a text file with one image per line.

    Args:
        path: the file.
        key: key of dataset.split that names the file.
        names: names of the images, paths below root.
        strict: raise an error for a line that is none of the images; else skip it.

    Returns:
        Names in the order of the lines, without duplicates.

    Raises:
        DataError: the file can't be read, or a line matches no image or several.
    """
    aliases = _names_by_alias(names)
    listed: dict[str, None] = {}
    for line in filter(None, map(str.strip, _read_lines(path, key))):
        name = _resolve(line, aliases, path)
        if name is None and strict:
            raise DataError(
                f"{path}: {line!r} is none of the {len(names)} images; {did_you_mean(line, aliases)[:80]}"
            )
        if name is not None:
            listed[name] = None
    return [*listed]


def list_positions(path: Path, column: str | None, names: Sequence[str]) -> Mapping[str, str]:
    """Read the location of each image from a CSV whose first column names the images.

    Args:
        path: the file.
        column: name of the column with the location.
        names: names of the images, paths below root.

    Returns:
        Location by image name.

    Raises:
        DataError: the file can't be read, an image has no row or two contradictory ones, or a row matches
            several images.
    """
    reader = csv.DictReader(_read_lines(path, "table"))
    header = list(reader.fieldnames or [])
    if column not in header:
        raise DataError(f"{path}: no column {column!r}; {did_you_mean(str(column), header)}")
    aliases = _names_by_alias(names)
    positions: dict[str, str] = {}
    for row in reader:
        name, position = _resolve(row[header[0]].strip(), aliases, path), row[column]
        if name is not None and positions.setdefault(name, position) != position:
            raise DataError(f"{path}: {name} is in both {positions[name]!r} and {position!r} of {column}")
    missing = [name for name in names if name not in positions]
    if missing:
        raise DataError(
            f"{path}: no row for {missing[0]} ({len(missing)} of {len(names)} images; its first column holds "
            "the names)"
        )
    return positions


def _names_by_alias(names: Sequence[str]) -> dict[str, list[str]]:
    """Return image names by alias: path or name of the file, with or without its suffix."""
    names_by_alias: dict[str, list[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        for alias in dict.fromkeys((name, str(path.with_suffix("")), path.name, path.stem)):
            names_by_alias.setdefault(alias, []).append(name)
    return names_by_alias


def _resolve(alias: str, names_by_alias: Mapping[str, list[str]], path: Path) -> str | None:
    matches = names_by_alias.get(alias, [])
    if alias in matches:  # a full path is unambiguous, even if it is an alias of another image
        return alias
    if len(matches) > 1:
        more = f" and {len(matches) - 2} more" if matches[2:] else ""
        raise DataError(
            f"{path}: {alias!r} is ambiguous: {matches[0]} or {matches[1]}{more}; write such paths "
            "instead of names"
        )
    return matches[0] if matches else None


def _read_lines(path: Path, key: str) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; see dataset.split.{key}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin it with a BOM
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    return text.splitlines(keepends=True)
