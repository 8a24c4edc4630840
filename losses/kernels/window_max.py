"""Sliding-window maximum and minimum with the pixel that they come from (argmax).

A window of k x k is a row of k after a column of k, and a row of k is the maximum of two overlapping runs
whose length is a power of two, made by doubling: 2 log2 k steps instead of k^2. One integer key holds a value
and its pixel, so no second search is needed: the key of a window tells where its extreme lies.

For windows up to 31 pixels wide the code (32 y + x) mod 1024 identifies the pixel: dy and dx from the centre
of the window follow from the difference to the code of the centre, as -16 < dx, dy < 16. That leaves 21 bits
of an int32 for a probability; of values closer than 2^-21 either may be returned as the extreme.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from losses.kernels.sort_keys import sortable_int_keys

_NUM_CODES = 1 << 10
_MAX_LEVEL = (1 << 21) - 1


def windowed_max(values: Tensor, size: int, outside: int) -> Tensor:
    """Return the largest integer in the size x size window around every pixel.

    Args:
        values: (..., H, W) integers.
        size: side of the windows, odd.
        outside: padding value beyond the border; not above any value.

    Returns:
        The same shape.
    """
    for dim in (-2, -1):
        values = _windowed_max_1d(values, size, dim, outside)
    return values


class WindowArgmax:
    """Encoder and decoder of (value, pixel) keys, for one window size and one image size.

    Args:
        values: (N, C, H, W) in [0, 1], a tensor of the dtype and size that the keys are for.
        size: side of the windows, odd.
    """

    def __init__(self, values: Tensor, size: int) -> None:
        self.height, self.width = values.shape[-2:]
        self.size = size
        radius = max(_radius(size, length) for length in (self.height, self.width))
        self.int32_keys = values.dtype == torch.float32 and radius < 16
        rows, columns = (
            torch.arange(n, device=values.device, dtype=torch.int32) for n in (self.height, self.width)
        )
        self.pixel_index = rows.view(-1, 1) * self.width + columns  # (H, W) int32
        self.codes = (rows.view(-1, 1) * 32 + columns) & (_NUM_CODES - 1)

    def extreme_keys(self, values: Tensor, valid: Tensor | None, *, largest: bool) -> Tensor:
        """Return the keys of the largest or smallest value in the window around every pixel.

        Args:
            values: (N, C, H, W) in [0, 1].
            valid: (N, H, W) bool; invalid pixels count like pixels outside the image. None if all are valid.
            largest: True for the largest value, False for the smallest.

        Returns:
            (N, C, H, W) integers; arbitrary around pixels without a valid pixel in their window.
        """
        if self.int32_keys:  # 21 bits of the value, 10 bits of the code
            keys = (values * float(_MAX_LEVEL if largest else -_MAX_LEVEL)).int()
            keys = keys if largest else keys.add_(_MAX_LEVEL)
            keys.mul_(_NUM_CODES).add_(self.codes)
        else:  # 31 bits of the value, 32 bits of the pixel index
            keys = sortable_int_keys(values).to(torch.int64, copy=True)
            keys = keys if largest else keys.neg_().add_((1 << 31) - 1)
            keys.bitwise_left_shift_(32).bitwise_or_(self.pixel_index)
        if valid is not None:  # -1, below every key, at invalid pixels
            keys.bitwise_or_(valid.to(keys.dtype).sub_(1).unsqueeze(1))
        return windowed_max(keys, self.size, -1)

    def decode_index(self, keys: Tensor) -> Tensor:
        """Return the pixel index of the extreme of the window around every pixel.

        Args:
            keys: (..., H, W), from `extreme_keys`.

        Returns:
            (..., H, W) int32, y width + x; inside the image for every key.
        """
        if not self.int32_keys:
            return keys.clamp(min=0).bitwise_and_((1 << 32) - 1).int()
        # 32 (dy + 16) + dx + 16
        offsets = (keys - self.codes).add_(16 * 32 + 16).bitwise_and_(_NUM_CODES - 1)
        # pixel_index + width dy + dx, with dy = (offsets >> 5) - 16 and dx = offsets - 32 (dy + 16) - 16
        index = (offsets >> 5).mul_(self.width - 32).add_(offsets).sub_(16 * self.width + 16)
        return index.add_(self.pixel_index).clamp_(0, self.height * self.width - 1)


def _radius(size: int, length: int) -> int:
    """Return the radius of a window of a side, at most the image's length - 1."""
    return max(min(size // 2, length - 1), 0)


def _windowed_max_1d(values: Tensor, size: int, dim: int, outside: int) -> Tensor:
    radius = _radius(size, values.shape[dim])
    if not radius:
        return values
    padding = (radius, radius) if dim == -1 else (0, 0, radius, radius)
    runs, length = pad(values, padding, value=outside), 1
    while 2 * length <= 2 * radius + 1:
        runs, length = _max_with_shifted(runs, length, dim), 2 * length
    remainder = 2 * radius + 1 - length
    return _max_with_shifted(runs, remainder, dim) if remainder else runs


def _max_with_shifted(values: Tensor, shift: int, dim: int) -> Tensor:
    length = values.shape[dim] - shift
    return torch.maximum(values.narrow(dim, 0, length), values.narrow(dim, shift, length))
