"""How sure scores are: intervals by drawing the places of a split again and again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_seg.metrics.scores import mean_iou

CONFIDENCE_LEVEL = 0.95
"""Share of the draws that an interval holds."""

_MIN_UNITS = 5  # places; with fewer, drawing them again says little
_CHUNK_VALUES = 1 << 22  # weights in memory
Interval = tuple[float, float]


@dataclass(frozen=True)
class ResamplingUnits:
    """What is drawn: places that are taken as independent of each other.

    Attributes:
        kind: "scenes", or "windows" of the grid where there are too few scenes.
        counts: (places, 3, classes) right, labelled and predicted pixels.
    """

    kind: str
    counts: NDArray[np.int64]


def resampling_units(windows: NDArray[np.integer[Any]], scenes: Sequence[int]) -> ResamplingUnits | None:
    """What can be drawn: scenes with labels, or else windows with labels, of which there are five or more.

    Args:
        windows: (windows, 3, classes) right, labelled and predicted pixels.
        scenes: per window, the number of its scene.

    Returns:
        None where there are too few of both.
    """
    whole = np.zeros((max(scenes, default=-1) + 1, *windows.shape[1:]), np.int64)
    np.add.at(whole, np.asarray(scenes, int), windows)
    for kind, counts in (("scenes", whole), ("windows", windows.astype(np.int64))):
        labelled = counts[counts[:, 1].sum(1) > 0]
        if len(labelled) >= _MIN_UNITS:
            return ResamplingUnits(kind, labelled)
    return None


def bootstrap_intervals(places: ResamplingUnits | None, resamples: int, seed: int) -> dict[str, Any] | None:
    """Percentile intervals of the scores by the bootstrap: as many places, drawn with replacement.

    Args:
        places: what is drawn.
        resamples: how often; 0 for no intervals.
        seed: of the draws.

    Returns:
        level, draws, unit and units (how many places of which kind), and pairs of lower and upper end: miou,
        accuracy and classes (IoU of each; None where the draws don't give one). None without places.
    """
    if places is None or not resamples:
        return None
    drawn = [
        _scores(np.tensordot(part, places.counts, 1))
        for part in _multinomial_counts(len(places.counts), resamples, seed)
    ]
    accuracy, miou, classes = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    return {
        "level": CONFIDENCE_LEVEL,
        "draws": resamples,
        "unit": places.kind,
        "units": len(places.counts),
        "miou": _interval(miou),
        "accuracy": _interval(accuracy),
        "classes": [_interval(values) for values in classes.T],
    }


def _multinomial_counts(units: int, draws: int, seed: int) -> list[NDArray[np.int64]]:
    """How often each place is in each draw, (some draws, places) at a time."""
    draw = np.random.default_rng(seed)
    step = max(_CHUNK_VALUES // units, 1)
    shares = np.full(units, 1 / units)
    return [draw.multinomial(units, shares, min(step, draws - done)) for done in range(0, draws, step)]


def _scores(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """Accuracy, mean IoU and IoU of each class for (draws, 3, classes); NaN where there is none."""
    right, labelled, predicted = (counts[:, row].astype(float) for row in range(3))
    either = labelled + predicted - right
    iou = np.divide(right, either, out=np.full_like(right, np.nan), where=either > 0)
    return right.sum(1) / labelled.sum(1), mean_iou(counts), iou


def _interval(values: NDArray[np.float64]) -> Interval | None:
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, (50 * (1 - CONFIDENCE_LEVEL), 50 * (1 + CONFIDENCE_LEVEL)))
    return float(low), float(high)
