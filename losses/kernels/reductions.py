"""Sums over pixels, and arithmetic on the few numbers that they return."""

import torch
from torch import Tensor

from losses.kernels.validation import can_sync


def to_double(values: Tensor) -> Tensor:
    """Return the values in float64, or in float32 on MPS, which has no float64."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def sum_by_label(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return sum of values[n, h, w] over the pixels of each image n with labels[n, h, w] == c.

    Args:
        values: (N, H, W).
        labels: (N, H, W) int64, 0 to num_classes - 1.
        num_classes: number of classes.

    Returns:
        (N, C) in float64, see `to_double`.
    """
    if values.device.type == "cpu" and can_sync(values):
        index, length = labels, len(labels) * num_classes
        if len(labels) > 1:  # n C + c, the position in the flat (N, C)
            index = labels + torch.arange(0, length, num_classes).view(-1, 1, 1)
        sums = torch.zeros(length, dtype=torch.float64)
        return sums.scatter_add_(0, index.flatten(), values.flatten().double()).view(-1, num_classes)
    # scatter_add on a GPU is slow where many pixels share few positions, and its order is not fixed
    classes = torch.arange(num_classes, device=values.device).view(-1, 1, 1)
    one_hot = labels.unsqueeze(1) == classes  # (N, C, H, W)
    return to_double((one_hot * values.unsqueeze(1)).sum((2, 3)))


def safe_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return numerator / denominator, and 0 where the denominator is 0."""
    return torch.where(denominator == 0, 0.0, numerator / torch.where(denominator == 0, 1.0, denominator))
