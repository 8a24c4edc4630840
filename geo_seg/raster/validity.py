"""Which values are measurements: nodata as GDAL compares it, and what no sensor measures."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import MaskFlags

from geo_seg.tiling import Window

LARGEST = 1e30
"""Numbers beyond it, either way, are fill values, as netCDF's or the ends of float32, and no measurements."""

IMPLAUSIBLE = (
    f"hold NaN, infinity or numbers beyond {LARGEST:g}, which no nodata value declares, and are nodata"
)
"""What is said of strays, after their number."""

_EPSILON = 2.0**-23  # of float32

Span = tuple[float, float] | None
"""Lowest and highest value that a nodata value stands for; None where no pixel can be told by it."""


def nodata_as_pixel(nodata: float | None, dtype: str) -> float | None:
    """The nodata value as GDAL looks for it among pixels of a type.

    Args:
        nodata: as a file or the configuration declares it.
        dtype: NumPy name of the pixels' type.

    Returns:
        Without its fraction for integers, rounded for floating point; None where no pixel can have it.
    """
    kind = np.dtype(dtype)
    if nodata is None or (kind.kind != "f" and not np.isfinite(nodata)):
        return None
    if kind.kind != "f":
        limits = np.iinfo(kind)
        return int(nodata) if limits.min <= nodata <= limits.max else None
    if not np.isfinite(nodata):
        return float(nodata)
    return float(kind.type(nodata)) if abs(nodata) <= np.finfo(kind).max else None


def nodata_span(nodata: float | None, dtype: str) -> Span:
    """The lowest and highest pixel that GDAL takes for a nodata value: floats are compared with a tolerance.

    Of values beyond LARGEST, whose neighbours GDAL's arithmetic can't tell apart, all of the same sign.

    Args:
        nodata: what nodata_as_pixel gives.
        dtype: NumPy name of the pixels' type.
    """
    if nodata is None or np.isnan(nodata):  # NaN is nodata everywhere
        return None
    if np.dtype(dtype).kind != "f":
        return nodata, nodata
    if abs(nodata) > LARGEST:
        return (LARGEST, np.inf) if nodata > 0 else (-np.inf, -LARGEST)
    value = np.promote_types(dtype, np.float32).type(nodata)
    far = value * 8 * _EPSILON
    low, high = sorted((_last_equal(value, value - far), _last_equal(value, value + far)))
    return low, high


def _last_equal(value: Any, far: Any) -> float:
    """The number next to far that GDAL takes for value; far is none."""
    near = value
    while (middle := near + (far - near) / 2) not in (near, far):
        # ARE_REAL_EQUAL: float32's epsilon for float64, too
        if abs(middle - value) < _EPSILON * abs(middle + value) * 2:
            near = middle
        else:
            far = middle
    return float(near)


def in_span(band: NDArray[Any], limits: Span) -> NDArray[np.bool_]:
    """Where the pixels of a band have a nodata value."""
    if limits is None:
        return np.zeros(band.shape, bool)
    low, high = limits
    found: NDArray[np.bool_] = band == low if low == high else (band >= low) & (band <= high)
    return found


def mask_from_flags(flags: Collection[MaskFlags], band: int, first: int) -> int:
    """The band whose mask has to be read for a band; 0 where nodata value and alpha say all, or nothing does.

    Args:
        flags: what GDAL says of the band's mask.
        band: its number.
        first: that of the raster's first band, for a mask that all bands share.
    """
    if MaskFlags.per_dataset in flags:
        return 0 if MaskFlags.alpha in flags else first
    return 0 if MaskFlags.all_valid in flags or MaskFlags.nodata in flags else band


class Validity:
    """Which pixels of an open raster are valid: nothing that the file says of itself speaks against it.

    Attributes:
        strays: pixels so far that nothing declares nodata, and that are NaN, infinite or beyond LARGEST.

    Args:
        source: the raster; its handle is the reader's.
        nodata: per band that is read, see nodata_as_pixel.
        types: per band, NumPy name of its own type.
        zero_is_nodata: a pixel whose bands are all 0 is nodata, whatever else is.
        masks: bands whose masks count.
        alpha: the alpha band that counts, or 0.
    """

    def __init__(
        self,
        source: Any,
        nodata: Sequence[float | None],
        types: Sequence[str],
        zero_is_nodata: bool,
        *,
        masks: Collection[int],
        alpha: int,
    ) -> None:
        self.strays = 0
        self._source = source
        self._spans = [nodata_span(value, kind) for value, kind in zip(nodata, types, strict=True)]
        self._dark = zero_is_nodata or all(value == 0 for value in nodata)
        self._masks = sorted(masks)
        self._alpha = alpha

    def of(self, pixels: NDArray[Any], part: rasterio.windows.Window, own: Window) -> NDArray[np.bool_]:
        """(height, width) of pixels that have been read.

        Args:
            pixels: (bands, height, width).
            part: where they are in the raster.
            own: where they are counted among the strays; may reach past them.
        """
        valid = self._declared(pixels)
        for band in self._masks:
            valid &= self._source.read_masks(band, window=part) > 0
        if self._alpha:
            valid &= self._source.read(self._alpha, window=part) != 0
        if pixels.dtype.kind == "f":
            real = _measured(pixels)
            rows, cols = (
                slice(max(first, 0), max(first + size, 0))
                for first, size in ((own.row, own.height), (own.col, own.width))
            )
            self.strays += int(np.count_nonzero((valid & ~real)[rows, cols]))
            valid &= real
        return valid

    def _declared(self, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        """Where no band holds its nodata value; 0 is one only where all bands are 0."""
        valid = np.ones(pixels.shape[1:], bool)
        if self._dark:
            lit = pixels[0] != 0
            for band in pixels[1:]:
                lit |= band != 0
            valid &= lit
        for band, limits in zip(pixels, self._spans, strict=True):
            if limits is not None and limits != (0, 0):
                valid &= ~in_span(band, limits)
        return valid


def _measured(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """(height, width) of floats (bands, height, width): where no band is NaN, infinite or beyond LARGEST."""
    largest = min(LARGEST, float(np.finfo(pixels.dtype).max))
    found = np.ones(pixels.shape[1:], bool)
    for band in pixels:
        found &= np.abs(band) <= largest  # NaN isn't
    return found
