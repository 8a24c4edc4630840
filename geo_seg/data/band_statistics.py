"""Band statistics from one streaming pass, and the normalizations that are fitted to them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from geo_seg.errors import ConfigError, DataError

_CHUNK_VALUES = 1 << 16  # values whose float64 copy stays in a core's cache
_SAMPLE_PIXELS = 1 << 20  # of a scene, roughly, for its quantiles: their ranks are right to 0.03 %
_RANK_STEPS = 200  # quantiles that are stored: one for every half per cent of rank
_IMAGENET_MEAN_STD = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # of RGB from 0 to 255


@dataclass(frozen=True)
class BandMoments:
    """Statistics of the valid pixels of one or several scenes.

    Attributes:
        pixels: number of valid pixels.
        mean: (bands,) mean.
        m2: (bands,) sum of squared deviations from the mean.
        low: (bands,) minimum.
        high: (bands,) maximum.
        quantiles: (bands, steps) quantiles at the midpoints of equal steps of rank.
        at_low: (bands,) number of pixels that equal the minimum.
        at_high: (bands,) number of pixels that equal the maximum.
        above_low: (bands,) second smallest value, exact for 8 and 16 bits, else to 1 %; NaN if there is none.
        below_high: (bands,) second largest value, likewise.
    """

    pixels: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    quantiles: NDArray[np.float64]
    at_low: NDArray[np.int64]
    at_high: NDArray[np.int64]
    above_low: NDArray[np.float64]
    below_high: NDArray[np.float64]

    def percentiles(self, shares: Sequence[float]) -> NDArray[np.float64]:
        """Return (shares, bands) the values below which these shares (0 to 1) of the pixels lie."""
        steps = self.quantiles.shape[1]
        ranks = (np.arange(steps) + 0.5) / steps
        return np.stack([np.interp(shares, ranks, row) for row in self.quantiles], axis=1)

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Build the statistics from the arrays of an index; see BandAccumulator.arrays."""
        names = [field.name for field in fields(cls) if field.name != "pixels"]
        return cls(int(arrays["pixels"]), **{name: arrays[name] for name in names})


class Counts(NamedTuple):
    """Pixel counts of a scene, or of the part of it that belongs to a split.

    Attributes:
        pixels: all pixels of the image.
        valid: pixels that are not nodata.
        classes: (classes,) valid pixels labelled with each class.
    """

    pixels: int
    valid: int
    classes: NDArray[np.int64]


class BandAccumulator:
    """Streaming computation of BandMoments, window by window.

    Args:
        bands: number of bands.
        pixels: approximate size of the scene; determines the sampling step of the quantiles.
    """

    def __init__(self, bands: int, pixels: int) -> None:
        self._parts: list[list[_Moments]] = [[] for _ in range(bands)]
        self._low = np.full(bands, np.inf)
        self._high = np.full(bands, -np.inf)
        self._at_low, self._at_high = np.zeros(bands, np.int64), np.zeros(bands, np.int64)
        self._histogram = np.zeros((bands, 1 << 16), np.int64)
        self._bin_range = (1 << 16, 0)  # of the bins that are not empty
        self._step = math.ceil(pixels / _SAMPLE_PIXELS) | 1  # odd: not a divisor of the usual widths
        self._dtype = np.dtype(np.float32)

    def add(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Add the valid pixels of a window.

        Args:
            image: (bands, height, width).
            valid: (height, width).
        """
        all_valid = bool(valid.all())
        if not all_valid and not valid.any():
            return
        self._dtype = image.dtype
        for band, pixels in enumerate(image):
            values = pixels.reshape(-1) if all_valid else pixels[valid]
            self._parts[band].append(_merge_moments([_moments(v) for v in _chunks(values)]))
            self._update_extremes(band, values)
            sample = _to_bins(values[:: self._step])
            first = int(sample.min())  # images fill a small part of all bins
            counts = np.bincount(sample - first)
            self._histogram[band, first : first + len(counts)] += counts
            self._bin_range = min(self._bin_range[0], first), max(self._bin_range[1], first + len(counts))

    def _update_extremes(self, band: int, values: NDArray[Any]) -> None:
        low, high = values.min(), values.max()
        if low <= self._low[band]:
            count = self._at_low[band] if low == self._low[band] else 0
            self._low[band], self._at_low[band] = low, count + np.count_nonzero(values == low)
        if high >= self._high[band]:
            count = self._at_high[band] if high == self._high[band] else 0
            self._high[band], self._at_high[band] = high, count + np.count_nonzero(values == high)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the statistics as the arrays that an index stores; see BandMoments.of."""
        merged = [_merge_moments(parts) for parts in self._parts]
        first, end = self._bin_range if merged[0][0] else (0, 1)
        ranks = self._histogram[:, first:end].cumsum(axis=1)
        targets = (np.arange(_RANK_STEPS) + 0.5) / _RANK_STEPS
        bins = [np.searchsorted(row, targets * row[-1]) + first for row in ranks]
        neighbours = np.array([self._neighbours(band) for band in range(len(self._low))])
        return {
            "pixels": np.array(merged[0][0]),
            "mean": np.array([mean for _, mean, _ in merged]),
            "m2": np.array([m2 for _, _, m2 in merged]),
            "low": self._low,
            "high": self._high,
            "quantiles": np.stack([_bin_values(row, self._dtype) for row in bins]),
            "at_low": self._at_low,
            "at_high": self._at_high,
            "above_low": neighbours[:, 0],
            "below_high": neighbours[:, 1],
        }

    def _neighbours(self, band: int) -> tuple[float, float]:
        """Return the second smallest and the second largest value of a band; NaN if there is none."""
        if not self._at_low[band]:
            return math.nan, math.nan
        ends = _to_bins(np.array([self._low[band], self._high[band]], self._dtype))
        first, end = self._bin_range
        used = np.flatnonzero(self._histogram[band, first:end]) + first
        above, below = used[used > ends[0]], used[used < ends[1]]
        return (
            float(_bin_values(above[:1], self._dtype)[0]) if len(above) else math.nan,
            float(_bin_values(below[-1:], self._dtype)[0]) if len(below) else math.nan,
        )


@dataclass(frozen=True)
class Normalization:
    """Shift and scale of each band: a model sees (value - mean) / std.

    Attributes:
        mean: shift per band; this value becomes 0, as nodata does.
        std: scale per band, positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def fit_normalization(mode: str, moments: Sequence[BandMoments], dtype: str) -> Normalization:
    """Return the shift and scale of a normalization mode.

    Args:
        mode: "standardize", "percentile" (2nd to 98th become -1 to 1), "minmax" (minimum to maximum become
            -1 to 1), "imagenet" or "none".
        moments: statistics of the training scenes.
        dtype: of the images.

    Raises:
        ConfigError: "imagenet", and the images are not uint8 with three bands.
        DataError: there is no valid pixel.
    """
    measured = [part for part in moments if part.pixels]
    count = len(moments[0].mean)
    if mode == "none":
        return Normalization((0.0,) * count, (1.0,) * count)
    if mode == "imagenet":
        if count != 3 or dtype != "uint8":
            raise ConfigError(
                f"dataset.normalize=imagenet is for three uint8 bands, the images have {count} of {dtype}; "
                "use standardize"
            )
        return Normalization(*_IMAGENET_MEAN_STD)
    if not measured:
        raise DataError("the training images hold no valid pixel: all are nodata; see dataset.nodata")
    if mode == "standardize":
        merged = [
            _merge_moments([(s.pixels, s.mean[band], s.m2[band]) for s in measured]) for band in range(count)
        ]
        return _normalization([mean for _, mean, _ in merged], [math.sqrt(m2 / n) for n, _, m2 in merged])
    if mode == "percentile":
        low, high = _percentiles(measured, 0.02), _percentiles(measured, 0.98)
    else:
        low = np.min([s.low for s in measured], axis=0)
        high = np.max([s.high for s in measured], axis=0)
    return _normalization(((low + high) / 2).tolist(), ((high - low) / 2).tolist())


def value_span(moments: Sequence[BandMoments]) -> list[list[float]]:
    """Return for each band the two values between which 99 % of the pixels lie."""
    measured = [part for part in moments if part.pixels]
    ends = (_percentiles(measured, 0.005), _percentiles(measured, 0.995))
    return [[float(low), float(high)] for low, high in zip(*ends, strict=True)]


def _normalization(shift: list[float], scale: list[float]) -> Normalization:
    return Normalization(
        tuple(float(value) for value in shift), tuple(float(s) if s > 0 else 1.0 for s in scale)
    )


def _percentiles(moments: Sequence[BandMoments], rank: float) -> NDArray[np.float64]:
    """Return (bands,) the quantile of a rank over several scenes, each weighted by its valid pixels."""
    weight = np.repeat([s.pixels / _RANK_STEPS for s in moments], _RANK_STEPS)
    result = []
    for band in range(len(moments[0].mean)):
        values = np.concatenate([s.quantiles[band] for s in moments])
        order = np.argsort(values, kind="stable")
        ranks = weight[order].cumsum() - weight[order] / 2
        result.append(np.interp(rank * weight.sum(), ranks, values[order]))
    return np.array(result)


_Moments = tuple[int, float, float]  # count, mean, sum of squared deviations


def _moments(values: NDArray[Any]) -> _Moments:
    values64 = values.astype(np.float64)
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:  # sums of a chunk are exact: one pass less
        count, total, squares = len(values64), int(values64.sum()), int(values64.dot(values64))
        return count, total / count, (count * squares - total**2) / count
    mean = values64.mean()
    values64 -= mean
    return len(values64), float(mean), float(values64.dot(values64))


def _merge_moments(parts: Sequence[_Moments]) -> _Moments:
    """Merge counts, means and m2 without cancellation (Chan et al. 1979)."""
    if not parts:
        return 0, 0.0, 0.0
    count, mean, squares = np.array(parts, np.float64).T
    total = count.sum()
    middle = (count * mean).sum() / total
    return int(total), float(middle), float((squares + count * (mean - middle) ** 2).sum())


def _chunks(values: NDArray[Any]) -> list[NDArray[Any]]:
    return [values[start : start + _CHUNK_VALUES] for start in range(0, len(values), _CHUNK_VALUES)]


def _to_bins(values: NDArray[Any]) -> NDArray[np.integer[Any]]:
    """Return each value's number among 65536 ordered bins: exact for 8 and 16 bits, else to 1 %."""
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return values
    if values.dtype.kind == "i" and values.dtype.itemsize <= 2:
        return values.astype(np.int32) + (1 << 15)
    bits = values.astype(np.float32).view(np.int32) >> 16
    return np.where(bits < 0, -1 - (bits & 0x7FFF), bits) + (1 << 15)


def _bin_values(bins: NDArray[np.integer[Any]], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Return the value in the middle of each bin; the inverse of _to_bins."""
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return bins.astype(np.float64)
    signed = bins.astype(np.int32) - (1 << 15)
    if dtype.kind == "i" and dtype.itemsize <= 2:
        return signed.astype(np.float64)
    bits = np.where(signed < 0, (-1 - signed) | 0x8000, signed).astype(np.uint32) << 16
    return (bits | 0x8000).view(np.float32).astype(np.float64)
