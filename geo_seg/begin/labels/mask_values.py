"""The values or colours of masks, from a few of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rasterio.windows
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geo_seg.begin.labels.legends import Value, color_table
from geo_seg.begin.listing import Listing
from geo_seg.begin.yaml_text import counted
from geo_seg.errors import DataError
from geo_seg.raster.paths import open_source
from geo_seg.raster.reader import read_info

MAX_CLASSES = 64
"""Distinct values of a mask; a raster with more holds measurements."""

_MAX_MASKS = 200  # that are looked at
_MAX_PIXELS = 1 << 22  # of a mask
_STRIPS = 16  # of a larger mask
_COLOR_BANDS = 3


@dataclass
class MaskLook:
    """What masks hold.

    Attributes:
        kind: "values", "colors", or "continuous" (more values than classes can be, or fractions).
        counts: pixels of each value or colour that was seen.
        nodata: value that the first mask declares as nodata.
        palette: colour by value of the first mask's palette.
        looked: how many masks were read.
        partly: whether parts of them only.
        problem: why the values are no classes; "" if they are.
    """

    kind: str = "values"
    counts: Counter[Value] = field(default_factory=Counter)
    nodata: int | None = None
    palette: dict[int, str] = field(default_factory=dict)
    looked: int = 0
    partly: bool = False
    problem: str = ""


def look_at_masks(listing: Listing, names: Sequence[str], limit: int = _MAX_MASKS) -> MaskLook:
    """Return the values of masks, of evenly spread ones if there are many.

    Raises:
        DataError: a mask can't be read.
    """
    look = MaskLook()
    steps = np.unique(np.linspace(0, len(names) - 1, min(limit, len(names))).astype(int))
    for name in (names[i] for i in steps):
        _add(look, listing, name)
        look.looked += 1
        if look.problem:
            return look
    return look


def few_values(listing: Listing, name: str) -> bool:
    """Return whether a raster looks like a mask: one band of few whole numbers."""
    try:
        header = read_info(listing.path(name))
        look = look_at_masks(listing, [name])
    except DataError:
        return False
    return len(header.bands) == 1 and not look.problem and look.kind == "values"


def _add(look: MaskLook, listing: Listing, name: str) -> None:
    with open_source(listing.path(name)) as source:
        header = read_info(listing.path(name))
        colored = len(header.bands) == _COLOR_BANDS and header.dtype == "uint8"
        if len(header.bands) != 1 and not colored:
            look.problem = f"{name} has {len(header.bands)} bands; masks have one, or three of 8-bit colours"
            return
        if not look.looked:
            look.kind = "colors" if colored else "values"
            nodata = header.nodata[0]
            look.nodata = int(nodata) if nodata is not None and float(nodata).is_integer() else None
        if (look.kind == "colors") != colored:
            look.problem = (
                f"{name} has {counted(len(header.bands), 'band')}, others of its kind have another number"
            )
            return
        try:
            for pixels in _strips(source, header.bands, look):
                look.counts.update(_count(pixels, look, name))
                if len(look.counts) > MAX_CLASSES:
                    what = "colours" if colored else "values"
                    look.problem = f"{name} has more than {MAX_CLASSES} {what}"
                if look.problem:
                    smeared = source.driver == "JPEG"
                    look.kind = "continuous"
                    look.problem += (
                        "; JPEG smears the values of classes: save masks as PNG or TIFF"
                        if smeared
                        else ", as a continuous raster (heights, probabilities): no classes"
                    )
                    return
            if header.palette and not look.palette:
                values = [value for value in look.counts if isinstance(value, int)]
                look.palette = color_table(source.colormap(header.bands[0]), values)
        except RasterioError as error:
            raise DataError(f"{listing.path(name)}: cannot be read ({error.__cause__ or error})") from error


def _strips(
    source: Any,  # of rasterio, which ships no types
    bands: Sequence[int],
    look: MaskLook,
) -> Iterator[NDArray[Any]]:
    if source.width * source.height <= _MAX_PIXELS:
        yield source.read(bands)
        return
    look.partly = True
    rows = max(_MAX_PIXELS // source.width // _STRIPS, 1)
    for top in np.linspace(0, max(source.height - rows, 0), _STRIPS).astype(int).tolist():
        height = min(rows, source.height - top)
        yield source.read(bands, window=rasterio.windows.Window(0, top, source.width, height))


def _count(pixels: NDArray[Any], look: MaskLook, name: str) -> dict[Value, int]:
    if look.kind == "colors":
        red, green, blue = pixels.astype(np.uint32)
        codes, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
        return {f"#{code:06x}": int(n) for code, n in zip(codes.tolist(), counts, strict=True)}
    flat = pixels.ravel()
    if flat.dtype.kind == "f":
        flat = flat[np.isfinite(flat)]
        if np.any(flat != np.round(flat)):
            look.problem = f"{name} holds fractions"
            return {}
    values, counts = np.unique(flat, return_counts=True)
    return {int(value): int(n) for value, n in zip(values.tolist(), counts, strict=True)}
