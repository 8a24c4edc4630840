"""Largest and smallest values in square windows, with the places they come from.

A window of k x k is a row of k after a column of k, and a row of k is covered by two overlapping runs of a
power of two that are made by doubling: 2 log2 k steps in place of k^2. Value and place travel together in one
integer key, so nothing is searched twice: the key of a window tells where its extreme lies.

For windows up to 31 pixels wide a place needs no more than the code (32 y + x) mod 1024: dy and dx from the
middle of the window follow from the difference to the middle's own code, as -16 < dx, dy < 16. That leaves 21
bits of an int32 for a probability; of values closer than 2^-21 either may be taken for the extreme.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from losses.kernels.sort_keys import sortable_int_keys

_CODES, _STEPS = 1 << 10, (1 << 21) - 1


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


class WindowArgmax:
    """Keys of values and places, and back, for windows of one size on images of one size.

    Args:
        values: (N, C, H, W) in [0, 1], of the dtype and size that the keys are for.
        size: side of the windows, odd.
    """

    def __init__(self, values: Tensor, size: int) -> None:
        self.height, self.width = values.shape[-2:]
        self.size = size
        reach = max(_reach(size, length) for length in (self.height, self.width))
        self.short = values.dtype == torch.float32 and reach < 16
        rows, columns = (
            torch.arange(n, device=values.device, dtype=torch.int32) for n in (self.height, self.width)
        )
        self.flat = rows.view(-1, 1) * self.width + columns  # (H, W) int32
        self.codes = (rows.view(-1, 1) * 32 + columns) & (_CODES - 1)

    def extremes(self, values: Tensor, valid: Tensor | None, *, largest: bool) -> Tensor:
        """Keys of the largest or smallest value in the window around every pixel.

        Args:
            values: (N, C, H, W) in [0, 1].
            valid: (N, H, W) bool; the others are taken for outside of the image. None for all.
            largest: the largest, or else the smallest.

        Returns:
            (N, C, H, W) integers; arbitrary around pixels with no valid pixel in their window.
        """
        if self.short:
            keys = (values * float(_STEPS if largest else -_STEPS)).int()
            keys = keys if largest else keys.add_(_STEPS)
            keys.mul_(_CODES).add_(self.codes)
        else:
            keys = sortable_int_keys(values).to(torch.int64, copy=True)
            keys = keys if largest else keys.neg_().add_((1 << 31) - 1)
            keys.bitwise_left_shift_(32).bitwise_or_(self.flat)
        if valid is not None:  # -1 at the others
            keys.bitwise_or_(valid.to(keys.dtype).sub_(1).unsqueeze(1))
        return windowed_max(keys, self.size, -1)

    def find(self, keys: Tensor) -> Tensor:
        """Where the extremes of the windows around all pixels lie.

        Args:
            keys: (..., H, W), as extremes gives them.

        Returns:
            (..., H, W) int32, y width + x; inside the image for every key.
        """
        if not self.short:
            return keys.clamp(min=0).bitwise_and_((1 << 32) - 1).int()
        # 32 (dy + 16) + dx + 16
        steps = (keys - self.codes).add_(16 * 32 + 16).bitwise_and_(_CODES - 1)
        found = (steps >> 5).mul_(self.width - 32).add_(steps).sub_(16 * self.width + 16).add_(self.flat)
        return found.clamp_(0, self.height * self.width - 1)


def _reach(size: int, length: int) -> int:
    return max(min(size // 2, length - 1), 0)


def _run_max(values: Tensor, size: int, dim: int, outside: int) -> Tensor:
    reach = _reach(size, values.shape[dim])
    if not reach:
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
