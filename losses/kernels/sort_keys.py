"""Floating-point numbers as integers of the same order, so that value and place travel in one sort key."""

import torch
from torch import Tensor


def sortable_int_keys(values: Tensor) -> Tensor:
    """Integers below 2^31 in the order of numbers that are not negative.

    The bit pattern of a float32 that is not negative grows with it. Of a float64 it has too many bits, so
    there it is the rank (equal numbers get neighbouring ranks).

    Args:
        values: any shape, float32 or float64, at least +0.

    Returns:
        The same shape; of a float32 its own memory seen as int32, else int64.
    """
    if values.dtype == torch.float32:
        return values.view(torch.int32)
    order = values.flatten().argsort()
    ranks = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    return ranks.view(values.shape)
