"""Lovász-Softmax and Lovász hinge."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from losses.pixels import PixelLoss, Pixels, divide
from losses.ranking import order_bits
from losses.registry import ClassWeightsError, Task, refuse_weights, register
from losses.tversky_loss import listed_classes

BALANCED = "the Jaccard index balances the classes by itself"


class LovaszSoftmax(PixelLoss):
    """Lovász-Softmax loss (Berman et al. 2018, arXiv 1705.08790), the Lovász extension of the Jaccard loss.

    For a class c, with the errors e = |g_c - p_c| of the valid pixels sorted downwards and J_k the Jaccard
    loss of a prediction that is wrong in just the first k of them:

        loss_c = sum over k of e_k (J_k - J_(k - 1))
        loss = mean of loss_c over classes

    Value in [0, 1].

    Args:
        ignore_index: label of ignored pixels, or None.
        only_present: average over the classes that occur among the valid pixels; else over all, where an
            absent class gives its largest probability (as in GDL and in Berman's code).
        weight: must be None; it is there because scripts written for GDL may pass it by position.
        per_image: average over the images that have valid pixels, in place of ranking the whole batch.

    Raises:
        LossError: a weight.
    """

    def __init__(
        self,
        ignore_index: int | None = None,
        only_present: bool = True,
        weight: None = None,
        per_image: bool = False,
    ) -> None:
        super().__init__(ignore_index=ignore_index)
        if weight is not None:
            raise ClassWeightsError(f"no place for class weights: {BALANCED}")
        self.only_present = only_present
        self.per_image = per_image
        self.listed: list[int] | None = None

    def evaluate(self, pixels: Pixels) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in PixelLoss."""
        p = pixels.probabilities
        images, classes = p.shape[:2]
        groups = (images, classes) if self.per_image else (1, classes)
        target = pixels.labels.unsqueeze(1) == torch.arange(classes, device=p.device).view(1, -1, 1, 1)
        if pixels.valid is not None:
            target &= pixels.valid.unsqueeze(1)
        errors = (target.to(p.dtype) - p).abs_()
        rows = [_in_rows(x, self.per_image) for x in (errors, target, _spread_valid(pixels, classes))]
        share = self._shares(rows[1].any(1).view(groups), rows[2].any(1).view(groups)).to(p.dtype)
        extension, slope = lovasz_extension(*rows)
        value = (extension * share.flatten()).sum()
        if not pixels.wants_grad:
            return value, None
        slope = _from_rows(slope * share.view(-1, 1), p.shape, self.per_image)
        return value, pixels.through_activation(torch.where(target, -slope, slope))

    def _shares(self, present: Tensor, seen: Tensor) -> Tensor:
        """What each (image, class) contributes, from whether the class, and any pixel at all, is there."""
        counted = present if self.only_present else seen
        if self.listed is not None:
            listed = torch.zeros_like(counted)
            listed[:, self.listed] = True
            counted = counted & listed
        per_image = divide(counted.float(), counted.sum(1, keepdim=True).float())  # (images, classes)
        return divide(per_image, counted.any(1).sum().float())


class LovaszHinge(PixelLoss):
    """Lovász hinge (Berman et al. 2018, arXiv 1705.08790) of the foreground.

    As Lovász-Softmax with errors e = max(0, 1 - z (2t - 1)), z the logit and t the label. Value in [0, inf).

    Args:
        task: what is learnt; binary.
        per_image: average over the images that have valid pixels, in place of ranking the whole batch.
    """

    def __init__(self, task: Task, per_image: bool = False) -> None:
        super().__init__(task)
        self.per_image = per_image

    def evaluate(self, pixels: Pixels) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in PixelLoss."""
        logits = pixels.logits
        sign = pixels.labels.unsqueeze(1).to(logits.dtype).mul_(2).sub_(1)  # (N, 1, H, W)
        errors = pixels.keep((1.0 - logits * sign).clamp_(min=0) + 0.0)
        rows = [_in_rows(x, self.per_image) for x in (errors, sign > 0, _spread_valid(pixels, 1))]
        seen = rows[2].any(1).to(logits.dtype)
        share = divide(seen, seen.sum())
        extension, slope = lovasz_extension(*rows)
        value = (extension * share).sum()
        if not pixels.wants_grad:
            return value, None
        slope = _from_rows(slope * share.view(-1, 1), logits.shape, self.per_image)
        return value, torch.where(errors > 0, -slope * sign, 0.0)


def lovasz_extension(errors: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Lovász extension of the Jaccard loss, one for every row.

    With G the size of the target, and I and U the intersection and union that are left when the first k
    pixels (by falling error) are wrong, J_k = 1 - I / U. Its step is 1 / U for a pixel of the target (I falls
    by 1), and I / (U (U - 1)) for another (U grew by 1): no differences of nearly equal numbers.

    Args:
        errors: (R, P) at least 0, finite.
        target: (R, P) bool; pixels that belong to the class.
        valid: (R, P) bool; the others come last and count for nothing.

    Returns:
        The extension (R,), and its derivative by the errors (R, P).
    """
    rows = torch.arange(errors.shape[0], device=errors.device).view(-1, 1)
    falling = torch.where(valid, (1 << 31) - order_bits(errors), (1 << 31) + 1)
    order = ((rows << 33) + falling).flatten().sort().indices
    hit = target.flatten()[order].view(errors.shape)
    done = hit.cumsum(1, dtype=torch.int32)
    size = done[:, -1:]
    rank = torch.arange(1, errors.shape[1] + 1, dtype=torch.int32, device=errors.device)
    left = (size - done).to(errors.dtype)  # I
    union = (size + rank - done).to(errors.dtype)  # U
    step = torch.where(hit, 1.0, left / (union - 1.0).clamp(min=1.0)) / union
    step[:, :1] += (size == 0).to(errors.dtype)  # an absent class: J is 1 from the first error on
    step = torch.empty_like(errors).flatten().scatter_(0, order, step.flatten()).view(errors.shape)
    step = step * valid
    return (step * errors).sum(1), step


def _spread_valid(pixels: Pixels, channels: int) -> Tensor:
    valid = pixels.valid if pixels.valid is not None else torch.ones_like(pixels.labels, dtype=torch.bool)
    return valid.unsqueeze(1).expand(-1, channels, -1, -1)


def _in_rows(values: Tensor, per_image: bool) -> Tensor:
    """(N, C, H, W) -> one row per class (C, N H W), or per image and class (N C, H W)."""
    if per_image:
        return values.reshape(values.shape[0] * values.shape[1], -1)
    return values.transpose(0, 1).reshape(values.shape[1], -1)


def _from_rows(rows: Tensor, shape: torch.Size, per_image: bool) -> Tensor:
    if per_image:
        return rows.view(shape)
    images, classes, height, width = shape
    return rows.view(classes, images, height, width).transpose(0, 1)


@register("lovasz", modes=("binary", "multiclass"))
def lovasz(
    task: Task,
    *,
    per_image: bool = False,
    classes: Literal["present", "all"] | Sequence[int] = "present",
) -> nn.Module:
    """Lovász-Softmax loss, in binary mode Lovász hinge.

    The definitions of smp's LovaszLoss; that one fails on tiles without valid pixels, in half precision and
    on bool labels, takes labels out of range for background, and loops over classes and images.

    Args:
        task: what is learnt, without class weights.
        per_image: average over images in place of ranking the pixels of the whole batch together.
        classes: "present": the mean over classes that occur; "all": over all classes, absent ones as their
            largest probability; a list: over those of the listed classes that occur. In binary mode there is
            one class, the foreground, and it always counts.

    Returns:
        A `LovaszSoftmax` or a `LovaszHinge`.

    Raises:
        LossError: class weights in the task, or a list of classes in binary mode.
    """
    refuse_weights(task, BALANCED)
    listed = listed_classes(classes, task)
    if task.binary:
        return LovaszHinge(task, per_image)
    loss = LovaszSoftmax(task.ignore_index, classes != "all", None, per_image)
    loss.num_classes = task.num_classes
    loss.listed = None if isinstance(classes, str) else listed
    return loss
