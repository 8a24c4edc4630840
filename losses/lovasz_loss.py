"""Lovász-Softmax and Lovász hinge."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from losses.pixels import PixelLoss, Pixels, divide, wide
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

    Value in [0, 1]. In float32 errors that lie closer than 6e-8 may swap their ranks: the value changes by no
    more than that, the gradient of single pixels by up to 2e-5 of the largest.

    Args:
        ignore_index: label of ignored pixels, or None.
        only_present: average over the classes that occur among the valid pixels; else over all, where an
            absent class gives its largest probability (as in GDL and in Berman's code).
        weight: must be None; it is there because scripts written for GDL may pass it by position.
        per_image: average over the images that have valid pixels, in place of ranking the whole batch.

    Raises:
        LossError: a weight.
    """

    listed: Tensor | None

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
        self.register_buffer("listed", None, persistent=False)

    def evaluate(self, pixels: Pixels) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in PixelLoss."""
        p = pixels.probabilities
        groups = len(p) if self.per_image else 1
        index, own = (_by_group(x.unsqueeze(1), groups) for x in (pixels.labels, pixels.ones))  # (G, 1, P)
        errors = _by_group(p, groups).clone()  # (G, C, P), p_c; and 1 - p_c for the class of the label
        errors.scatter_(1, index, own - errors.gather(1, index))
        target = torch.zeros_like(errors, dtype=torch.int32).scatter_(1, index, own.int())
        present = target.any(2)  # (G, C)
        share = self._shares(present, own.any(2).expand_as(present)).to(p.dtype)
        extension, slope = lovasz_extension(errors.flatten(0, 1), target.flatten(0, 1), unit=True)
        value = (extension * share.flatten()).sum()
        if not pixels.wants_grad:
            return value, None
        slope = slope.mul_(share.view(-1, 1)).view(errors.shape)
        slope.scatter_(1, index, -slope.gather(1, index))  # by the probability of the class of the label
        return value, pixels.through_activation(_by_image(slope, p.shape))

    def _shares(self, present: Tensor, seen: Tensor) -> Tensor:
        """(G, C) what each class contributes, from whether it, and any pixel at all, is there."""
        counted = present if self.only_present else seen
        if self.listed is not None:
            counted = counted & self.listed
        shares = divide(wide(counted), counted.sum(1, keepdim=True))
        return divide(shares, counted.any(1).sum())


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
        groups = len(logits) if self.per_image else 1
        sign = pixels.labels.unsqueeze(1).to(logits.dtype).mul_(2).sub_(1)  # (N, 1, H, W)
        errors = pixels.keep((1.0 - logits * sign).clamp_(min=0) + 0.0)  # + 0.0: no -0.0
        rows = (_by_group(errors, groups)[:, 0], _by_group(sign > 0, groups)[:, 0].int())  # (G, P)
        seen = _by_group(pixels.ones.unsqueeze(1), groups).any(2).to(logits.dtype)  # (G, 1)
        share = divide(seen, seen.sum())
        extension, slope = lovasz_extension(*rows, unit=False)
        value = (extension * share.flatten()).sum()
        if not pixels.wants_grad:
            return value, None
        slope = _by_image(slope.mul_(share).unsqueeze(1), logits.shape)
        return value, (slope * sign).neg_().masked_fill_(errors <= 0, 0.0)


def lovasz_extension(errors: Tensor, target: Tensor, *, unit: bool) -> tuple[Tensor, Tensor]:
    """Lovász extension of the Jaccard loss, one for every row.

    With G the size of the target, and I and U the intersection and union that are left when the first k
    pixels (by falling error) are wrong, J_k = 1 - I / U. Its step is 1 / U for a pixel of the target (I falls
    by 1), and I / (U (U - 1)) for another (U grew by 1): no differences of nearly equal numbers.

    Args:
        errors: (R, P) at least 0, finite; 0 at pixels that count for nothing, so that they come last.
        target: (R, P) int32, 1 for pixels that belong to the class, 0 for others and those that don't count.
        unit: whether errors are at most 1. In float32 they are then ranked by steps of 2^-24, which is what
            float32 tells apart near 1; smaller ones that lie closer together may swap their ranks.

    Returns:
        The extension (R,), and its derivative by the errors (R, P).
    """
    rows, size = errors.shape
    hit, order = _rank(errors, target, unit)
    done = hit.cumsum(1, dtype=torch.int32)
    hits = done[:, -1:]
    left = (hits - done).to(errors.dtype)  # I
    union = left + torch.arange(1, size + 1, dtype=errors.dtype, device=errors.device)  # U
    step = torch.where(hit > 0, union, left).div_(union)
    step.div_((union - 1).add_(hit).clamp_(min=1.0))
    step[:, :1] += (hits == 0).to(errors.dtype)  # an absent class: J is 1 from the first error on
    step = left.flatten().scatter_(0, order, step.flatten()).view(rows, size)
    return (step * errors).sum(1), step


def _rank(errors: Tensor, target: Tensor, unit: bool) -> tuple[Tensor, Tensor]:
    """Sorts every row by falling error: the target (R, P) in that order, and the places (R P,) in the batch.

    One sort of integers serves all rows: the number of the row, then the error upside down, then one bit for
    the target.
    """
    if unit and errors.dtype == torch.float32:
        highest, level = 1 << 24, (errors * -float(1 << 24)).int()
    else:
        highest, level = 1 << 31, order_bits(errors).neg_()
    span = highest + 1
    if errors.shape[0] * span * 2 > 1 << 31:
        level = level.long()
    start = torch.arange(errors.shape[0], dtype=level.dtype, device=level.device).view(-1, 1) * span + highest
    keys, order = level.add_(start).mul_(2).add_(target).flatten().sort()
    return (keys & 1).int().view(errors.shape), order


def _by_group(values: Tensor, groups: int) -> Tensor:
    """(N, C, H, W) -> (G, C, N H W / G): all images in one group, or each in its own."""
    if groups == 1:
        values = values.transpose(0, 1).unsqueeze(0)
    return values.flatten(2)


def _by_image(values: Tensor, shape: torch.Size) -> Tensor:
    """(G, C, N H W / G) -> (N, C, H, W)."""
    images, classes, height, width = shape
    if len(values) == images:
        return values.view(shape)
    return values.view(classes, images, height, width).transpose(0, 1)


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
    if not isinstance(classes, str):
        loss.listed = torch.tensor([c in listed for c in range(task.num_classes)])
    return loss
