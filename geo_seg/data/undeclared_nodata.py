"""Detection of undeclared nodata: extreme, repeated values far from all others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.band_statistics import BandMoments
from geo_seg.data.scenes.scene import Scene, first_of

_MIN_PIXELS = 10  # of a value: isolated measurements do not repeat so often
_MIN_GAP = 0.5  # distance from all other values, as a share of their spread
_MIN_GAP_FREQUENT = 0.1  # likewise, of a value in _FREQUENT_SHARE of the pixels of its scenes
_FREQUENT_SHARE = 0.01
_MIN_LEVELS = 16  # distinct values: bands with fewer hold classes, which lie apart by nature
_MIN_GAP_FEW_LEVELS = 20.0  # times the magnitude of the values, in such bands
_CERTAIN_FACTOR = 1000.0  # times these distances: no measurement, even in a single pixel
_TOLERANCE = 0.01  # relative: quantiles of floats are that near to the values
_MAX_LISTED = 5  # values in the warnings
_DARK_SHARE = 0.05  # of the pixels of a scene


def describe_undeclared_nodata(
    scenes: Sequence[Scene], moments: Sequence[BandMoments], config: DatasetConfig
) -> Iterator[str]:
    """Warn about values that are probably nodata and that nothing declares as such.

    Such a value is the minimum or maximum of a band in a scene, repeated, and far from the next value of the
    scene and from nearly all values of all scenes; 0 is never one, see describe_dark_borders.

    Args:
        scenes: distinct scenes.
        moments: statistics of each whole scene.
        config: declared nodata.

    Yields:
        One line for each value.
    """
    measured = [(scene, bands) for scene, bands in zip(scenes, moments, strict=True) if bands.pixels]
    holes: dict[float, dict[int, dict[Scene, int]]] = {}
    for band in range(min((len(bands.mean) for _, bands in measured), default=0)):
        for value, pixels in _candidate_values([bands for _, bands in measured], band).items():
            holes.setdefault(value, {})[band] = {measured[i][0]: count for i, count in pixels.items()}
    sizes = {scene.name: bands.pixels for scene, bands in measured}
    for value, counts_by_band in list(holes.items())[:_MAX_LISTED]:
        yield _warning(value, counts_by_band, sizes, config)
    if len(holes) > _MAX_LISTED:
        yield f"{len(holes) - _MAX_LISTED} more values are as far from all others and not declared as nodata"


def describe_dark_borders(
    scenes: Sequence[Scene], moments: Sequence[BandMoments], config: DatasetConfig
) -> Iterator[str]:
    """Warn about scenes in which many pixels are 0 and valid; see describe_undeclared_nodata."""
    dark = [s.name for s, bands in zip(scenes, moments, strict=True) if bands.pixels and _is_dark(s, bands)]
    if dark and not config.zero_is_nodata:
        yield (
            f"{first_of(dark)}: all bands are 0 in 5 % of the pixels or more, and 0 is not nodata; black "
            "borders need dataset.zero_is_nodata=true"
        )


def _candidate_values(moments: Sequence[BandMoments], band: int) -> dict[float, dict[int, int]]:
    """Return probable nodata values of a band, with their pixel counts in each scene (by number)."""
    quantiles = np.stack([bands.quantiles[band] for bands in moments])  # (scenes, steps)
    weights = np.repeat([float(bands.pixels) for bands in moments], quantiles.shape[1])
    candidates: dict[float, dict[int, int]] = {}
    gaps: dict[float, float] = {}
    for extreme_field, neighbour_field, count_field in (
        ("low", "above_low", "at_low"),
        ("high", "below_high", "at_high"),
    ):
        value, neighbour, pixels = (
            np.array([getattr(bands, name)[band] for bands in moments])
            for name in (extreme_field, neighbour_field, count_field)
        )
        gap = np.abs(value - neighbour)
        for i in np.flatnonzero((gap >= _MIN_GAP_FREQUENT * _local_spread(quantiles, value)) & (value != 0)):
            candidates.setdefault(float(value[i]), {})[int(i)] = int(pixels[i])
            gaps[float(value[i])] = min(gaps.get(float(value[i]), np.inf), float(gap[i]))
    neighbourhood = _neighbourhood(quantiles, weights, np.array(sorted(candidates)))
    sizes = [bands.pixels for bands in moments]
    return {
        value: pixels
        for value, pixels in candidates.items()
        if neighbourhood.excludes(value, gaps[value], sum(pixels.values()), sum(sizes[i] for i in pixels))
    }


@dataclass(frozen=True)
class _Neighbourhood:
    """Distribution of a band's values over all scenes, without the candidates for nodata.

    Attributes:
        low: first percentile.
        middle: median.
        high: 99th percentile.
        measured: whether there are enough distinct values for measurements, as opposed to classes.
    """

    low: float
    middle: float
    high: float
    measured: bool

    def excludes(self, value: float, gap: float, pixels: int, size: int) -> bool:
        """Return whether a value, next to a gap and in `pixels` of `size` pixels, is far from all others."""
        spread = self.high - self.low
        required = _MIN_GAP * spread if self.measured else _MIN_GAP_FEW_LEVELS * max(spread, abs(self.middle))
        distance = min(gap, max(self.low - value, value - self.high))
        if distance >= _CERTAIN_FACTOR * required > 0:
            return True
        if self.measured and pixels >= _FREQUENT_SHARE * size:
            required = _MIN_GAP_FREQUENT * spread
        return pixels >= _MIN_PIXELS and distance >= required > 0


def _local_spread(quantiles: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (scenes,) the range of the quantiles of each scene that differ from its value."""
    others = ~_is_same(quantiles, value[:, None])
    low = np.where(others, quantiles, np.inf).min(axis=1)
    high = np.where(others, quantiles, -np.inf).max(axis=1)
    return np.where(others.any(axis=1), high - low, 0.0)


def _neighbourhood(
    quantiles: NDArray[np.float64], weights: NDArray[np.float64], candidates: NDArray[np.float64]
) -> _Neighbourhood:
    """Return the distribution of all values except the candidates.

    Args:
        quantiles: (scenes, steps) quantiles of each scene.
        weights: (scenes * steps,) weight of each quantile.
        candidates: candidates for nodata, ascending.
    """
    values = quantiles.ravel()
    if len(candidates):
        index = np.searchsorted(candidates, values)
        nearest = (candidates[np.minimum(index, len(candidates) - 1)], candidates[np.maximum(index - 1, 0)])
        others = ~(_is_same(values, nearest[0]) | _is_same(values, nearest[1]))
        values, weights = values[others], weights[others]
    if not len(values):
        return _Neighbourhood(0.0, 0.0, 0.0, measured=False)
    order = np.argsort(values, kind="stable")
    ranks = weights[order].cumsum()
    low, middle, high = np.interp(np.array([0.01, 0.5, 0.99]) * ranks[-1], ranks, values[order])
    return _Neighbourhood(
        float(low), float(middle), float(high), measured=len(np.unique(values)) >= _MIN_LEVELS
    )


def _is_same(values: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.abs(values - value) <= _TOLERANCE * np.abs(value)


def _warning(
    value: float,
    counts_by_band: Mapping[int, Mapping[Scene, int]],
    sizes: Mapping[str, int],
    config: DatasetConfig,
) -> str:
    labels = []
    for band, counts in counts_by_band.items():
        numbers = {scene.bands[band] for scene in counts}
        name = next((scene.band_names[band] for scene in counts if scene.band_names[band]), "")
        labels.append(f"{min(numbers)} ({name})" if name else str(min(numbers)))
    scenes = list(dict.fromkeys(scene for counts in counts_by_band.values() for scene in counts))
    pixels = max(sum(counts.values()) for counts in counts_by_band.values())
    share = pixels / sum(sizes[scene.name] for scene in scenes)
    text = str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    declared = {nodata for scene in scenes for nodata in scene.image.nodata if nodata is not None}
    remedy = f"dataset.nodata={text} makes them nodata"
    if config.nodata is not None:
        remedy = f"dataset.nodata={config.nodata:g} is set already, so declare it in the files"
    elif declared:
        remedy += f", instead of {min(declared):g} that files declare"
    bands = f"band{'s' * (len(labels) > 1)} {', '.join(labels)}"
    return (
        f"{first_of([scene.name for scene in scenes])}: {bands}: {text} in {pixels} px ({share:.2%}), far "
        f"from all other values and not declared as nodata; {remedy}"
    )


def _is_dark(scene: Scene, bands: BandMoments) -> bool:
    step = round(_DARK_SHARE * bands.quantiles.shape[1])
    return bool((bands.quantiles[:, step] == 0).all() and 0 not in scene.image.nodata)
