"""Values that look like nodata which nobody declared: found by their distance from all others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.band_statistics import BandMoments
from geo_seg.data.scenes.scene import Scene

_REPEATED = 10  # pixels: measurements that stand alone don't hit the very same value so often
_APART = 0.5  # of the spread of all other values
_CLOSER = 0.1  # the same, of a value that is in so many pixels of its scenes:
_OFTEN = 0.01
_LEVELS = 16  # bands of fewer values aren't measured; theirs are apart by nature
_FAR = 20.0  # times these values themselves, where that holds
_BEYOND = 1000.0  # times these distances: no measurement at all, were it of one pixel
_SAME = 0.01  # quantiles of floats are that near to the values
_TOLD = 5  # values
_BLACK = 0.05  # share of the pixels of a scene


def describe_undeclared_nodata(
    scenes: Sequence[Scene], found: Sequence[BandMoments], config: DatasetConfig
) -> Iterator[str]:
    """Tell of values that were taken for measurements and are probably none.

    A hole is the smallest or largest value of a band in a scene, repeated, and far from the next value of
    the scene and from nearly all values of all scenes; 0 never is, see describe_dark_borders.

    Args:
        scenes: each once.
        found: statistics of each; an index that holds them all.
        config: what is declared already.

    Yields:
        One line for each value.
    """
    seen = [(scene, bands) for scene, bands in zip(scenes, found, strict=True) if bands.pixels]
    holes: dict[float, dict[int, dict[Scene, int]]] = {}
    for band in range(min((len(bands.mean) for _, bands in seen), default=0)):
        for value, pixels in _candidate_values([bands for _, bands in seen], band).items():
            holes.setdefault(value, {})[band] = {seen[i][0]: count for i, count in pixels.items()}
    sizes = {scene.name: bands.pixels for scene, bands in seen}
    for value, holding in list(holes.items())[:_TOLD]:
        yield _line(value, holding, sizes, config)
    if len(holes) > _TOLD:
        yield f"{len(holes) - _TOLD} more values are as far from all others and not declared as nodata"


def describe_dark_borders(
    scenes: Sequence[Scene], found: Sequence[BandMoments], config: DatasetConfig
) -> Iterator[str]:
    """Tell of scenes with many pixels of 0 that count as measurements; see describe_undeclared_nodata."""
    dark = [s.name for s, bands in zip(scenes, found, strict=True) if bands.pixels and _is_dark(s, bands)]
    if dark and not config.zero_is_nodata:
        yield (
            f"{_some(dark)}: all bands are 0 in 5 % of the pixels or more, and 0 is not nodata; black "
            "borders need dataset.zero_is_nodata=true"
        )


def _candidate_values(found: Sequence[BandMoments], band: int) -> dict[float, dict[int, int]]:
    """Values that are holes, with the scenes that hold them and their pixels there."""
    quantiles = np.stack([bands.quantiles[band] for bands in found])  # (scenes, steps)
    weights = np.repeat([float(bands.pixels) for bands in found], quantiles.shape[1])
    candidates: dict[float, dict[int, int]] = {}
    gaps: dict[float, float] = {}
    for end, beside, count in (("low", "above_low", "at_low"), ("high", "below_high", "at_high")):
        value, near, pixels = (
            np.array([getattr(bands, name)[band] for bands in found]) for name in (end, beside, count)
        )
        gap = np.abs(value - near)
        for i in np.flatnonzero((gap >= _CLOSER * _local_spread(quantiles, value)) & (value != 0)):
            candidates.setdefault(float(value[i]), {})[int(i)] = int(pixels[i])
            gaps[float(value[i])] = min(gaps.get(float(value[i]), np.inf), float(gap[i]))
    others = _neighbourhood(quantiles, weights, np.array(sorted(candidates)))
    sizes = [bands.pixels for bands in found]
    return {
        value: pixels
        for value, pixels in candidates.items()
        if others.lack(value, gaps[value], sum(pixels.values()), sum(sizes[i] for i in pixels))
    }


@dataclass(frozen=True)
class _Neighbourhood:
    """All values of a band in all scenes but those that may be holes.

    Attributes:
        low: their first percentile.
        middle: their median.
        high: their 99th percentile.
        measured: whether they are so many that they aren't classes.
    """

    low: float
    middle: float
    high: float
    measured: bool

    def lack(self, value: float, gap: float, pixels: int, size: int) -> bool:
        """Whether a value with a gap beside it, in so many pixels of scenes of a size, is none of them."""
        spread = self.high - self.low
        needed = _APART * spread if self.measured else _FAR * max(spread, abs(self.middle))
        distance = min(gap, max(self.low - value, value - self.high))
        if distance >= _BEYOND * needed > 0:
            return True
        if self.measured and pixels >= _OFTEN * size:
            needed = _CLOSER * spread
        return pixels >= _REPEATED and distance >= needed > 0


def _local_spread(quantiles: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    """(scenes,) range of the quantiles of each scene that are not its value."""
    others = ~_is_same(quantiles, value[:, None])
    low = np.where(others, quantiles, np.inf).min(axis=1)
    high = np.where(others, quantiles, -np.inf).max(axis=1)
    return np.where(others.any(axis=1), high - low, 0.0)


def _neighbourhood(
    quantiles: NDArray[np.float64], weights: NDArray[np.float64], candidates: NDArray[np.float64]
) -> _Neighbourhood:
    """Look at all values but those that may be holes.

    Args:
        quantiles: (scenes, steps).
        weights: (scenes * steps,).
        candidates: values that may be holes, in ascending order.
    """
    values = quantiles.ravel()
    if len(candidates):
        place = np.searchsorted(candidates, values)
        near = (candidates[np.minimum(place, len(candidates) - 1)], candidates[np.maximum(place - 1, 0)])
        others = ~(_is_same(values, near[0]) | _is_same(values, near[1]))
        values, weights = values[others], weights[others]
    if not len(values):
        return _Neighbourhood(0.0, 0.0, 0.0, measured=False)
    order = np.argsort(values, kind="stable")
    ranks = weights[order].cumsum()
    low, middle, high = np.interp(np.array([0.01, 0.5, 0.99]) * ranks[-1], ranks, values[order])
    return _Neighbourhood(float(low), float(middle), float(high), measured=len(np.unique(values)) >= _LEVELS)


def _is_same(values: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.abs(values - value) <= _SAME * np.abs(value)


def _line(
    value: float, holding: Mapping[int, Mapping[Scene, int]], sizes: Mapping[str, int], config: DatasetConfig
) -> str:
    called = []
    for band, counts in holding.items():
        numbers = {scene.bands[band] for scene in counts}
        name = next((scene.band_names[band] for scene in counts if scene.band_names[band]), "")
        called.append(f"{min(numbers)} ({name})" if name else str(min(numbers)))
    scenes = list(dict.fromkeys(scene for counts in holding.values() for scene in counts))
    pixels = max(sum(counts.values()) for counts in holding.values())
    share = pixels / sum(sizes[scene.name] for scene in scenes)
    text = str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    declared = {nodata for scene in scenes for nodata in scene.image.nodata if nodata is not None}
    remedy = f"dataset.nodata={text} makes them nodata"
    if config.nodata is not None:
        remedy = f"dataset.nodata={config.nodata:g} is set already, so declare it in the files"
    elif declared:
        remedy += f", instead of {min(declared):g} that files declare"
    bands = f"band{'s' * (len(called) > 1)} {', '.join(called)}"
    return (
        f"{_some([scene.name for scene in scenes])}: {bands}: {text} in {pixels} px ({share:.2%}), far "
        f"from all other values and not declared as nodata; {remedy}"
    )


def _is_dark(scene: Scene, bands: BandMoments) -> bool:
    step = round(_BLACK * bands.quantiles.shape[1])
    return bool((bands.quantiles[:, step] == 0).all() and 0 not in scene.image.nodata)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
