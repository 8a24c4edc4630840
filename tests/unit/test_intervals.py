"""Intervals hold what drawing the places one by one gives, and cover the truth as often as they say."""

import numpy as np
import pytest

from geo_seg.metrics.bootstrap import ResamplingUnits, bootstrap_intervals, resampling_units


def drawn(count: int, seed: int, share: float = 0.8) -> np.ndarray:
    """(places, 3, 2) right, labelled and predicted pixels; each place has an accuracy of its own."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        labels = draw.integers(0, 2, 400)
        right = draw.random(400) < np.clip(draw.normal(share, 0.1), 0, 1)
        predicted = np.where(right, labels, 1 - labels)
        both = np.bincount(labels[right], minlength=2)
        found.append([both, np.bincount(labels, minlength=2), np.bincount(predicted, minlength=2)])
    return np.array(found)


def test_intervals_equal_a_loop_over_the_draws() -> None:
    counts = drawn(8, 1)
    found = bootstrap_intervals(ResamplingUnits("scenes", counts), 300, 7)
    assert found is not None
    draw = np.random.default_rng(7)
    values = []
    for weights in draw.multinomial(8, np.full(8, 1 / 8), 300):
        right, labelled, predicted = sum(w * c for w, c in zip(weights, counts, strict=True))
        iou = right / (labelled + predicted - right)
        values.append([iou.mean(), right.sum() / labelled.sum(), *iou])
    low, high = np.percentile(values, (2.5, 97.5), axis=0)
    assert found.miou == pytest.approx((low[0], high[0]))
    assert found.accuracy == pytest.approx((low[1], high[1]))
    assert np.array(found.classes) == pytest.approx(np.stack([low[2:], high[2:]], 1))
    assert (found.unit, found.units, found.draws) == ("scenes", 8, 300)


def test_the_same_seed_gives_the_same_intervals() -> None:
    places = ResamplingUnits("scenes", drawn(8, 1))
    assert bootstrap_intervals(places, 100, 3) == bootstrap_intervals(places, 100, 3)
    assert bootstrap_intervals(places, 100, 3) != bootstrap_intervals(places, 100, 4)
    assert bootstrap_intervals(places, 0, 3) is None
    assert bootstrap_intervals(None, 100, 3) is None


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(60):
        found = bootstrap_intervals(ResamplingUnits("scenes", drawn(25, seed)), 200, seed)
        assert found is not None
        held += found.accuracy[0] <= 0.797 <= found.accuracy[1]  # clipping lowers the mean a little
    assert 48 <= held <= 60


def test_scenes_are_drawn_or_else_windows_and_places_without_labels_are_left_out() -> None:
    windows = drawn(12, 2)
    windows[11] = 0
    many = resampling_units(windows, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    assert many is not None and many.unit == "scenes" and len(many.counts) == 6
    assert many.counts[0].tolist() == (windows[0] + windows[1]).tolist()
    few = resampling_units(windows, [0] * 12)
    assert few is not None and few.unit == "windows" and len(few.counts) == 11
    assert resampling_units(windows[:4], [0, 1, 2, 3]) is None


def test_a_class_that_no_place_has_has_no_interval() -> None:
    counts = drawn(6, 3)
    counts = np.concatenate([counts, np.zeros((6, 3, 1), int)], axis=2)
    found = bootstrap_intervals(ResamplingUnits("scenes", counts), 50, 0)
    assert found is not None and found.classes[2] is None
