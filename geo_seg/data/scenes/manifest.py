"""Manifest: a CSV or GeoJSON file with image, label, split and area of interest of every scene."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from geo_seg.errors import DataError
from geo_seg.raster.paths import check_below_root, container_of, gdal_path, is_remote, relocate

SEPARATOR = ";"
"""Separates the files of one cell if the bands of an image lie in several files."""

_COLUMNS = ("image", "label", "split", "aoi")
_SPLITS = {"train": "train", "trn": "train", "val": "val", "test": "test", "tst": "test"}


@dataclass(frozen=True)
class Row:
    """One scene of a manifest; see SceneFiles.

    Attributes:
        images: files of the image.
        mask: file of the labels.
        aoi: file of the area of interest, or None.
        split: "train", "val", "test", or None.
    """

    images: tuple[str, ...]
    mask: str
    aoi: str | None
    split: str | None


def read_manifest(root: Path, name: str, outside: bool) -> list[Row]:
    """Read a manifest.

    A CSV has a header with image and label and, optionally, split and aoi; without a header its columns are
    image, label and split. The features of a GeoJSON have properties of these names.

    Args:
        root: folder to which relative paths refer.
        name: path of the manifest below root.
        outside: whether the manifest and its files may lie outside of root, or be remote.

    Raises:
        DataError: the manifest can't be read, or a row is invalid; names the line.
    """
    path = root / name
    if not path.is_file():
        raise DataError(f"{path}: no such file; see dataset.manifest")
    if not outside:
        check_below_root(path, root, f"dataset.manifest={name}")
    read_rows = _geojson_rows if path.suffix.lower() in {".geojson", ".json"} else _csv_rows
    rows = [_parse_row(root, values, location, outside) for location, values in read_rows(path)]
    if not rows:
        raise DataError(f"{path}: the manifest names no image")
    return rows


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    with path.open("rb") as file:
        # decoded line by line, so that a message can name the line that is not UTF-8
        reader = csv.reader(_decode_lines(file, path), strict=True)
        header: list[str] | None = None
        while True:
            location = f"{path} line {reader.line_num + 1}"
            try:
                cells = [cell.strip() for cell in next(reader)]
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(f"{location}: cannot be read as CSV ({error})") from error
            if not any(cells):
                continue
            if header is None:
                has_header = "image" in map(str.lower, cells)
                header = [cell.lower() for cell in cells] if has_header else list(_COLUMNS[:3])
                _check_commas(cells, location)
                _check_header(header, location)
                if has_header:
                    continue
            if len(cells) != len(header) and not (len(cells) == 2 and header == list(_COLUMNS[:3])):
                raise DataError(
                    f"{location}: {len(cells)} columns, expected {len(header)} ({', '.join(header)}); other "
                    "columns need a header with image and label"
                )
            yield location, dict(zip(header, cells, strict=False))


def _decode_lines(lines: Iterator[bytes] | object, path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):  # type: ignore[arg-type,var-annotated]
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} line {number}: not UTF-8 text; save the manifest as UTF-8") from error


def _check_commas(cells: list[str], location: str) -> None:
    """Raise an error if columns are separated by semicolons or tabs, as some spreadsheets write them."""
    parts = re.split("[;\t]", cells[0])
    if len(cells) == 1 and len(parts) > 1:
        separator = "tabs" if "\t" in cells[0] else "semicolons"
        raise DataError(
            f"{location}: {separator} between the columns, expected commas; save the manifest with these"
        )


def _check_header(header: list[str], location: str) -> None:
    for column in _COLUMNS:
        similar = get_close_matches(column, [name.lower() for name in header], n=1, cutoff=0.75)
        if column not in header and (similar or column in _COLUMNS[:2]):
            hint = f"did you mean {similar[0]!r}?" if similar else f"available: {', '.join(header)}"
            raise DataError(f"{location}: no column {column!r}; {hint}")


def _geojson_rows(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {error.lineno}: not JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; save the manifest as UTF-8") from error
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list):
        raise DataError(f"{path}: not a GeoJSON FeatureCollection; it has no list of features")
    for number, feature in enumerate(features, 1):
        location = f"{path} feature {number}"
        properties = feature.get("properties") if isinstance(feature, dict) else None
        if not isinstance(properties, dict):
            raise DataError(f"{location}: no properties, expected {', '.join(_COLUMNS)}")
        _check_header(list(properties), location)
        yield (
            location,
            {key: "" if value is None else str(value).strip() for key, value in properties.items()},
        )


def _parse_row(root: Path, values: Mapping[str, str], location: str, outside: bool) -> Row:
    for column in _COLUMNS[:2]:
        if not values[column]:
            raise DataError(f"{location}: the column {column} is empty")
    split = values.get("split") or None
    if split is not None and split.lower() not in _SPLITS:
        raise DataError(f"{location}: split {split!r}; expected train (trn), val or test (tst)")

    def file(cell: str) -> str:
        return _resolve_file(root, cell.strip(), location, outside)

    return Row(
        images=tuple(map(file, filter(str.strip, values["image"].split(SEPARATOR)))),
        mask=file(values["label"]),
        aoi=_optional_file(file, values.get("aoi")),
        split=_SPLITS[split.lower()] if split else None,
    )


def _optional_file(file: Callable[[str], str], cell: str | None) -> str | None:
    return file(cell) if cell else None


def _resolve_file(root: Path, cell: str, location: str, outside: bool) -> str:
    remote = is_remote(cell)
    path = cell if remote else relocate(cell, root / os.path.normpath(container_of(cell)))
    if not outside:
        check_below_root(path, root, f"{location}: {cell}")
    if remote:
        return gdal_path(cell)
    if not Path(container_of(path)).exists():
        raise DataError(f"{location}: {container_of(path)}: no such file")
    return path
