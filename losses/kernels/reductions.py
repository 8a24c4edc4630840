"""Sums over pixels, and arithmetic on a few of them."""

import torch
from torch import Tensor

from losses.kernels.validation import can_sync


def to_double(values: Tensor) -> Tensor:
    """Float64, for arithmetic on a few sums; float32 on devices that have nothing wider."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def sum_by_label(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Sums over the pixels of each image and class.

    Args:
        values: (N, H, W).
        labels: (N, H, W) int64, 0 to classes - 1.
        classes: number of classes.

    Returns:
        (N, C) in float64, see `wide`.
    """
    if values.device.type == "cpu" and can_sync(values):
        cells, count = labels, len(labels) * classes
        if len(labels) > 1:
            cells = labels + torch.arange(0, count, classes).view(-1, 1, 1)
        sums = torch.zeros(count, dtype=torch.float64)
        return sums.scatter_add_(0, cells.flatten(), values.flatten().double()).view(-1, classes)
    # additions by index are slow on a GPU when they meet in a few places, and their order is not fixed
    numbers = torch.arange(classes, device=values.device).view(-1, 1, 1)
    mine = labels.unsqueeze(1) == numbers  # (N, C, H, W)
    return to_double((mine * values.unsqueeze(1)).sum((2, 3)))


def safe_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Numerator / denominator, and 0 where the denominator is 0."""
    return torch.where(denominator == 0, 0.0, numerator / torch.where(denominator == 0, 1.0, denominator))
