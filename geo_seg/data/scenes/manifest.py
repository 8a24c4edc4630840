"""Manifests: a CSV or GeoJSON file that names image, label, split and area of interest of every scene."""

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
"""Between the files of one cell, where the bands of an image lie in several files."""

_COLUMNS = ("image", "label", "split", "aoi")
_SPLITS = {"train": "train", "trn": "train", "val": "val", "test": "test", "tst": "test"}


@dataclass(frozen=True)
class Row:
    """What a manifest says of one scene; see Source.

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
    """Reads a manifest.

    A CSV has a header with image and label, and split and aoi where wanted; without a header its columns are
    image, label and split. The features of a GeoJSON have properties of these names.

    Args:
        root: the folder that relative paths start from.
        name: the manifest's path below root.
        outside: whether it may lie outside of root itself, and name files that do, or remote ones.

    Raises:
        DataError: it can't be read, or a row doesn't fit; tells the line.
    """
    path = root / name
    if not path.is_file():
        raise DataError(f"{path}: no such file; see dataset.manifest")
    if not outside:
        check_below_root(path, root, f"dataset.manifest={name}")
    read = _geojson_rows if path.suffix.lower() in {".geojson", ".json"} else _csv_rows
    rows = [_row(root, values, at, outside) for at, values in read(path)]
    if not rows:
        raise DataError(f"{path}: the manifest names no image")
    return rows


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    with path.open("rb") as file:
        # bytes that are no UTF-8 are found with the line that they stand in
        reader = csv.reader(_decoded(file, path), strict=True)
        header: list[str] | None = None
        while True:
            at = f"{path} line {reader.line_num + 1}"
            try:
                cells = [cell.strip() for cell in next(reader)]
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(f"{at}: cannot be read as CSV ({error})") from error
            if not any(cells):
                continue
            if header is None:
                named = "image" in map(str.lower, cells)
                header = [cell.lower() for cell in cells] if named else list(_COLUMNS[:3])
                _check_commas(cells, at)
                _check_header(header, at)
                if named:
                    continue
            if len(cells) != len(header) and not (len(cells) == 2 and header == list(_COLUMNS[:3])):
                raise DataError(
                    f"{at}: {len(cells)} columns, expected {len(header)} ({', '.join(header)}); other "
                    "columns need a header with image and label"
                )
            yield at, dict(zip(header, cells, strict=False))


def _decoded(lines: Iterator[bytes] | object, path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):  # type: ignore[arg-type,var-annotated]
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} line {number}: not UTF-8 text; save the manifest as UTF-8") from error


def _check_commas(cells: list[str], at: str) -> None:
    """Tells of columns that something else than a comma divides, as some spreadsheets write them."""
    parts = re.split("[;\t]", cells[0])
    if len(cells) == 1 and len(parts) > 1:
        sign = "tabs" if "\t" in cells[0] else "semicolons"
        raise DataError(f"{at}: {sign} between the columns, expected commas; save the manifest with these")


def _check_header(header: list[str], at: str) -> None:
    for column in _COLUMNS:
        near = get_close_matches(column, [name.lower() for name in header], n=1, cutoff=0.75)
        if column not in header and (near or column in _COLUMNS[:2]):
            hint = f"is {near[0]!r} meant?" if near else f"there is: {', '.join(header)}"
            raise DataError(f"{at}: no column {column!r}; {hint}")


def _geojson_rows(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {error.lineno}: not JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; save the manifest as UTF-8") from error
    features = found.get("features") if isinstance(found, dict) else None
    if not isinstance(features, list):
        raise DataError(f"{path}: not a GeoJSON FeatureCollection; it has no list of features")
    for number, feature in enumerate(features, 1):
        at = f"{path} feature {number}"
        properties = feature.get("properties") if isinstance(feature, dict) else None
        if not isinstance(properties, dict):
            raise DataError(f"{at}: no properties, expected {', '.join(_COLUMNS)}")
        _check_header(list(properties), at)
        yield at, {key: "" if value is None else str(value).strip() for key, value in properties.items()}


def _row(root: Path, values: Mapping[str, str], at: str, outside: bool) -> Row:
    for column in _COLUMNS[:2]:
        if not values[column]:
            raise DataError(f"{at}: the column {column} is empty")
    split = values.get("split") or None
    if split is not None and split.lower() not in _SPLITS:
        raise DataError(f"{at}: split {split!r}; expected train (trn), val or test (tst)")

    def file(cell: str) -> str:
        return _file(root, cell.strip(), at, outside)

    return Row(
        images=tuple(map(file, filter(str.strip, values["image"].split(SEPARATOR)))),
        mask=file(values["label"]),
        aoi=_if_there(file, values.get("aoi")),
        split=_SPLITS[split.lower()] if split else None,
    )


def _if_there(file: Callable[[str], str], cell: str | None) -> str | None:
    return file(cell) if cell else None


def _file(root: Path, cell: str, at: str, outside: bool) -> str:
    remote = is_remote(cell)
    path = cell if remote else relocate(cell, root / os.path.normpath(container_of(cell)))
    if not outside:
        check_below_root(path, root, f"{at}: {cell}")
    if remote:
        return gdal_path(cell)
    if not Path(container_of(path)).exists():
        raise DataError(f"{at}: {container_of(path)}: no such file")
    return path
