"""What labels and logits have to be, and which pixels are valid."""

import torch
from torch import Tensor

from losses.registry import LossError


def checked_labels(logits: Tensor, labels: Tensor, channels: int, binary: bool) -> Tensor:
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


def valid_pixels(labels: Tensor, ignore_index: int) -> Tensor | None:
    """Where labels are not ignore_index; None where a cheap look says that all are."""
    if labels.numel() and host_may_look(labels):
        low, high = torch.aminmax(labels)
        if not low <= ignore_index <= high:
            return None
    return labels != ignore_index


def host_may_look(values: Tensor) -> bool:
    """Whether reading a value stalls nothing: not on CUDA, not while torch.compile traces."""
    return values.device.type != "cuda" and not torch.compiler.is_compiling()


def check_range(labels: Tensor, num_classes: int) -> None:
    """Refuses labels out of range: a LossError, on CUDA an assertion on the device."""
    if labels.numel() == 0:
        return
    low, high = torch.aminmax(labels)
    fits = (low >= 0) & (high < num_classes)
    if not host_may_look(labels):
        torch._assert_async(fits, f"labels must be 0 to {num_classes - 1} or ignore_index")
    elif not fits:
        wrong = labels[(labels < 0) | (labels >= num_classes)].unique().tolist()
        raise LossError(f"labels must be 0 to {num_classes - 1} or ignore_index, found {wrong[:8]}")
