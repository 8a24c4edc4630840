"""Images whose bands lie in a file each: which files belong together, and in which order."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from geo_seg.begin.listing import Listing
from geo_seg.errors import DataError
from geo_seg.raster.georeference import same_grid
from geo_seg.raster.reader import RasterInfo, read_info

_CODE = re.compile(r"b(?:and)?0*(\d{1,2})(a?)")
_WORDS = [
    "coastal",
    "r",
    "red",
    "g",
    "green",
    "b",
    "blue",
    "yellow",
    "rededge",
    "re1",
    "re2",
    "re3",
    "n",
    "nir",
    "nir1",
    "nir2",
    "pan",
    "swir",
    "swir1",
    "swir2",
    "swir16",
    "swir22",
    "tir",
]
_SEPARATORS = re.compile(r"([^A-Za-z\d]+)")
_MIN_BANDS = 2


@dataclass
class BandFiles:
    """Images in several files.

    Attributes:
        bands: words for the bands, as the first image's files have them, in order.
        images: files of each image in that order, by its name without a word for a band.
        notes: what is left out.
    """

    bands: list[str]
    images: dict[str, tuple[str, ...]]
    notes: list[str] = field(default_factory=list)


def find_band_files(listing: Listing, names: Iterable[str]) -> BandFiles | None:
    """Group rasters whose names differ in the word for a band alone.

    Args:
        listing: the folder.
        names: rasters that are no masks.

    Returns:
        None unless half of them or more are such groups of rasters with a single band.
    """
    groups: dict[str, dict[str, str]] = {}
    total = 0
    for name in names:
        total += 1
        split = _split_band(name)
        if split:
            groups.setdefault(split[0], {})[split[1]] = name
    groups = {key: files for key, files in groups.items() if len(files) >= _MIN_BANDS}
    if not groups or sum(map(len, groups.values())) < total / 2:
        return None
    counts = Counter(band for files in groups.values() for band in files)
    bands = sorted((band for band, n in counts.items() if n > len(groups) / 2), key=_position)
    complete = {key: files for key, files in groups.items() if {*bands} <= {*files}}
    if len(bands) < _MIN_BANDS or not complete:
        return None
    bands, notes = _bands_on_one_grid(listing, next(iter(complete.values())), bands)
    if len(bands) < _MIN_BANDS:
        return None
    if incomplete := sorted({*groups} - {*complete}):
        notes.append(f"{len(incomplete)} images lack a band and are left out, {incomplete[0]} first")
    stacks = {key: tuple(files[band] for band in bands) for key, files in sorted(complete.items())}
    return BandFiles(bands, stacks, notes)


def band_globs(glob: str, band: str, bands: Iterable[str]) -> list[str] | None:
    """Return the globs of all bands, from that of one band; None if it doesn't hold the word for the band."""
    chunks = _SEPARATORS.split(glob)
    if band.lower() not in (chunk.lower() for chunk in chunks):
        return None
    return ["".join(other if chunk.lower() == band.lower() else chunk for chunk in chunks) for other in bands]


def _split_band(name: str) -> tuple[str, str] | None:
    """Return a path without the word for its band, and that word."""
    base, dot, suffix = name.rpartition(".")
    chunks = _SEPARATORS.split(base)
    words = [chunk for chunk in chunks if _CODE.fullmatch(chunk.lower()) or chunk.lower() in _WORDS]
    if not words:
        return None
    kept = "".join("" if chunk.lower() == words[-1].lower() else chunk for chunk in chunks)
    plain = "/".join(re.sub(r"[_\-. ]{2,}", "_", part).strip("_-. ") for part in kept.split("/"))
    nameless = plain == "" or plain.endswith(
        "/"
    )  # the folder is the scene's, the file is called after its band
    return f"{plain}{'image' if nameless else ''}{dot}{suffix}", words[-1]


def _position(band: str) -> tuple[int, int, str]:
    code = _CODE.fullmatch(band.lower())
    if code:
        return int(code[1]), len(code[2]), band
    return _WORDS.index(band.lower()), 0, band


def _bands_on_one_grid(
    listing: Listing, files: dict[str, str], bands: list[str]
) -> tuple[list[str], list[str]]:
    """Return the bands on the grid that most of the first image's bands have, and a note on the others."""
    headers: dict[str, RasterInfo] = {}
    for band in bands:
        try:
            header = read_info(listing.path(files[band]))
        except DataError:
            continue
        if len(header.bands) == 1:
            headers[band] = header
    fits = {
        band: [b for b, other in headers.items() if same_grid(header, other)]
        for band, header in headers.items()
    }
    if not fits:
        return [], []
    best = max(fits, key=lambda band: (len(fits[band]), headers[band].width))
    left = [band for band in bands if band not in fits[best]]
    note = f"bands {', '.join(left)} have another grid than {best}: bring them to one grid to use them"
    return fits[best], [note] if left else []
