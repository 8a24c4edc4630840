"""Checks of logits and labels, and the mask of valid pixels."""

from typing import NoReturn

import torch
from torch import Tensor

from losses.errors import LossError

_SMALL_INT_DTYPES = (torch.uint8, torch.int16, torch.int32)
_MAX_LABELS_SHOWN = 8


def validate_batch(logits: Tensor, labels: Tensor, channels: int, binary: bool) -> Tensor:
    """Check shapes, dtypes and devices of a batch.

    Args:
        logits: (N, channels, H, W) of a float dtype.
        labels: (N, H, W) or (N, 1, H, W) of an integer dtype, in binary mode also bool.
        channels: expected channels of the logits.
        binary: whether the task is binary.

    Returns:
        The labels as (N, H, W), detached.

    Raises:
        LossError: a wrong shape or dtype, or two devices.
    """
    if logits.dim() != 4 or logits.shape[1] != channels or not logits.is_floating_point():
        raise LossError(
            f"logits must be (N, {channels}, H, W) of a float dtype, got {tuple(logits.shape)} {logits.dtype}"
        )
    if channels < 2 and not binary:
        raise LossError(f"a multiclass loss needs at least 2 channels of logits, got {tuple(logits.shape)}")
    images, _, height, width = logits.shape
    if labels.shape not in ((images, height, width), (images, 1, height, width)):
        raise LossError(f"labels must be {(images, height, width)}, got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or (labels.dtype == torch.bool and not binary):
        raise LossError(f"labels must be integers, the numbers of the classes, got {labels.dtype}")
    if labels.device != logits.device:
        raise LossError(f"labels are on {labels.device}, logits on {logits.device}")
    return labels.detach().reshape(images, height, width)


def can_sync(values: Tensor) -> bool:
    """Return whether the host can read a value without a stall: not on CUDA, not under torch.compile."""
    return values.device.type != "cuda" and not torch.compiler.is_compiling()


def validate_range(
    labels: Tensor, num_classes: int, ignore_index: int | None
) -> tuple[Tensor, Tensor | None]:
    """Check that every label is a class or `ignore_index`.

    Args:
        labels: (N, H, W) integers or bool.
        num_classes: labels are below it.
        ignore_index: label of ignored pixels, or None.

    Returns:
        The labels as int64, 0 at ignored pixels; and the bool mask (N, H, W) of valid pixels, or None if no
        pixel can be ignored.

    Raises:
        LossError: a label out of range. On CUDA, where the host must not wait for the device, and under
            torch.compile it is an assertion on the device instead.
    """
    on_host = labels.numel() > 0 and can_sync(labels)
    if not on_host or labels.dtype not in _SMALL_INT_DTYPES:  # small dtypes are checked as they are: faster
        labels = labels.long()
    if on_host:
        lowest, highest = (int(end) for end in torch.aminmax(labels))
        if ignore_index is None or not lowest <= ignore_index <= highest:
            if lowest < 0 or highest >= num_classes:
                _raise_bad_labels(labels, num_classes)
            return labels.long(), None
    valid = None if ignore_index is None else labels != ignore_index
    labels = labels if valid is None else labels * valid
    if labels.numel():
        low, high = torch.aminmax(labels)
        in_range = (low >= 0) & (high < num_classes)
        if not on_host:
            torch._assert_async(in_range, f"labels must be 0 to {num_classes - 1} or ignore_index")
        elif not in_range:
            _raise_bad_labels(labels, num_classes)
    return labels.long(), valid


def _raise_bad_labels(labels: Tensor, num_classes: int) -> NoReturn:
    invalid = labels[(labels < 0) | (labels >= num_classes)].unique().tolist()
    raise LossError(
        f"labels must be 0 to {num_classes - 1} or ignore_index, found {invalid[:_MAX_LABELS_SHOWN]}"
    )
