"""A split that doesn't leak: what the folder says, else places, else blocks of few big scenes."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePosixPath

from geo_seg.begin.images import ImageLook
from geo_seg.begin.listing import Listing
from geo_seg.begin.places import group_by, groups_in_names, largest_apart, overlapping
from geo_seg.begin.words import SPLIT_WORDS, parts_of, split_of_part, tokens
from geo_seg.begin.yaml_text import counted
from geo_seg.data.scenes.listing import list_positions, read_list
from geo_seg.errors import DataError
from geo_seg.raster.reader import RasterInfo

_PLACE_WORDS = {
    "location",
    "group",
    "place",
    "site",
    "region",
    "city",
    "area",
    "aoi",
    "tile",
    "scene",
    "block",
    "fold",
}
_FEW_PLACES = 4  # from which on whole places are held out, however large they are
_BIG_SIDE = 256  # pixels, of scenes that are cut into blocks rather than held out whole
_MIN_BLOCKS, _MANY_BLOCKS = 8, 30
_WINDOWS = (256, 128, 64, 32, 16)
_ROLE_FOLDERS = ("image", "images", "img", "imgs", "rgb", "sat", "satellite", *SPLIT_WORDS)
_MAX_TEXTS = 50


@dataclass
class SplitPlan:
    """Keys of dataset.split.

    Attributes:
        keys: values by key.
        why: what it rests on.
        guess: whether it is a guess.
        kept: images that are left, if not all may be used; None for all.
        places: place of each image, to be written as a table; None if none is needed.
        notes: what is to be said about it.
        window: side of windows that the blocks ask for; None otherwise.
        by_split: split of each image where the folder says it and no key can.
        globs: of the images of each split, where globs say it.
    """

    keys: dict[str, object]
    why: str
    guess: bool = True
    kept: list[str] | None = None
    places: dict[str, str] | None = None
    notes: list[str] = field(default_factory=list)
    window: int | None = None
    by_split: dict[str, str] | None = None
    globs: Mapping[str, Sequence[str]] = field(default_factory=dict)


def plan_split(listing: Listing, names: Sequence[str], look: ImageLook) -> SplitPlan:
    """Choose a split of images.

    Args:
        listing: the folder.
        names: paths of the (first) image of each scene.
        look: what the images hold.

    Raises:
        DataError: one small image can't be divided.
    """
    groups = overlapping(look.headers)
    plan = _by_folders(names) or _by_lists(listing, names)
    if plan:
        _warn_of_overlaps(plan, names, groups)
        return plan
    plan = _by_table(listing, names) or _by_places(names, look, groups)
    return plan or _by_blocks(look, groups)


def _by_folders(names: Sequence[str]) -> SplitPlan | None:
    """Return the split that folders or beginnings of names say: train, val, test."""
    parts = [parts_of(name) for name in names]
    depth = min(map(len, parts))
    for level in range(depth):
        column = [row[level] for row in parts]
        of_names = [split_of_part(part) for part in column]
        splits = {split for split in of_names if split}
        if None in of_names or len(splits) < 2 or "train" not in splits:
            continue
        before = "".join(
            "*/" if len({row[i] for row in parts}) > 1 else f"{parts[0][i]}/" for i in range(level)
        )
        is_folder = all(len(row) > level + 1 for row in parts)
        globs = {
            split: sorted(
                {
                    _split_glob(before, part, is_folder)
                    for part, s in zip(column, of_names, strict=True)
                    if s == split
                }
            )
            for split in splits
        }
        by_split = {name: split for name, split in zip(names, of_names, strict=True) if split}
        exact = all(
            any(fnmatch(name, glob) for glob in globs[split]) == (by_split[name] == split)
            for name in names
            for split in splits
        )
        return _existing_split(
            globs, by_split, exact, "train, val and test are in the names of folders or files"
        )
    return None


def _split_glob(before: str, part: str, is_folder: bool) -> str:
    if is_folder:
        return f"{before}{part}/*"
    words = tokens(part)
    return f"{before}{words[0]}*" if words[0].lower() in SPLIT_WORDS else f"{before}*{words[-1]}.*"


def _existing_split(
    globs: Mapping[str, Sequence[str]], by_split: dict[str, str], exact: bool, why: str
) -> SplitPlan:
    held = {split: [*globs[split]] for split in globs}
    notes = []
    if "val" not in held:
        held["val"] = held.pop("test")
        notes.append("there is no val: test takes its place, so the score is that of the best epoch on it")
        by_split = {name: "val" if split == "test" else split for name, split in by_split.items()}
    if not exact:
        return SplitPlan({"by": "manifest"}, why, False, notes=notes, by_split=by_split)
    keys: dict[str, object] = {"by": "pattern", "test": None}
    keys |= {split: listed[0] if len(listed) == 1 else listed for split, listed in held.items()}
    return SplitPlan(keys, why, False, notes=notes, globs=held)


def _by_lists(listing: Listing, names: Sequence[str]) -> SplitPlan | None:
    files: dict[str, str] = {}
    covered: set[str] = set()
    for text in sorted(listing.texts, key=lambda name: (name.count("/"), name))[:_MAX_TEXTS]:
        split = split_of_part(PurePosixPath(text).stem)
        if split and split not in files and text.endswith(".txt"):
            try:
                listed = read_list(listing.path(text), split, names, strict=True)
            except (DataError, OSError):
                continue
            if listed:
                files[split] = text
                covered |= {*listed}
    if not {"val", "test"} & {*files} or ("train" in files and len(covered) < len(names) / 2):
        return None
    notes = []
    if "val" not in files:
        files["val"] = files.pop("test")
        notes.append("there is no list of val: that of test takes its place")
    keys: dict[str, object] = {"by": "list", "train": None, "test": None}
    keys |= files
    return SplitPlan(keys, f"{', '.join(files.values())} list the images", False, notes=notes)


def _by_table(listing: Listing, names: Sequence[str]) -> SplitPlan | None:
    """Return a split by a CSV that names the place of each image."""
    for text in [name for name in listing.texts if name.endswith(".csv")][:_MAX_TEXTS]:
        try:
            with listing.path(text).open(encoding="utf-8-sig", newline="") as file:
                header = next(csv.reader(file), [])
            columns = [
                name for name in header[1:] if {token.lower() for token in tokens(name)} & _PLACE_WORDS
            ]
            for column in columns:
                places = list_positions(listing.path(text), column, names)
                if 3 <= len({*places.values()}) < len(names):
                    keys = {"by": "fraction", "val": 0.2, "test": 0.2, "table": text, "column": column}
                    why = f"{text} gives the {column} of each image: {len({*places.values()})} of them"
                    return SplitPlan(keys, f"{why}; images of one stay together")
        except (DataError, OSError, UnicodeDecodeError, csv.Error):
            continue
    return None


def _by_places(names: Sequence[str], look: ImageLook, groups: Sequence[Sequence[str]]) -> SplitPlan | None:
    """Return a split by places, if there are enough of them."""
    named = groups_in_names(names, _ROLE_FOLDERS) if len(names) > 1 else None
    place = {name: name for name in names}
    why = "no two images share a place by their names"
    if named and (members := group_by(named[0], names)):
        place = {name: key for key, group in members.items() for name in group}
        why = f"{named[1]}: {len(members)} places, whose images stay together"
    apart = all(len({place[name] for name in group}) == 1 for group in groups)
    if not apart:
        place = _merged(place, groups)
        why = "images that show the same ground stay together"
    count = len({*place.values()})
    if count < 2 or (count <= _FEW_PLACES and look.sides[0] >= _BIG_SIDE and len(names) <= _FEW_PLACES):
        return None
    keys: dict[str, object] = {"by": "fraction", "val": 0.2, "test": 0.2 if count > 2 else None}
    if named and apart:
        keys["group"] = named[0]
    plan = SplitPlan(keys, why)
    if count == 2:
        plan.notes.append("there are two places only: one trains, one validates, none is left for test")
    if not apart:
        plan.places = place
    return plan


def _merged(place: Mapping[str, str], groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return places that are one where images of both show the same ground."""
    alias = {key: key for key in place.values()}

    def find(key: str) -> str:
        while alias[key] != key:
            key = alias[key]
        return key

    for group in groups:
        for name in group[1:]:
            alias[find(place[name])] = find(place[group[0]])
    return {name: find(key) for name, key in place.items()}


def _by_blocks(look: ImageLook, groups: Sequence[Sequence[str]]) -> SplitPlan:
    kept = largest_apart(look.headers, groups)
    headers = [look.headers[name] for name in kept]
    window = next((side for side in _WINDOWS if _blocks(headers, 2 * side) >= _MIN_BLOCKS), None)
    if window is None:
        sizes = ", ".join(f"{header.width} x {header.height}" for header in headers[:3])
        raise DataError(
            f"{len(headers)} images of {sizes} pixels cannot be divided into train and val; add images"
        )
    factor = next((n for n in (4, 3) if _blocks(headers, n * window) >= _MANY_BLOCKS), 2)
    keys = {"by": "blocks", "val": 0.2, "test": 0.2, "block": factor * window}
    plan = SplitPlan(keys, f"few images: parts of them of {factor * window} px are held out", window=window)
    if len(kept) < len(look.headers):
        left = sorted({*look.headers} - {*kept})
        plan.kept = kept
        plan.notes.append(
            f"{counted(len(left), 'image')} of ground that another one shows, left out: "
            f"{', '.join(left[:5])}; parts held out of one would be trained on in another"
        )
    return plan


def _blocks(headers: Sequence[RasterInfo], side: int) -> int:
    return sum(max(round(h.height / side), 1) * max(round(h.width / side), 1) for h in headers)


def _warn_of_overlaps(plan: SplitPlan, names: Sequence[str], groups: Sequence[Sequence[str]]) -> None:
    split_of = {
        name: split
        for split, globs in plan.globs.items()
        for glob in globs
        for name in names
        if fnmatch(name, glob)
    }
    for group in groups if split_of else ():
        if len({split_of.get(name) for name in group}) > 1:
            plan.notes.append(
                f"{group[0]} and {group[1]} show the same ground in different splits: training will stop and "
                "name them; see allow_leakage"
            )
            return
