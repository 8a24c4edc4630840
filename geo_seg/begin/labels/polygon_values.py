"""The layer, the attribute and its values of polygons that are labels."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyogrio

from geo_seg.begin.labels.mask_values import MAX_CLASSES
from geo_seg.begin.listing import Listing
from geo_seg.errors import DataError, did_you_mean, first_line

_MAX_FEATURES = 200_000
_MAX_FILES = 50
_CLASS_WORDS = re.compile(
    r"class|type|label|name|categ|cover|lulc|landuse|land_use|kind|code|species|crop|level|niveau", re.I
)
_NO_CLASS_WORDS = re.compile(
    r"(^|_)(id|fid|uuid|gid|index|date|time|year|area|length|source|user|comment)($|_)", re.I
)


@dataclass
class PolygonLook:
    """What vector files of labels hold.

    Attributes:
        layer: of the polygons, if the first file has several layers.
        attribute: with the classes; None if no attribute looks like it.
        counts: polygons of each of its values; "" for missing ones.
        others: other attributes that may hold classes, with their number of values.
        polygons: how many there are.
        problem: why these are no labels; "" if they may be.
    """

    layer: str | None = None
    attribute: str | None = None
    counts: Counter[int | str] = field(default_factory=Counter)
    others: dict[str, int] = field(default_factory=dict)
    polygons: int = 0
    problem: str = ""


def look_at_polygons(listing: Listing, names: Sequence[str], attribute: str | None) -> PolygonLook:
    """Return what the vector files hold, the first of them if there are many.

    Args:
        listing: the folder.
        names: vector files.
        attribute: choice of the attribute; None for what looks most like classes.

    Raises:
        DataError: there is no such attribute.
    """
    look = PolygonLook()
    try:
        layers = [
            (str(n), str(kind)) for n, kind in pyogrio.list_layers(listing.path(names[0])) if kind is not None
        ]
        fitting = [
            layer for layer, kind in layers if "Polygon" in kind or kind in {"Unknown", "GeometryCollection"}
        ]
        if not fitting:
            kinds = ", ".join(sorted({kind for _, kind in layers})) or "nothing"
            return PolygonLook(problem=f"{names[0]} holds {kinds}; expected polygons")
        sizes = {
            layer: pyogrio.read_info(listing.path(names[0]), layer=layer)["features"] for layer in fitting
        }
        layer = max(fitting, key=lambda layer: sizes[layer])
        look.layer = layer if len(layers) > 1 else None
        columns = _columns(listing, names, look.layer)
    except (RuntimeError, ValueError) as error:  # what pyogrio raises derives from RuntimeError
        return PolygonLook(problem=f"{names[0]}: cannot be read ({first_line(error)})")
    look.polygons = (
        sizes[layer] if len(names) == 1 else max((sum(c.values()) for c in columns.values()), default=0)
    )
    if attribute is not None and attribute not in columns:
        raise DataError(f"{names[0]}: no attribute {attribute!r}; {did_you_mean(attribute, columns)}")
    fit = {name: counts for name, counts in columns.items() if _may_be_classes(name, counts, look.polygons)}
    order = sorted(
        fit, key=lambda name: (not _CLASS_WORDS.search(name), not _is_text(fit[name]), len(fit[name]))
    )
    look.attribute = attribute or (order[0] if order else None)
    look.counts = columns[look.attribute] if look.attribute else Counter({1: look.polygons})
    look.others = {name: len(fit[name]) for name in order if name != look.attribute}
    if len(look.counts) > MAX_CLASSES:
        look.problem = f"{look.attribute} of {names[0]} has {len(look.counts)} values, too many for classes"
    return look


def extent_of(listing: Listing, name: str) -> tuple[tuple[float, ...], str | None] | None:
    """Return the bounds of a vector file's largest layer, and their CRS; None if it doesn't tell."""
    path = listing.path(name)
    try:
        layers = [str(layer) for layer, kind in pyogrio.list_layers(path) if kind is not None]
        infos = [pyogrio.read_info(path, layer=layer, force_total_bounds=True) for layer in layers]
    except (RuntimeError, ValueError):
        return None
    info: dict[str, Any] = max(infos, key=lambda info: info["features"], default={})
    bounds = info.get("total_bounds")
    return None if bounds is None else (tuple(map(float, bounds)), info.get("crs"))


def _columns(listing: Listing, names: Sequence[str], layer: str | None) -> dict[str, Counter[int | str]]:
    columns: dict[str, Counter[int | str]] = {}
    for name in names[:_MAX_FILES]:
        meta, _, _, data = pyogrio.raw.read(
            listing.path(name), layer=layer, read_geometry=False, max_features=_MAX_FEATURES
        )
        for column, values in zip(meta["fields"], data, strict=True):
            columns.setdefault(str(column), Counter()).update(map(_plain, values))
    return columns


def _plain(value: object) -> int | str:
    """Return an attribute's value as the class table has it."""
    if value is None or (isinstance(value, float) and np.isnan(value)) or value == "":
        return ""
    if isinstance(value, bool | np.bool_):
        return str(value)
    if isinstance(value, int | np.integer):
        return int(value)
    return str(value)


def _is_text(counts: Counter[int | str]) -> bool:
    return all(isinstance(value, str) for value in counts)


def _may_be_classes(name: str, counts: Counter[int | str], polygons: int) -> bool:
    known = {value for value in counts if value != ""}
    unique = len(known) == polygons > 2
    texts = [value for value in known if isinstance(value, str)]
    numbers = [text for text in texts if re.fullmatch(r"-?\d+\.\d+(e[+-]?\d+)?", text)]
    return (
        bool(known)
        and len(known) <= MAX_CLASSES
        and not unique
        and not numbers
        and not _NO_CLASS_WORDS.search(name)
    )
