"""What labels and logits have to be, and which pixels are valid."""

from typing import NoReturn

import torch
from torch import Tensor

from losses.errors import LossError

_NARROW = (torch.uint8, torch.int16, torch.int32)


def validate_batch(logits: Tensor, labels: Tensor, channels: int, binary: bool) -> Tensor:
    """Labels as (N, H, W), detached; a LossError if they or the logits have the wrong shape or dtype."""
    if logits.dim() != 4 or logits.shape[1] != channels or not logits.is_floating_point():
        raise LossError(
            f"logits must be (N, {channels}, H, W) of a float dtype, got {tuple(logits.shape)} {logits.dtype}"
        )
    if channels < 2 and not binary:
        raise LossError(f"a multiclass loss needs at least 2 channels of logits, got {tuple(logits.shape)}")
    count, _, height, width = logits.shape
    if labels.shape not in ((count, height, width), (count, 1, height, width)):
        raise LossError(f"labels must be {(count, height, width)}, got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or (labels.dtype == torch.bool and not binary):
        raise LossError(f"labels must be integers, the numbers of the classes, got {labels.dtype}")
    if labels.device != logits.device:
        raise LossError(f"labels are on {labels.device}, logits on {logits.device}")
    return labels.detach().reshape(count, height, width)


def can_sync(values: Tensor) -> bool:
    """Whether reading a value stalls nothing: not on CUDA, not while torch.compile traces."""
    return values.device.type != "cuda" and not torch.compiler.is_compiling()


def validate_range(
    labels: Tensor, num_classes: int, ignore_index: int | None
) -> tuple[Tensor, Tensor | None]:
    """Refuses labels out of range: a LossError, on CUDA an assertion on the device.

    Args:
        labels: (N, H, W) integers or bool.
        num_classes: labels are below it.
        ignore_index: label of ignored pixels, or None.

    Returns:
        The labels as int64, 0 at ignored pixels; and which pixels are valid, None where all are for sure.
    """
    look = labels.numel() > 0 and can_sync(labels)
    if not look or labels.dtype not in _NARROW:  # narrow labels are looked at as they are, which is faster
        labels = labels.long()
    if look:
        least, most = (int(end) for end in torch.aminmax(labels))
        if ignore_index is None or not least <= ignore_index <= most:
            if least < 0 or most >= num_classes:
                _raise_bad_labels(labels, num_classes)
            return labels.long(), None
    valid = None if ignore_index is None else labels != ignore_index
    labels = labels if valid is None else labels * valid
    if labels.numel():
        low, high = torch.aminmax(labels)
        fits = (low >= 0) & (high < num_classes)
        if not look:
            torch._assert_async(fits, f"labels must be 0 to {num_classes - 1} or ignore_index")
        elif not fits:
            _raise_bad_labels(labels, num_classes)
    return labels.long(), valid


def _raise_bad_labels(labels: Tensor, num_classes: int) -> NoReturn:
    wrong = labels[(labels < 0) | (labels >= num_classes)].unique().tolist()
    raise LossError(f"labels must be 0 to {num_classes - 1} or ignore_index, found {wrong[:8]}")
