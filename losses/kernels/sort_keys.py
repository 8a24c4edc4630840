"""Integer keys in the order of floating-point numbers, so that one sort key carries a value and its index."""

import torch
from torch import Tensor


def sortable_int_keys(values: Tensor) -> Tensor:
    """Return integers below 2^31 in the order of non-negative numbers.

    The bit pattern of a non-negative float32, read as an integer, grows with the number. A float64 has too
    many bits, so its key is its rank (equal numbers get consecutive ranks).

    Args:
        values: any shape, float32 or float64, at least +0.

    Returns:
        The same shape; for float32 a view of the same memory as int32, for float64 a new int64 tensor.
    """
    if values.dtype == torch.float32:
        return values.view(torch.int32)
    order = values.flatten().argsort()
    ranks = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    return ranks.view(values.shape)
