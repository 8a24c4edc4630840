"""Names and colours of classes, from legends: JSON, CSV and text files, PAM, QML and colour tables."""

import csv
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from geo_seg.begin.listing import RASTER_SUFFIXES, Listing
from geo_seg.begin.words import tokens
from geo_seg.raster.sidecars import pam_path, qml_path

_T = TypeVar("_T")
Value = int | str
"""Of a mask: a number, or a colour as #rrggbb."""

_LEGEND_WORDS = {
    "class",
    "classes",
    "legend",
    "labels",
    "label",
    "palette",
    "category",
    "categories",
    "codes",
    "dict",
    "metadata",
    "names",
    "classnames",
    "colormap",
    "mapping",
    "codebook",
}
_MAX_BYTES = 1 << 20
_MAX_LEGENDS = 20
_MAX_NAME = 80
_COLUMNS = {
    "name": ("name", "class", "label", "classname", "class_name", "category", "title"),
    "value": ("value", "id", "code", "index", "class_id", "label_id", "pixel", "number", "train_id"),
    "color": ("color", "colour", "hex", "rgb"),
    "red": ("red", "r"),
    "green": ("green", "g"),
    "blue": ("blue", "b"),
}
_IGNORED = re.compile(
    r"(un(labell?ed|known|defined|classified)|void|ignored?|no[_ ]?data|no[_ ]?label|clutter/?ignore)", re.I
)


@dataclass(frozen=True)
class Entry:
    """What a legend says of a class.

    Attributes:
        name: its name.
        value: number in the mask; None if the legend gives none.
        color: "#rrggbb" or None.
    """

    name: str
    value: int | None = None
    color: str | None = None


@dataclass(frozen=True)
class Legend:
    """A table of classes.

    Attributes:
        source: where it was read, for comments.
        entries: its rows.
        ignore: values that it calls ignored.
        topic: name of a table among several in one file.
    """

    source: str
    entries: tuple[Entry, ...]
    ignore: tuple[int, ...] = ()
    topic: str = ""

    def by_value(self) -> dict[Value, Entry]:
        """Return the rows that have a value."""
        return {entry.value: entry for entry in self.entries if entry.value is not None}

    def by_color(self) -> dict[Value, Entry]:
        """Return the rows that have a colour."""
        return {entry.color: entry for entry in self.entries if entry.color is not None}


def is_ignored_name(name: str) -> bool:
    """Return whether a class's name says that its pixels have no label."""
    return _IGNORED.fullmatch(name.strip()) is not None


def best_legend(legends: Iterable[Legend], values: Sequence[Value], family: str) -> Legend | None:
    """Return the legend that names most of a mask's values; its topic decides between equals."""
    words = {token.lower() for token in tokens(family)}

    def score(legend: Legend) -> tuple[float, bool, int]:
        known = {*legend.by_value(), *legend.ignore, *legend.by_color()}
        topical = bool(legend.topic) and legend.topic.lower() in words
        return sum(value in known for value in values) / max(len(values), 1), topical, -len(legend.entries)

    best = max(legends, key=score, default=None)
    return best if best is not None and score(best)[0] > 0.5 else None


def read_legends(listing: Listing, mask: str) -> list[Legend]:
    """Return the legends of a folder, and those beside a mask."""
    legends: list[Legend] = []
    path = listing.path(mask)
    for file, read in ((pam_path(path), _pam), (qml_path(path), _qml)):
        entries = _safely(read, file)
        if entries:
            legends.append(Legend(file.name, tuple(entries)))
    named = [name for name in listing.texts if _LEGEND_WORDS & {t.lower() for t in tokens(Path(name).stem)}]
    for name in sorted(named, key=lambda name: name.count("/"))[:_MAX_LEGENDS]:
        legends += _safely(_READERS[Path(name).suffix.lower()], listing.path(name))
    return [_cleaned(legend) for legend in legends if legend.entries]


def color_table(colors: Mapping[int, Sequence[int]], values: Sequence[int]) -> dict[int, str]:
    """Return the colours that a palette gives some values."""
    return {value: _hex(colors[value]) for value in values if value in colors}


def _safely(read: Callable[[Path], Iterable[_T]], path: Path) -> list[_T]:
    """Return what a reader finds in a file; nothing if it isn't there, is too large or is something else."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return []
        return [*read(path)]
    except (OSError, ValueError, TypeError, LookupError, ET.ParseError, csv.Error, RecursionError):
        return []


def _cleaned(legend: Legend) -> Legend:
    """Return a legend whose names can stand in a YAML: printable, short, without interpolations, unique."""
    seen: set[str] = set()
    entries = []
    for entry in legend.entries:
        name = "".join(c for c in entry.name if c.isprintable() and c not in "${}").strip()[:_MAX_NAME]
        name = name or f"class_{entry.value}"
        while name in seen:
            name += "_"
        seen.add(name)
        entries.append(replace(entry, name=name))
    return replace(legend, entries=tuple(entries))


def _hex(color: object) -> str:
    """Return a colour as #rrggbb.

    Raises:
        ValueError: it is none.
    """
    if isinstance(color, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", color.strip()):
        return color.strip().lower()
    numbers = re.findall(r"\d+", color) if isinstance(color, str) else color
    if not isinstance(numbers, Sequence) or len(numbers) < 3:
        raise ValueError(f"no colour: {color!r}")
    rgb = [int(number) for number in numbers[:3]]
    if not all(0 <= number <= 255 for number in rgb):
        raise ValueError(f"no colour: {color!r}")
    return "#{:02x}{:02x}{:02x}".format(*rgb)


@dataclass
class _Json:
    """Tables in a JSON file.

    Attributes:
        tables: names by value, by topic.
        colors: by name of the class.
        ignore: values that are ignored.
    """

    tables: dict[str, dict[int, str]] = field(default_factory=dict)
    colors: dict[str, str] = field(default_factory=dict)
    ignore: list[int] = field(default_factory=list)


def _json(path: Path) -> Iterator[Legend]:
    content = _Json()
    _walk(json.loads(path.read_text(encoding="utf-8-sig")), "", content)
    for topic, names in content.tables.items():
        entries = [Entry(name, value, content.colors.get(name)) for value, name in sorted(names.items())]
        yield Legend(path.name, tuple(entries), tuple(content.ignore), topic)
    if content.colors and not content.tables:
        yield Legend(path.name, tuple(Entry(name, None, color) for name, color in content.colors.items()))


def _walk(node: object, topic: str, content: _Json) -> None:
    if isinstance(node, list):
        _walk_list(node, topic, content)
    if not isinstance(node, dict):
        return
    numbered = {int(k): v for k, v in node.items() if re.fullmatch(r"-?\d{1,9}", k) and isinstance(v, str)}
    named = {v: k for k, v in node.items() if type(v) is int and not re.fullmatch(r"-?\d+", k)}
    if len(numbered) > 1:
        content.tables[topic] = numbered
        return
    for key, value in node.items():
        if "ignore" in key.lower() and type(value) is int:
            content.ignore.append(value)
        try:
            content.colors[key] = _hex(value)
        except ValueError:
            _walk(value, key, content)
    if len(named) == len(node) > 1:
        content.tables[topic] = named


def _walk_list(node: list[object], topic: str, content: _Json) -> None:
    names = [entry for entry in node if isinstance(entry, str)]
    if len(names) == len(node) > 1 and _LEGEND_WORDS & {*tokens(topic.lower())}:
        content.tables[topic] = dict(enumerate(names))
        return
    rows = [_row({k: str(v) for k, v in entry.items()}) for entry in node if isinstance(entry, dict)]
    entries = [row for row in rows if row is not None and row.value is not None]
    if len(entries) > 1:
        content.tables[topic] = {entry.value: entry.name for entry in entries if entry.value is not None}
        content.colors.update({entry.name: entry.color for entry in entries if entry.color})


def _csv(path: Path) -> Iterator[Legend]:
    text = path.read_text(encoding="utf-8-sig")
    rows = [
        _row(row) for row in csv.DictReader(text.splitlines(), delimiter=";" if ";" in text[:200] else ",")
    ]
    entries = [row for row in rows if row is not None]
    if entries and any(entry.value is not None or entry.color for entry in entries):
        yield Legend(path.name, tuple(entries))


def _row(row: Mapping[str, object]) -> Entry | None:
    """Return the class in a row of a table; None if it has no name, or neither value nor colour."""
    cells = {str(key).strip().lower(): value.strip() for key, value in row.items() if isinstance(value, str)}
    picked = {key: next((cells[c] for c in names if c in cells), "") for key, names in _COLUMNS.items()}
    value = int(picked["value"]) if re.fullmatch(r"-?\d{1,9}", picked["value"]) else None
    color = None
    with suppress(ValueError):
        color = _hex(picked["color"] or [picked["red"], picked["green"], picked["blue"]])
    return Entry(picked["name"], value, color) if picked["name"] and (value is not None or color) else None


def _txt(path: Path) -> Iterator[Legend]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    numbered = [re.fullmatch(r"(-?\d{1,9})\s*[:=,;\t ]\s*(\S.*)", line) for line in lines]
    if lines and all(numbered):
        yield Legend(path.name, tuple(Entry(m[2].strip(), int(m[1])) for m in numbered if m))
    elif (
        1 < len(lines) <= 256
        and not any(line.lower().endswith(RASTER_SUFFIXES) for line in lines)
        and all(len(line) < _MAX_NAME and "/" not in line for line in lines)
    ):
        yield Legend(path.name, tuple(Entry(line, number) for number, line in enumerate(lines)))


_READERS = {".json": _json, ".csv": _csv, ".txt": _txt}


def _pam(path: Path) -> Iterator[Entry]:
    """Yield the classes of an attribute table or of category names in a PAM file."""
    root = ET.parse(path).getroot()  # noqa: S314 - expat limits expansion, and the size is limited
    usages = [int(node.text or 0) for node in root.iterfind(".//GDALRasterAttributeTable/FieldDefn/Usage")]
    rows = [
        [cell.text or "" for cell in row.iterfind("F")]
        for row in root.iterfind(".//GDALRasterAttributeTable/Row")
    ]
    if 2 in usages and ({0, 1, 3, 5} & {*usages}):
        value = next(usages.index(usage) for usage in (5, 3, 0, 1) if usage in usages)
        rgb = [usages.index(usage) for usage in (6, 7, 8) if usage in usages]
        for row in rows:
            color = _hex([row[i] for i in rgb]) if len(rgb) == 3 else None
            yield Entry(row[usages.index(2)], int(float(row[value])), color)
        return
    for number, node in enumerate(root.iterfind(".//CategoryNames/Category")):
        if node.text:
            yield Entry(node.text, number)


def _qml(path: Path) -> Iterator[Entry]:
    """Yield the classes of a QGIS style of values."""
    root = ET.parse(path).getroot()  # noqa: S314 - see _pam
    for node in root.iterfind(".//paletteEntry"):
        if re.fullmatch(r"-?\d{1,9}", node.get("value", "")) and node.get("label"):
            yield Entry(
                node.get("label", ""), int(node.get("value", "0")), _hex(node.get("color", "#000000"))
            )
