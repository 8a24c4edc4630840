"""Scores equal a loop over the pixels of the whole split."""

import json
from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_seg.metrics.confusion import ConfusionMatrix, WindowClassCounts
from geo_seg.metrics.scores import (
    CalibrationScores,
    Reliability,
    SceneScore,
    ScoreIntervals,
    SegmentationScores,
    segmentation_scores,
)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**31), st.sampled_from([255, -1]))
def test_scores_equal_a_loop_over_pixels(classes: int, seed: int, ignore: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (2, 3, 4), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < 0.3] = ignore
    predicted = torch.randint(0, classes, labels.shape, generator=draw)
    metric = ConfusionMatrix(classes, ignore)
    for part in range(2):
        metric.update(predicted[part], labels[part].short())
    found = segmentation_scores(metric.compute(), [str(c) for c in range(classes)])
    pairs = [
        (t, p)
        for t, p in zip(labels.flatten().tolist(), predicted.flatten().tolist(), strict=True)
        if t != ignore
    ]
    assert found.pixels == len(pairs)
    ious = []
    for c, row in enumerate(found.classes):
        both = sum(t == c and p == c for t, p in pairs)
        truth, guess = sum(t == c for t, _ in pairs), sum(p == c for _, p in pairs)
        either = truth + guess - both
        assert row.iou == (both / either if either else None)
        assert row.precision == (both / guess if guess else None)
        assert row.recall == (both / truth if truth else None)
        assert row.f1 == (2 * both / (truth + guess) if truth + guess else None)
        assert row.support == truth
        if truth:
            ious.append(both / either)
    assert found.miou == (sum(ious) / len(ious) if ious else None)


def test_a_split_without_labels_has_no_scores() -> None:
    metric = ConfusionMatrix(2, 255)
    metric.update(torch.zeros(4, dtype=torch.long), torch.full((4,), 255))
    found = segmentation_scores(metric.compute(), ["a", "b"])
    assert found.miou is None
    assert found.accuracy is None


def test_windows_add_up_to_the_scenes_that_they_are_of() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (4, 5, 6), generator=draw)
    labels[0, :2] = 255
    predicted = torch.randint(0, 3, labels.shape, generator=draw)
    scenes, windows = ConfusionMatrix(3, 255, 2), WindowClassCounts(6, 3, 255)
    for part, (scene, number) in enumerate(((0, 1), (0, 0), (1, 4), (1, 5))):
        one = slice(part, part + 1)
        scenes.update(predicted[one], labels[one], torch.tensor([scene]))
        windows.update(predicted[one], labels[one], torch.tensor([number]))
    found = windows.compute()
    for scene, numbers in enumerate(([0, 1], [4, 5])):
        matrix = scenes.compute()[scene]
        expected = torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)])
        assert torch.equal(found[numbers].sum(0).long(), expected)
    assert not found[2:4].any()
    assert found[1, 1].sum() == 18


# what revision f3ba7bd wrote into metrics.json
CLASSES = (
    '{"name": "a", "iou": 0.75, "f1": 0.8571428571428571, "precision": 1.0, "recall": 0.75, "support": 4%s}',
    '{"name": "b", "iou": 0.8, "f1": 0.8888888888888888, "precision": 0.8, "recall": 1.0, "support": 4%s}',
    '{"name": "c", "iou": null, "f1": null, "precision": null, "recall": null, "support": 0%s}',
)
SPLIT = '{"miou": 0.775, "accuracy": 0.875, "pixels": 8, "classes": [%s, %s, %s], "confusion": %s'
CONFUSION = "[[3, 1, 0], [0, 4, 0], [0, 0, 0]]"
BOUNDARY = (
    ', "boundary_iou": 0.5, "boundary_pixels": 100',
    ', "boundary_iou": null, "boundary_pixels": 12',
    ', "boundary_iou": null, "boundary_pixels": 0',
)
RELIABILITY = '{"ece": 0.25, "nll": null, "pixels": [2], "confidence": [0.75], "accuracy": [null]}'
OF_A_RUN = (
    ', "calibration": {"temperature": 1.5, "threshold": 0.5'
    f', "raw": {RELIABILITY}, "scaled": {RELIABILITY}}}'
    ', "prediction": {"window": 64, "device": "cpu"}'
    ', "intervals": {"level": 0.95, "draws": 10, "unit": "scenes", "units": 6, "miou": [0.1, 0.2]'
    ', "accuracy": [0.3, 0.4], "classes": [[0.1, 0.2], null, null]}'
    ', "scenes": [{"name": "x", "pixels": 8, "miou": 0.8, "accuracy": 0.875, "iou": [0.75, 0.8, null]}]'
)


def test_scores_are_written_as_they_always_were() -> None:
    scores = segmentation_scores(torch.tensor(json.loads(CONFUSION)), ["a", "b", "c"])
    plain = SPLIT % (*(row % "" for row in CLASSES), CONFUSION)
    assert json.dumps(scores.to_json()) == plain + "}"
    reliability = Reliability(0.25, None, [2], [0.75], [None])
    scores = replace(
        scores,
        calibration=CalibrationScores(1.5, 0.5, reliability, reliability),
        prediction={"window": 64, "device": "cpu"},
        intervals=ScoreIntervals(0.95, 10, "scenes", 6, (0.1, 0.2), (0.3, 0.4), [(0.1, 0.2), None, None]),
        scenes=[SceneScore("x", 8, 0.8, 0.875, (0.75, 0.8, None))],
    )
    assert json.dumps(scores.to_json()) == plain + OF_A_RUN + "}"
    measured = zip(scores.classes, (0.5, None, None), (100, 12, 0), strict=True)
    rows = [replace(row, boundary_iou=iou, boundary_pixels=pixels) for row, iou, pixels in measured]
    bounded = SPLIT % (*(row % more for row, more in zip(CLASSES, BOUNDARY, strict=True)), CONFUSION)
    scores = replace(scores, classes=rows, boundary_iou=0.5)
    assert json.dumps(scores.to_json()) == bounded + ', "boundary_iou": 0.5' + OF_A_RUN + "}"


def test_scores_are_read_whatever_version_has_written_them() -> None:
    scores = segmentation_scores(torch.tensor(json.loads(CONFUSION)), ["a", "b", "c"])
    assert SegmentationScores.from_json(scores.to_json()).to_json() == scores.to_json()
    older = {"miou": 0.5, "classes": [{"name": "a", "iou": None, "dice": 0.1}], "scenes": [], "of": "later"}
    read = SegmentationScores.from_json(older)
    assert (read.miou, read.accuracy, read.classes[0].iou, read.has_boundary) == (0.5, None, None, False)
