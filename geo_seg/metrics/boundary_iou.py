"""Boundary IoU: the IoU of the pixels near the boundaries between classes."""

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from geo_seg.metrics.calibration import valid_mask
from geo_seg.metrics.confusion import class_counts_of, confusion_matrices
from geo_seg.metrics.registry import SegmentationMetric, register_metric
from geo_seg.metrics.scores import class_iou, mean_over_present, nan_to_none
from losses import Task

MIN_BOUNDARY_PIXELS = 100
"""Boundary pixels of a class in the labels below which its boundary IoU would be chance."""


@register_metric
class BoundaryIoU(SegmentationMetric):
    """Boundary IoU of every class (Cheng et al. 2021, arXiv 2103.16562), summed over batches and processes.

    A boundary pixel of a class has a valid pixel of another class within a distance, in rows and columns (the
    square that the paper erodes with). Boundary IoU is the IoU of the boundary pixels of label and
    prediction. An ignored pixel makes no boundary, and neither does the edge of a window: what lies beyond
    isn't known.

    Args:
        task: classes, at most 32000, and ignore_index.
        width: of the boundary: below 1 a share of a window's diagonal, rounded to pixels; from 1 pixels.
    """

    counts: Tensor

    def __init__(self, task: Task, width: float) -> None:
        super().__init__(task)
        self.width = width
        # boundary pixels of both label and prediction, of the label, and of the prediction
        self.add_state("counts", torch.zeros(3, task.num_classes, dtype=torch.long), dist_reduce_fx="sum")

    @classmethod
    def of(cls, task: Task, boundary: float) -> Self | None:
        """Return it for a boundary of a width above 0."""
        return cls(task, boundary) if boundary else None

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            predicted: (N, H, W) class ids.
            labels: (N, H, W) class ids or ignore_index.
        """
        valid = valid_mask(labels, self.task.ignore_index)
        distance = boundary_width_px(self.width, *labels.shape[-2:])
        classes = self.task.num_classes  # the class after the last one is for pixels away from boundaries
        on_label, on_prediction = (
            torch.where(near_other_class(ids, valid, distance, classes), ids.int(), classes)[None]
            for ids in (labels, predicted)
        )
        matrix = confusion_matrices(on_prediction, on_label, classes + 1, None)
        self.counts += class_counts_of(matrix)[0, :, :classes]

    def compute(self) -> Tensor:
        """Return (3, classes) boundary pixels of both, of the labels, and of the predictions."""
        return self.counts

    def scores(self) -> dict[str, Any]:
        """Return boundary_iou, and per class boundary_iou and boundary_pixels, see boundary_iou_scores."""
        counts = self.compute()
        class_ious, mean = boundary_iou_scores(counts)
        columns = zip(class_ious, counts[1].tolist(), strict=True)
        rows = [{"boundary_iou": iou, "boundary_pixels": pixels} for iou, pixels in columns]
        return {"boundary_iou": mean, "classes": rows}


def boundary_iou_scores(
    counts: Tensor, min_pixels: int = MIN_BOUNDARY_PIXELS
) -> tuple[list[float | None], float | None]:
    """Return the boundary IoU of each class and their mean.

    Args:
        counts: (3, classes) from BoundaryIoU.
        min_pixels: boundary pixels in the labels from which on a class has a score.

    Returns:
        Per class, None where there is hardly a boundary; and the mean over the classes that have one.
    """
    table = counts.cpu().numpy()
    support = table[1].tolist()
    scores = [
        iou if pixels >= min_pixels else None
        for iou, pixels in zip(nan_to_none(class_iou(table)), support, strict=True)
    ]
    return scores, mean_over_present(scores, support)


def boundary_width_px(width: float, height: int, columns: int) -> int:
    """Return the boundary width in pixels, at least 1, in windows of this size; `width` as of BoundaryIoU."""
    return max(round(width * math.hypot(height, columns) if width < 1 else width), 1)


def near_other_class(ids: Tensor, valid: Tensor, distance: int, num_classes: int) -> Tensor:
    """Return where a valid pixel has a valid pixel of another class within a distance.

    Args:
        ids: (N, H, W) class ids.
        valid: (N, H, W) bool; other pixels have no class.
        distance: in pixels, in rows and columns.
        num_classes: number of classes, at most 32000.

    Returns:
        (N, H, W) bool.
    """
    dtype = torch.uint8 if num_classes <= 256 else torch.int16  # the smaller, the faster
    # the lowest and the highest id are neutral for maximum and minimum
    lowest_id, highest_id = 0, num_classes - 1
    ids = ids.to(dtype)
    highest = _window_extreme(torch.where(valid, ids, lowest_id), distance, torch.maximum, lowest_id)
    lowest = _window_extreme(torch.where(valid, ids, highest_id), distance, torch.minimum, highest_id)
    return valid & (highest != lowest)


def _window_extreme(
    values: Tensor, distance: int, pick: Callable[[Tensor, Tensor], Tensor], neutral: int
) -> Tensor:
    """Return the extreme in a square around every pixel, by runs that double in length."""
    for dim, padding in ((2, (distance, distance)), (1, (0, 0, distance, distance))):
        values = pad(values, padding, value=neutral)
        length = 1
        while length < 2 * distance + 1:
            step = min(length, 2 * distance + 1 - length)
            size = values.shape[dim] - step
            values = pick(values.narrow(dim, 0, size), values.narrow(dim, step, size))
            length += step
    return values
