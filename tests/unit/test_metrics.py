"""Scores equal a loop over the pixels of the whole split."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_seg.metrics.confusion import ConfusionMatrix, WindowClassCounts
from geo_seg.metrics.scores import segmentation_scores


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
    assert found["pixels"] == len(pairs)
    ious = []
    for c, row in enumerate(found["classes"]):
        both = sum(t == c and p == c for t, p in pairs)
        truth, guess = sum(t == c for t, _ in pairs), sum(p == c for _, p in pairs)
        either = truth + guess - both
        assert row["iou"] == (both / either if either else None)
        assert row["precision"] == (both / guess if guess else None)
        assert row["recall"] == (both / truth if truth else None)
        assert row["f1"] == (2 * both / (truth + guess) if truth + guess else None)
        assert row["support"] == truth
        if truth:
            ious.append(both / either)
    assert found["miou"] == (sum(ious) / len(ious) if ious else None)


def test_a_split_without_labels_has_no_scores() -> None:
    metric = ConfusionMatrix(2, 255)
    metric.update(torch.zeros(4, dtype=torch.long), torch.full((4,), 255))
    found = segmentation_scores(metric.compute(), ["a", "b"])
    assert found["miou"] is None
    assert found["accuracy"] is None


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
