"""The files of a folder, listed once: rasters, vector files, and texts that may say what classes are."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from geo_seg.errors import DataError

RASTER_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".vrt", ".img", ".bmp")
VECTOR_SUFFIXES = (".gpkg", ".geojson", ".shp", ".fgb", ".gml", ".kml")
_TEXT_SUFFIXES = (".json", ".txt", ".csv")
_MAX_FILES = 1_000_000


@dataclass
class Listing:
    """Files below a folder, as paths below it with /, sorted.

    Attributes:
        root: the folder.
        rasters: files that look like rasters by their suffix.
        vectors: likewise vector files.
        texts: tables, lists and legends.
        others: number of other files by suffix.
        unreadable: subfolders that couldn't be listed.
    """

    root: Path
    rasters: list[str] = field(default_factory=list)
    vectors: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)

    def path(self, name: str) -> Path:
        """Return the path of a file of the listing."""
        return self.root / name

    def describe(self) -> str:
        """Return how many files of which kind there are."""
        counts = Counter(Path(name).suffix.lower() for name in (*self.rasters, *self.vectors, *self.texts))
        counts.update(self.others)
        listed = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in counts.most_common(5))
        return listed or "no files"


def is_vector_name(name: str) -> bool:
    """Return whether a path looks like a vector file by its suffix."""
    return name.lower().endswith(VECTOR_SUFFIXES)


def list_folder(folder: Path) -> Listing:
    """List all files below a folder; hidden ones are left out.

    Raises:
        DataError: it is no folder, can't be read, or holds more than a million files.
    """
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
    if not is_folder:
        what = "is a file" if exists else "no such folder"
        raise DataError(f"{folder}: {what}; give the folder that holds the images and labels")
    root = folder.resolve()
    listing = Listing(root)

    def note_error(error: OSError) -> None:
        if Path(str(error.filename)) == root:
            raise DataError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
        listing.unreadable.append(Path(str(error.filename)).relative_to(root).as_posix())

    visited: set[str] = set()
    files = 0
    for parent, folders, names in os.walk(root, onerror=note_error, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:  # a link that leads back
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(filter(_is_shown, folders))
        below = "" if parent == str(root) else f"{Path(parent).relative_to(root).as_posix()}/"
        files += len(names)
        if files > _MAX_FILES:
            raise DataError(f"{folder}: more than {_MAX_FILES:,} files; give the folder of one data set")
        for name in filter(_is_shown, names):
            _add(listing, f"{below}{name}")
    for found in (listing.rasters, listing.vectors, listing.texts, listing.unreadable):
        found.sort()
    return listing


def _is_shown(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))


def is_text(name: str) -> bool:
    """Return whether a path can stand in a file of UTF-8: others come with bytes that are none."""
    return name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name)


def _add(listing: Listing, name: str) -> None:
    if not is_text(name):
        listing.others["with a name that is not UTF-8"] += 1
        return
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - of many names, and five times as fast
    if suffix in RASTER_SUFFIXES:
        listing.rasters.append(name)
    elif suffix in VECTOR_SUFFIXES:
        listing.vectors.append(name)
    elif suffix in _TEXT_SUFFIXES:
        listing.texts.append(name)
    else:
        listing.others[suffix] += 1
