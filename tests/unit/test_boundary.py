"""Boundary IoU equals erosion pixel by pixel, and the paper's where nothing is ignored."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_seg.metrics.boundary_iou import BoundaryIoU, boundary_iou_scores, boundary_width_px
from losses import Task


def band(ids: np.ndarray, valid: np.ndarray, of: int, distance: int) -> np.ndarray:
    """Pixels of a class that lose it when its mask is eroded; what isn't valid erodes nothing."""
    found = np.zeros(ids.shape, bool)
    for row, col in np.argwhere(valid & (ids == of)):
        rows = slice(max(row - distance, 0), row + distance + 1)
        cols = slice(max(col - distance, 0), col + distance + 1)
        found[row, col] = (valid[rows, cols] & (ids[rows, cols] != of)).any()
    return found


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([255, -1, 0]))
def test_counts_equal_erosion_pixel_by_pixel(classes: int, distance: int, seed: int, ignore: int) -> None:
    draw = np.random.default_rng(seed)

    def blocks() -> np.ndarray:
        return np.kron(draw.integers(0, classes, (2, 4, 3)), np.ones((1, 4, 5), int))[:, :13, :11]

    labels, predicted = blocks(), blocks()
    labels[draw.random(labels.shape) < 0.2] = ignore
    metric = BoundaryIoU(Task("multiclass", classes, ignore), distance)
    for part in range(2):
        metric.update(
            torch.from_numpy(predicted[part : part + 1]), torch.from_numpy(labels[part : part + 1]).short()
        )
    found, mean = boundary_iou_scores(metric.compute(), min_pixels=0)
    expected: list[float | None] = []
    present = []
    for c in range(classes):
        both = either = truth = 0
        for label, guess in zip(labels, predicted, strict=True):
            a, b = (band(ids, label != ignore, c, distance) for ids in (label, guess))
            both, either, truth = both + (a & b).sum(), either + (a | b).sum(), truth + a.sum()
        expected.append(both / either if either else None)
        if truth:
            present.append(both / either)
    assert found == pytest.approx(expected)
    assert mean == pytest.approx(sum(present) / len(present) if present else None)


def test_a_square_that_is_moved_by_a_pixel_has_the_boundary_iou_of_the_paper() -> None:
    # erosion by 2 of a 12 x 12 square leaves 8 x 8, so its band has 80 pixels
    labels, predicted = torch.zeros(1, 30, 30, dtype=torch.long), torch.zeros(1, 30, 30, dtype=torch.long)
    labels[:, 9:21, 9:21] = 1
    predicted[:, 9:21, 10:22] = 1
    metric = BoundaryIoU(Task("multiclass", 2, 255), 2)
    metric.update(predicted, labels)
    both, truth, guess = metric.compute()[:, 1].tolist()
    ours = np.zeros((2, 30, 30), bool)
    for number, mask in enumerate((labels, predicted)):
        inside = torch.nn.functional.max_pool2d(1.0 - mask.float(), 5, 1, 2) == 0
        ours[number] = (mask.bool() & ~inside).numpy()
    assert (truth, guess) == (80, 80)
    assert both == (ours[0] & ours[1]).sum()


def test_what_is_ignored_and_what_lies_beyond_the_window_is_no_boundary() -> None:
    labels = torch.ones(1, 9, 9, dtype=torch.long)
    labels[:, 4] = 255
    metric = BoundaryIoU(Task("multiclass", 2, 255), 2)
    metric.update(torch.ones(1, 9, 9, dtype=torch.long), labels)
    assert not metric.compute().any()
    assert boundary_iou_scores(metric.compute(), min_pixels=0) == ([None, None], None)


def test_the_band_is_a_share_of_the_diagonal_or_pixels() -> None:
    assert boundary_width_px(0.02, 300, 400) == 10
    assert boundary_width_px(0.02, 16, 16) == 1
    assert boundary_width_px(3, 300, 400) == 3


@pytest.mark.fault("report", "boundary IoU of a class with hardly a boundary is a number like any other")
@pytest.mark.parametrize(
    ("pixels", "defined"), [(0, False), (1, False), (99, False), (100, True), (5000, True)]
)
def test_hardly_a_boundary_has_no_boundary_iou_and_takes_no_part_in_the_mean(
    pixels: int, defined: bool
) -> None:
    counts = torch.tensor([[pixels // 2, 300], [pixels, 400], [pixels, 400]])
    (few, many), mean = boundary_iou_scores(counts)
    assert many == pytest.approx(300 / 500)
    expected = (pixels // 2) / (2 * pixels - pixels // 2) if defined else None
    assert few == pytest.approx(expected)
    assert mean == pytest.approx(many if expected is None else (many + expected) / 2)
