"""Largest and smallest values in square windows, with the places they come from.

A window of k x k is a row of k after a column of k, and a row of k is covered by two overlapping runs of a
power of two that are made by doubling: 2 log2 k steps in place of k^2. Value and place travel together in one
integer, so the backward pass knows where each extreme came from without a second search.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from losses.ranking import order_bits


def windowed_max(values: Tensor, size: int, outside: int) -> Tensor:
    """The largest integer in the size x size window around every pixel.

    Args:
        values: (..., H, W) integers.
        size: side of the windows, odd.
        outside: what lies beyond the border; not above any value.

    Returns:
        The same shape.
    """
    for dim in (-2, -1):
        values = _run_max(values, size, dim, outside)
    return values


def windowed_extreme(
    values: Tensor, valid: Tensor | None, size: int, *, largest: bool
) -> tuple[Tensor, Tensor]:
    """The largest or smallest number in the window around every pixel, and where it is.

    Args:
        values: (N, C, H, W) contiguous, not negative, float32 or float64.
        valid: (N, H, W) bool; the others are taken for outside of the image. None for all.
        size: side of the windows, odd.
        largest: the largest, or else the smallest.

    Returns:
        The extreme (N, C, H, W), and its place in its plane, in (N, C, H W) int64. Both are arbitrary where a
        window has no valid pixel.
    """
    height, width = values.shape[-2:]
    keys = order_bits(values).to(torch.int64, copy=True)
    if not largest:
        keys.neg_().add_((1 << 31) - 1)
    place = torch.arange(height * width, device=values.device).view(height, width)
    keys.bitwise_left_shift_(32).bitwise_or_(place)
    if valid is not None:
        keys = torch.where(valid.unsqueeze(1), keys, -1)
    keys = windowed_max(keys, size, -1).clamp_(min=0)
    index = (keys & ((1 << 32) - 1)).flatten(2)
    return values.flatten(2).gather(2, index).view(values.shape), index


def _run_max(values: Tensor, size: int, dim: int, outside: int) -> Tensor:
    length = values.shape[dim]
    reach = min(size // 2, length - 1)
    if reach <= 0:
        return values
    sides = (reach, reach) if dim == -1 else (0, 0, reach, reach)
    runs, run = pad(values, sides, value=outside), 1
    while 2 * run <= 2 * reach + 1:
        runs, run = _max_with_shifted(runs, run, dim), 2 * run
    rest = 2 * reach + 1 - run
    return _max_with_shifted(runs, rest, dim) if rest else runs


def _max_with_shifted(values: Tensor, shift: int, dim: int) -> Tensor:
    length = values.shape[dim] - shift
    return torch.maximum(values.narrow(dim, 0, length), values.narrow(dim, shift, length))
