"""Bootstrap intervals of scores: percentiles over resampled scenes or windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_seg.metrics.scores import Interval, ScoreIntervals, class_iou, mean_iou, mean_over_labelled

CONFIDENCE_LEVEL = 0.95
"""Share of the resamples whose score lies in an interval."""

_MIN_UNITS = 5  # with fewer, resampling says little
_CHUNK_VALUES = 1 << 22  # multinomial counts in memory at a time


@dataclass(frozen=True)
class ResamplingUnits:
    """Units to resample in the bootstrap, assumed independent of each other.

    Attributes:
        unit: "scenes", or "windows" of the grid where there are too few scenes.
        counts: (units, 3, classes) true positives, support and predicted pixels.
    """

    unit: str
    counts: NDArray[np.int64]


def resampling_units(windows: NDArray[np.integer[Any]], scenes: Sequence[int]) -> ResamplingUnits | None:
    """Return the scenes with labels, or the windows with labels where there are fewer than five such scenes.

    Args:
        windows: (windows, 3, classes) true positives, support and predicted pixels.
        scenes: per window, the number of its scene.

    Returns:
        None where there are fewer than five of both.
    """
    scene_counts = np.zeros((max(scenes, default=-1) + 1, *windows.shape[1:]), np.int64)
    np.add.at(scene_counts, np.asarray(scenes, int), windows)
    for unit, counts in (("scenes", scene_counts), ("windows", windows.astype(np.int64))):
        labelled = counts[counts[:, 1].sum(1) > 0]
        if len(labelled) >= _MIN_UNITS:
            return ResamplingUnits(unit, labelled)
    return None


def bootstrap_intervals(units: ResamplingUnits | None, resamples: int, seed: int) -> ScoreIntervals | None:
    """Return percentile intervals of the scores: as many units as there are, drawn with replacement.

    Args:
        units: the units to resample.
        resamples: how many times; 0 for no intervals.
        seed: of the random generator.

    Returns:
        The intervals; None without units.
    """
    if units is None or not resamples:
        return None
    chunks = [
        _scores(np.tensordot(weights, units.counts, 1))
        for weights in _multinomial_counts(len(units.counts), resamples, seed)
    ]
    accuracy, miou, classes = (np.concatenate(scores) for scores in zip(*chunks, strict=True))
    return ScoreIntervals(
        level=CONFIDENCE_LEVEL,
        draws=resamples,
        unit=units.unit,
        units=len(units.counts),
        miou=_interval(miou),
        accuracy=_interval(accuracy),
        classes=[_interval(values) for values in classes.T],
    )


def difference_interval(
    first: ResamplingUnits | None, second: ResamplingUnits | None, resamples: int, seed: int
) -> Interval | None:
    """Return the percentile interval of the difference in mean IoU of two models, in the same resamples.

    Args:
        first: units as one model predicts them.
        second: the same units as the other model predicts them.
        resamples: number of resamples; 0 for no interval.
        seed: seed of the resamples.

    Returns:
        Lower and upper end of second - first; None without units.
    """
    if first is None or second is None or not resamples:
        return None
    differences = [
        mean_iou(np.tensordot(part, second.counts, 1)) - mean_iou(np.tensordot(part, first.counts, 1))
        for part in _multinomial_counts(len(first.counts), resamples, seed)
    ]
    return _interval(np.concatenate(differences))


def _multinomial_counts(units: int, resamples: int, seed: int) -> list[NDArray[np.int64]]:
    """Return how often each unit is in each resample, in chunks of (resamples, units)."""
    generator = np.random.default_rng(seed)
    step = max(_CHUNK_VALUES // units, 1)
    probabilities = np.full(units, 1 / units)
    return [
        generator.multinomial(units, probabilities, min(step, resamples - start))
        for start in range(0, resamples, step)
    ]


def _scores(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """Return accuracy, mean IoU and IoU of each class for (resamples, 3, classes); NaN where undefined."""
    true_positive, support = counts[:, 0].astype(float), counts[:, 1].astype(float)
    iou = class_iou(counts)
    return true_positive.sum(1) / support.sum(1), mean_over_labelled(iou, support), iou


def _interval(values: NDArray[np.float64]) -> Interval | None:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.percentile(finite, (50 * (1 - CONFIDENCE_LEVEL), 50 * (1 + CONFIDENCE_LEVEL)))
    return float(low), float(high)
