"""The class table: names, colours and values, from what masks or polygons hold and legends say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from geo_seg.begin.labels.legends import Entry, Legend, Value, best_legend, is_ignored_name
from geo_seg.begin.labels.mask_values import MAX_CLASSES, MaskLook
from geo_seg.begin.labels.polygon_values import PolygonLook
from geo_seg.begin.words import SPLIT_WORDS, tokens
from geo_seg.errors import DataError

_USUAL_IGNORED = (255, -1, -9999, -32768, 65535)
_BINARY = 2
_PLAIN_WORDS = {
    *("mask", "masks", "msk", "label", "labels", "gt", "gts", "truth", "ground", "groundtruth", "seg", "lbl"),
    *("annotation", "annotations", "target", "targets"),
    *SPLIT_WORDS,
}
"""Words in names of labels that are no name of a class."""


@dataclass
class ClassRow:
    """A class for the YAML.

    Attributes:
        name: its name.
        values: in masks, or of the attribute.
        color: "#rrggbb", or None for the default.
        share: of the labelled pixels or polygons that were looked at.
        guess: why the name is a guess; "" if a legend or attribute gives it.
    """

    name: str
    values: list[Value]
    color: str | None
    share: float
    guess: str = ""


@dataclass
class ClassPlan:
    """Keys about classes.

    Attributes:
        mode: "binary" or "multiclass".
        rows: the classes.
        ignored: mask values without a label.
        why_ignored: evidence for them.
        ignored_guess: whether that is a guess.
        notes: what is to be said about the masks.
    """

    mode: str
    rows: list[ClassRow]
    ignored: list[Value] = field(default_factory=list)
    why_ignored: str = ""
    ignored_guess: bool = False
    notes: list[str] = field(default_factory=list)


def classes_of_masks(look: MaskLook, legends: Sequence[Legend], family: str) -> ClassPlan:
    """Return the class table for masks.

    Args:
        look: their values.
        legends: that lie in the folder.
        family: what the masks are called, see Candidate.

    Raises:
        DataError: there is only one value.
    """
    values = sorted(look.counts, key=lambda value: (isinstance(value, str), value))
    legend = best_legend(legends, values, family)
    entries: dict[Value, Entry] = {}
    if legend:
        entries |= legend.by_value()
        entries |= legend.by_color()
    plan = ClassPlan("", [])
    _ignore(plan, look, legend, entries, values)
    if (
        legend and look.kind == "values" and len(legend.entries) <= MAX_CLASSES
    ):  # what a legend lists and no mask shows is a class, too
        values = sorted({*values, *legend.by_value()}, key=int)
    elif legend and look.kind == "colors":
        values = [*values, *(color for color in legend.by_color() if color not in values)]
        values = [
            value for value in values if not (value in entries and is_ignored_name(entries[value].name))
        ]
    values = [
        value for value in values if value not in plan.ignored and value != _nodata(look, entries, values)
    ]
    values = [v for v in values if not (v in entries and is_ignored_name(entries[v].name))]
    if len(values) < _BINARY:
        listed = ", ".join(f"{value} ({n} px)" for value, n in look.counts.most_common(4)) or "nothing"
        raise DataError(
            f"the masks hold {listed}: one class at most, and two are needed; expected masks with a value or "
            "colour for each class"
        )
    total = sum(look.counts[value] for value in values) or 1
    plan.mode = "binary" if len(values) == _BINARY else "multiclass"
    plan.rows = [
        _row(value, entries.get(value), look, look.counts[value] / total, binary_name)
        for value, binary_name in zip(values, _binary_names(values, family), strict=True)
    ]
    if legend:
        plan.notes.append(f"class names are those of {legend.source}")
    return plan


def classes_of_polygons(look: PolygonLook, family: str) -> ClassPlan:
    """Return the class table for polygons.

    Args:
        look: attribute and values.
        family: name of the file.
    """
    values = sorted((value for value in look.counts if value != ""), key=lambda v: (isinstance(v, str), v))
    total = sum(look.counts.values()) or 1
    if look.attribute is None or len(values) == 1:
        words = [token for token in tokens(family) if token.isalpha() and token.lower() not in _PLAIN_WORDS]
        name = str(values[0]) if look.attribute else (words[0].lower() if len(words) == 1 else "object")
        return ClassPlan(
            "binary",
            [
                ClassRow(
                    "background" if name != "background" else "other",
                    [0],
                    None,
                    0.0,
                    "what no polygon covers",
                ),
                ClassRow(
                    name,
                    [1] if look.attribute is None else [*values],
                    None,
                    1.0,
                    "named after the file" if look.attribute is None else "",
                ),
            ],
        )
    plan = ClassPlan("binary" if len(values) == _BINARY else "multiclass", [])
    names: set[str] = set()
    for value in values:
        name = "".join(c for c in str(value) if c.isprintable() and c not in "${}").strip() or "unnamed"
        if is_ignored_name(name):
            plan.ignored.append(value)
            plan.why_ignored = "its name says that it is no label"
            continue
        guess = "" if isinstance(value, str) else "the attribute holds numbers only"
        name = name if isinstance(value, str) else f"class_{name}"
        while name in names:
            name += "_"
        names.add(name)
        plan.rows.append(ClassRow(name, [value], None, look.counts[value] / total, guess))
    if look.counts.get(""):
        plan.ignored.append("")
        plan.why_ignored = f"{look.counts['']} polygons without a value"
    plan.mode = "binary" if len(plan.rows) == _BINARY else "multiclass"
    if len(plan.rows) < _BINARY:
        raise DataError(
            f"{look.attribute}: only {len(plan.rows)} value names a class; take another --attribute"
        )
    return plan


def _nodata(look: MaskLook, entries: Mapping[Value, Entry], values: Sequence[Value]) -> Value | None:
    """Return the declared nodata value, unless it must be a class."""
    if look.nodata is None or look.nodata in entries:
        return None
    left = [value for value in values if value != look.nodata and value not in _USUAL_IGNORED]
    return look.nodata if len(left) >= _BINARY else None


def _ignore(
    plan: ClassPlan,
    look: MaskLook,
    legend: Legend | None,
    entries: Mapping[Value, Entry],
    values: Sequence[Value],
) -> None:
    by_name = [value for value in values if value in entries and is_ignored_name(entries[value].name)]
    by_index = [
        value for value in (legend.ignore if legend else ()) if value not in by_name and value not in entries
    ]
    if legend and (by_name or by_index):
        plan.ignored, plan.why_ignored = [*by_name, *by_index], f"{legend.source} says so"
        return
    usual = [
        value for value in values if value in _USUAL_IGNORED and value not in entries and value != look.nodata
    ]
    classes = [value for value in values if value not in usual]
    if usual and len(classes) >= _BINARY:
        plan.ignored, plan.ignored_guess = [*usual], True
        plan.why_ignored = f"the usual mark of pixels without a label, beside {len(classes)} other values"


def _binary_names(values: Sequence[Value], family: str) -> list[str | None]:
    """Return names for two classes without a legend, None for each of more."""
    if len(values) != _BINARY:
        return [None] * len(values)
    words = [token.lower() for token in tokens(family) if token.isalpha()]
    own = [word for word in words if word not in _PLAIN_WORDS]
    return ["background", own[-1] if own and own[-1] != "background" else "foreground"]


def _row(
    value: Value, entry: Entry | None, look: MaskLook, share: float, binary_name: str | None
) -> ClassRow:
    color = entry.color if entry else None
    if isinstance(value, str):
        color = value
    elif color is None:
        color = look.palette.get(value)
    if entry:
        return ClassRow(entry.name, [value], color, share)
    name = binary_name or f"class_{str(value).lstrip('#').replace('-', 'minus_')}"
    return ClassRow(name, [value], color, share, "no legend names it")
