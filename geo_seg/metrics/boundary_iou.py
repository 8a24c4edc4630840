"""Boundary IoU: how well the outlines of objects are met, whatever lies within them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchmetrics import Metric

from geo_seg.metrics.scores import mean_over_present, safe_divide

MIN_BOUNDARY_PIXELS = 100
"""Pixels in the band of a label below which its boundary IoU would be chance."""


class BoundaryIoU(Metric):
    """Boundary IoU of every class (Cheng et al. 2021, arXiv 2103.16562), summed over batches and processes.

    A pixel is in the band of its class if a valid pixel of another class lies within a distance of it, rows
    and columns apart (the square that the paper erodes with). Boundary IoU is the IoU of the bands of label
    and prediction. An ignored pixel makes no boundary, and neither does the edge of a window: what lies
    beyond isn't known.

    Args:
        num_classes: classes, at most 32000.
        ignore_index: label of pixels that aren't counted.
        width: of the band: below 1 a share of a window's diagonal, rounded to pixels; from 1 pixels.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, ignore_index: int, width: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.width = width
        # pixels in both bands, in the label's, and in the prediction's
        self.add_state("counts", torch.zeros(3, num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Counts a batch.

        Args:
            predicted: (N, H, W) class ids.
            labels: (N, H, W) class ids or ignore_index.
        """
        valid = labels.ne(self.ignore_index)
        distance = boundary_width_px(self.width, *labels.shape[-2:])
        truth, guess = (
            near_other_class(ids, valid, distance, self.num_classes) for ids in (labels, predicted)
        )
        size = self.num_classes + 1  # the last one is for pixels outside of the bands
        rows, cols = (
            torch.where(band, ids.int(), self.num_classes)
            for band, ids in ((truth, labels), (guess, predicted))
        )
        table = torch.bincount((rows * size + cols).flatten(), minlength=size**2).view(size, size)
        inside = slice(self.num_classes)
        self.counts += torch.stack((table.diagonal()[inside], table[inside].sum(1), table[:, inside].sum(0)))

    def compute(self) -> Tensor:
        """(3, classes) pixels in both bands, in the label's, and in the prediction's."""
        return self.counts


def boundary_iou_scores(
    counts: Tensor, least: int = MIN_BOUNDARY_PIXELS
) -> tuple[list[float | None], float | None]:
    """Boundary IoU out of what BoundaryIoU counts.

    Args:
        counts: (3, classes).
        least: pixels in the band of a class's label from which on it has a boundary to speak of.

    Returns:
        Per class, None where there is hardly a boundary; and the mean over the classes that have one.
    """
    both, truth, guess = counts.tolist()
    found = [
        safe_divide(b, t + g - b) if t >= least else None for b, t, g in zip(both, truth, guess, strict=True)
    ]
    return found, mean_over_present(found, truth)


def boundary_width_px(width: float, height: int, columns: int) -> int:
    """Pixels of a band, at least 1, for a width as BoundaryIoU takes it, in windows of this size."""
    return max(round(width * math.hypot(height, columns) if width < 1 else width), 1)


def near_other_class(ids: Tensor, valid: Tensor, distance: int, num_classes: int) -> Tensor:
    """Where a valid pixel has a valid pixel of another class within a distance.

    Args:
        ids: (N, H, W) class ids.
        valid: (N, H, W); other pixels have no class.
        distance: in pixels, rows and columns apart.
        num_classes: classes, at most 32000.

    Returns:
        (N, H, W) bool.
    """
    dtype = torch.uint8 if num_classes <= 256 else torch.int16  # the smaller, the faster
    # of all ids the least and the most: they don't count beside that of the pixel itself
    least, most = 0, num_classes - 1
    ids = ids.to(dtype)
    highest = _spread(torch.where(valid, ids, least), distance, torch.maximum, least)
    lowest = _spread(torch.where(valid, ids, most), distance, torch.minimum, most)
    return valid & (highest != lowest)


def _spread(values: Tensor, distance: int, pick: Callable[[Tensor, Tensor], Tensor], neutral: int) -> Tensor:
    """The extreme in a square around every pixel, by runs that double in length: no cost per pixel of it."""
    for dim, room in ((2, (distance, distance)), (1, (0, 0, distance, distance))):
        values = pad(values, room, value=neutral)
        length = 1
        while length < 2 * distance + 1:
            step = min(length, 2 * distance + 1 - length)
            size = values.shape[dim] - step
            values = pick(values.narrow(dim, 0, size), values.narrow(dim, step, size))
            length += step
    return values
