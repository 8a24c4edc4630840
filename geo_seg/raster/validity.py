"""Masks of valid pixels: nodata compared as GDAL does, and values that no sensor measures."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader

from geo_seg.tiling import Window

LARGEST = 1e30
"""Absolute values above it are fill values, such as netCDF's or the limits of float32."""

IMPLAUSIBLE = (
    f"hold NaN, infinity or numbers beyond {LARGEST:g}, which no nodata value declares, and are nodata"
)
"""End of a message about strays, after their number."""

_EPSILON = 2.0**-23  # of float32

Span = tuple[float, float] | None
"""Lowest and highest value that a nodata value stands for; None where it marks no pixel."""


def nodata_as_pixel(nodata: float | None, dtype: str) -> float | None:
    """Return the nodata value that GDAL compares with pixels of a type.

    Args:
        nodata: of a file or the configuration.
        dtype: NumPy name of the pixels' type.

    Returns:
        Truncated for integers, rounded for floating point; None where no pixel can have it.
    """
    pixel_type = np.dtype(dtype)
    if nodata is None or (pixel_type.kind != "f" and not np.isfinite(nodata)):
        return None
    if pixel_type.kind != "f":
        limits = np.iinfo(pixel_type)
        return int(nodata) if limits.min <= nodata <= limits.max else None
    if not np.isfinite(nodata):
        return float(nodata)
    return float(pixel_type.type(nodata)) if abs(nodata) <= np.finfo(pixel_type).max else None


def nodata_span(nodata: float | None, dtype: str) -> Span:
    """Return the lowest and highest pixel equal to a nodata value: GDAL compares floats with a tolerance.

    For a nodata value beyond LARGEST, whose neighbours GDAL's arithmetic can't distinguish, these are all
    values beyond LARGEST of the same sign.

    Args:
        nodata: from nodata_as_pixel.
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


def _last_equal(value: np.floating[Any], far: np.floating[Any]) -> float:
    """Return the number nearest to far that GDAL compares as equal to value; far itself is not equal."""
    near = value
    while (middle := near + (far - near) / 2) not in (near, far):
        # ARE_REAL_EQUAL: float32's epsilon for float64, too
        if abs(middle - value) < _EPSILON * abs(middle + value) * 2:
            near = middle
        else:
            far = middle
    return float(near)


def in_span(band: NDArray[Any], limits: Span) -> NDArray[np.bool_]:
    """Return where the pixels of a band have a nodata value."""
    if limits is None:
        return np.zeros(band.shape, bool)
    low, high = limits
    mask: NDArray[np.bool_] = band == low if low == high else (band >= low) & (band <= high)
    return mask


def mask_from_flags(flags: Collection[MaskFlags], band: int, first: int) -> int:
    """Return the band whose mask applies to a band; 0 where only nodata value or alpha apply, or nothing.

    Args:
        flags: GDAL's flags of the band's mask.
        band: number of the band.
        first: number of the raster's first band, for a mask that all bands share.
    """
    if MaskFlags.per_dataset in flags:
        return 0 if MaskFlags.alpha in flags else first
    return 0 if MaskFlags.all_valid in flags or MaskFlags.nodata in flags else band


class Validity:
    """Mask of the valid pixels of an open raster, from its nodata values, mask bands and alpha band.

    Attributes:
        strays: number of pixels so far that are not declared nodata, and NaN, infinite or beyond LARGEST.

    Args:
        source: the open raster of the reader.
        nodata: per band that is read, from nodata_as_pixel.
        types: per band, NumPy name of its own type.
        zero_is_nodata: pixels whose bands are all 0 are nodata, too.
        masks: bands whose masks apply.
        alpha: the alpha band that applies, or 0.
    """

    def __init__(
        self,
        source: DatasetReader,
        nodata: Sequence[float | None],
        types: Sequence[str],
        zero_is_nodata: bool,
        *,
        masks: Collection[int],
        alpha: int,
    ) -> None:
        self.strays = 0
        self._source = source
        self._spans = [nodata_span(value, dtype) for value, dtype in zip(nodata, types, strict=True)]
        self._zero_is_nodata = zero_is_nodata or all(value == 0 for value in nodata)
        self._masks = sorted(masks)
        self._alpha = alpha

    def mask(
        self, pixels: NDArray[Any], part: rasterio.windows.Window, stray_window: Window
    ) -> NDArray[np.bool_]:
        """Return the (height, width) mask of pixels that have been read.

        Args:
            pixels: (bands, height, width).
            part: their window in the raster.
            stray_window: where strays are counted, relative to the pixels; may extend beyond them.
        """
        valid = self._declared(pixels)
        for band in self._masks:
            valid &= self._source.read_masks(band, window=part) > 0
        if self._alpha:
            valid &= self._source.read(self._alpha, window=part) != 0
        if pixels.dtype.kind == "f":
            plausible = _is_plausible(pixels)
            rows, cols = (
                slice(max(first, 0), max(first + size, 0))
                for first, size in (
                    (stray_window.row, stray_window.height),
                    (stray_window.col, stray_window.width),
                )
            )
            self.strays += int(np.count_nonzero((valid & ~plausible)[rows, cols]))
            valid &= plausible
        return valid

    def _declared(self, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where no band has its nodata value; 0 counts only where all bands are 0."""
        valid = np.ones(pixels.shape[1:], bool)
        if self._zero_is_nodata:
            nonzero = pixels[0] != 0
            for band in pixels[1:]:
                nonzero |= band != 0
            valid &= nonzero
        for band, limits in zip(pixels, self._spans, strict=True):
            if limits is not None and limits != (0, 0):
                valid &= ~in_span(band, limits)
        return valid


def _is_plausible(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where no band of (bands, height, width) floats is NaN, infinite or beyond LARGEST."""
    largest = min(LARGEST, float(np.finfo(pixels.dtype).max))
    plausible = np.ones(pixels.shape[1:], bool)
    for band in pixels:
        plausible &= np.abs(band) <= largest  # False for NaN
    return plausible
