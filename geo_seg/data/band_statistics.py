"""Band statistics in one streaming pass, and the normalisations that they give."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from geo_seg.errors import ConfigError, DataError

_CHUNK = 1 << 16  # values whose float64 copy stays in a core's cache
_SAMPLE = 1 << 20  # pixels of a scene, about, that quantiles are taken from: their ranks are right to 0.03 %
_STEPS = 200  # of rank between the quantiles that are kept: half a per cent each
_CACHE_KEYS = {"m2": "squares"}  # of an index: what caches that exist call a field of BandMoments
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # mean and deviation of RGB from 0 to 255


@dataclass(frozen=True)
class BandMoments:
    """Statistics of the valid pixels of a scene, or of several.

    Attributes:
        pixels: how many.
        mean: (bands,)
        m2: (bands,) sum of squared deviations from the mean.
        low: (bands,) smallest value.
        high: (bands,) largest value.
        quantiles: (bands, steps) values at the middle of even steps of rank.
        at_low: (bands,) pixels of the smallest value.
        at_high: (bands,) pixels of the largest value.
        above_low: (bands,) smallest other value, to 1 % where it isn't of 8 or 16 bits; NaN without one.
        below_high: (bands,) largest other value, likewise.
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
        """Return the values (shares, bands) below which these shares (0 to 1) of the pixels lie."""
        steps = self.quantiles.shape[1]
        ranks = (np.arange(steps) + 0.5) / steps
        return np.stack([np.interp(shares, ranks, row) for row in self.quantiles], axis=1)

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the statistics that the arrays of an index hold; see BandAccumulator.arrays."""
        keys = {field.name: _CACHE_KEYS.get(field.name, field.name) for field in fields(cls)}
        arguments: dict[str, Any] = {name: arrays[key] for name, key in keys.items()}
        return cls(**{**arguments, "pixels": int(arrays["pixels"])})


class Counts(NamedTuple):
    """What was counted in a scene, or in what a split has of it.

    Attributes:
        pixels: of the image.
        valid: those with a measurement.
        classes: (classes,) labelled pixels of each class where the image is valid.
    """

    pixels: int
    valid: int
    classes: NDArray[np.int64]


class BandAccumulator:
    """Collects statistics window by window.

    Args:
        bands: how many.
        pixels: of the scene, about; decides how many of them the quantiles are taken from.
    """

    def __init__(self, bands: int, pixels: int) -> None:
        self._parts: list[list[_Part]] = [[] for _ in range(bands)]
        self._low = np.full(bands, np.inf)
        self._high = np.full(bands, -np.inf)
        self._at_low, self._at_high = np.zeros(bands, np.int64), np.zeros(bands, np.int64)
        self._histogram = np.zeros((bands, 1 << 16), np.int64)
        self._used = (1 << 16, 0)
        self._step = math.ceil(pixels / _SAMPLE) | 1  # odd: not a divisor of the usual widths
        self._kind = np.dtype(np.float32)

    def add(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Counts a window.

        Args:
            image: (bands, height, width).
            valid: (height, width).
        """
        whole = bool(valid.all())
        if not whole and not valid.any():
            return
        self._kind = image.dtype
        for band, pixels in enumerate(image):
            values = pixels.reshape(-1) if whole else pixels[valid]
            self._parts[band].append(_merge([_part(v) for v in _chunks(values)]))
            self._extremes(band, values)
            sample = _bins(values[:: self._step])
            first = int(sample.min())  # images fill a small part of all bins
            counts = np.bincount(sample - first)
            self._histogram[band, first : first + len(counts)] += counts
            self._used = min(self._used[0], first), max(self._used[1], first + len(counts))

    def _extremes(self, band: int, values: NDArray[Any]) -> None:
        low, high = values.min(), values.max()
        if low <= self._low[band]:
            known = self._at_low[band] if low == self._low[band] else 0
            self._low[band], self._at_low[band] = low, known + np.count_nonzero(values == low)
        if high >= self._high[band]:
            known = self._at_high[band] if high == self._high[band] else 0
            self._high[band], self._at_high[band] = high, known + np.count_nonzero(values == high)

    def found(self) -> dict[str, NDArray[Any]]:
        """What BandMoments.of takes."""
        merged = [_merge(parts) for parts in self._parts]
        first, end = self._used if merged[0][0] else (0, 1)
        ranks = self._histogram[:, first:end].cumsum(axis=1)
        wanted = (np.arange(_STEPS) + 0.5) / _STEPS
        bins = [np.searchsorted(row, wanted * row[-1]) + first for row in ranks]
        beside = np.array([self._beside(band) for band in range(len(self._low))])
        return {
            "pixels": np.array(merged[0][0]),
            "mean": np.array([mean for _, mean, _ in merged]),
            "m2": np.array([squares for _, _, squares in merged]),
            "low": self._low,
            "high": self._high,
            "quantiles": np.stack([_values(row, self._kind) for row in bins]),
            "at_low": self._at_low,
            "at_high": self._at_high,
            "above_low": beside[:, 0],
            "below_high": beside[:, 1],
        }

    def _beside(self, band: int) -> tuple[float, float]:
        """The values next to the smallest and to the largest one."""
        if not self._at_low[band]:
            return math.nan, math.nan
        ends = _bins(np.array([self._low[band], self._high[band]], self._kind))
        first, end = self._used
        used = np.flatnonzero(self._histogram[band, first:end]) + first
        above, below = used[used > ends[0]], used[used < ends[1]]
        return (
            float(_values(above[:1], self._kind)[0]) if len(above) else math.nan,
            float(_values(below[-1:], self._kind)[0]) if len(below) else math.nan,
        )


@dataclass(frozen=True)
class Normalization:
    """What turns band values into the numbers that a model sees: (value - mean) / std.

    Attributes:
        mean: per band; becomes 0, as nodata does.
        std: per band, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def fit_normalization(kind: str, found: Sequence[BandMoments], dtype: str) -> Normalization:
    """Shift and scale for a way of normalising.

    Args:
        kind: "standardize", "percentile" (2nd to 98th become -1 to 1), "minmax" (the whole range becomes
            -1 to 1), "imagenet" or "none".
        found: statistics of the training scenes.
        dtype: of the images.

    Raises:
        ConfigError: imagenet is not for these images.
        DataError: there is no valid pixel.
    """
    seen = [part for part in found if part.pixels]
    count = len(found[0].mean)
    if kind == "none":
        return Normalization((0.0,) * count, (1.0,) * count)
    if kind == "imagenet":
        if count != 3 or dtype != "uint8":
            raise ConfigError(
                f"dataset.normalize=imagenet is for three uint8 bands, the images have {count} of {dtype}; "
                "take standardize"
            )
        return Normalization(*_IMAGENET)
    if not seen:
        raise DataError("the training images hold no valid pixel: all are nodata; see dataset.nodata")
    if kind == "standardize":
        merged = [_merge([(s.pixels, s.mean[band], s.m2[band]) for s in seen]) for band in range(count)]
        return _statistics([mean for _, mean, _ in merged], [math.sqrt(sq / n) for n, _, sq in merged])
    if kind == "percentile":
        low, high = _percentiles(seen, 0.02), _percentiles(seen, 0.98)
    else:
        low = np.min([s.low for s in seen], axis=0)
        high = np.max([s.high for s in seen], axis=0)
    return _statistics(((low + high) / 2).tolist(), ((high - low) / 2).tolist())


def value_span(found: Sequence[BandMoments]) -> list[list[float]]:
    """Per band the two values between which 99 % of the pixels lie."""
    seen = [part for part in found if part.pixels]
    ends = (_percentiles(seen, 0.005), _percentiles(seen, 0.995))
    return [[float(low), float(high)] for low, high in zip(*ends, strict=True)]


def _statistics(shift: list[float], scale: list[float]) -> Normalization:
    return Normalization(
        tuple(float(value) for value in shift), tuple(float(s) if s > 0 else 1.0 for s in scale)
    )


def _percentiles(found: Sequence[BandMoments], rank: float) -> NDArray[np.float64]:
    """The value of a rank over several scenes, from the quantiles of each, weighted with its pixels."""
    weight = np.repeat([s.pixels / _STEPS for s in found], _STEPS)
    result = []
    for band in range(len(found[0].mean)):
        values = np.concatenate([s.quantiles[band] for s in found])
        order = np.argsort(values, kind="stable")
        ranks = weight[order].cumsum() - weight[order] / 2
        result.append(np.interp(rank * weight.sum(), ranks, values[order]))
    return np.array(result)


_Part = tuple[int, float, float]  # count, mean, sum of squared deviations


def _part(values: NDArray[Any]) -> _Part:
    chosen = values.astype(np.float64)
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:  # sums of a chunk are exact: one pass less
        count, total, squares = len(chosen), int(chosen.sum()), int(chosen.dot(chosen))
        return count, total / count, (count * squares - total**2) / count
    mean = chosen.mean()
    chosen -= mean
    return len(chosen), float(mean), float(chosen.dot(chosen))


def _merge(parts: Sequence[_Part]) -> _Part:
    """Chan et al. 1979: nothing cancels."""
    if not parts:
        return 0, 0.0, 0.0
    count, mean, squares = np.array(parts, np.float64).T
    total = count.sum()
    middle = (count * mean).sum() / total
    return int(total), float(middle), float((squares + count * (mean - middle) ** 2).sum())


def _chunks(values: NDArray[Any]) -> list[NDArray[Any]]:
    return [values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK)]


def _bins(values: NDArray[Any]) -> NDArray[np.integer[Any]]:
    """One of 65536 bins per value, in the order of the values: exact for 8 and 16 bits, else to 1 %."""
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return values
    if values.dtype.kind == "i" and values.dtype.itemsize <= 2:
        return values.astype(np.int32) + (1 << 15)
    bits = values.astype(np.float32).view(np.int32) >> 16
    return np.where(bits < 0, -1 - (bits & 0x7FFF), bits) + (1 << 15)


def _values(bins: NDArray[np.integer[Any]], kind: np.dtype[Any]) -> NDArray[np.float64]:
    """The value in the middle of a bin."""
    if kind.kind == "u" and kind.itemsize <= 2:
        return bins.astype(np.float64)
    signed = bins.astype(np.int32) - (1 << 15)
    if kind.kind == "i" and kind.itemsize <= 2:
        return signed.astype(np.float64)
    bits = np.where(signed < 0, (-1 - signed) | 0x8000, signed).astype(np.uint32) << 16
    return (bits | 0x8000).view(np.float32).astype(np.float64)
