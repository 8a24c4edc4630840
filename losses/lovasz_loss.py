"""Lovász-Softmax and Lovász hinge."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from losses.errors import ClassWeightsError, LossError
from losses.kernels.batch import FusedLoss, LossInputs
from losses.kernels.reductions import safe_divide, sum_by_label, to_double
from losses.kernels.sort_keys import sortable_int_keys
from losses.registry import register
from losses.task import Task, reject_class_weights
from losses.tversky_loss import listed_classes

_BINS = 1 << 20  # 2 bins + 1 is exact in float32
BALANCED = "the Jaccard index balances the classes by itself"


class LovaszSoftmax(FusedLoss):
    """Lovász-Softmax loss (Berman et al. 2018, arXiv 1705.08790), the Lovász extension of the Jaccard loss.

    For a class c, with the errors e = |g_c - p_c| of the valid pixels sorted downwards and J_k the Jaccard
    loss of a prediction that is wrong in just the first k of them:

        loss_c = sum over k of e_k (J_k - J_(k - 1))
        loss = mean of loss_c over classes

    Value in [0, 1]. In float32 errors that differ by less than 2.4e-7 of themselves may swap their ranks: the
    value changes by no more than that, the gradient of single pixels by up to 2e-5 of the largest.

    With bins, errors are not sorted but counted in that many intervals, and the pixels of an interval share
    the mean of the steps of its two extreme orders (target first, target last). The value is then at most
    1 / bins below the exact one and never above it, in a third of the time.

    Args:
        ignore_index: label of ignored pixels, or None.
        only_present: average over the classes that occur among the valid pixels; else over all, where an
            absent class gives its largest probability (as in GDL and in Berman's code).
        weight: must be None; it is there because scripts written for GDL may pass it by position.
        per_image: average over the images that have valid pixels, in place of ranking the whole batch.
        bins: number of intervals; None sorts.

    Raises:
        LossError: a weight, bins out of range.
    """

    listed: Tensor | None

    def __init__(
        self,
        ignore_index: int | None = None,
        only_present: bool = True,
        weight: None = None,
        per_image: bool = False,
        bins: int | None = None,
    ) -> None:
        super().__init__(ignore_index=ignore_index)
        if weight is not None:
            raise ClassWeightsError(f"no place for class weights: {BALANCED}")
        self.only_present = only_present
        if bins is not None and not 2 <= bins <= _BINS:
            raise LossError(f"bins must be 2 to {_BINS}, or null to sort, got {bins}")
        self.per_image = per_image
        self.bins = bins
        self.register_buffer("listed", None, persistent=False)

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in FusedLoss."""
        p = pixels.probabilities
        sizes = sum_by_label(pixels.valid_float, pixels.labels, p.shape[1])  # (N, C)
        present = (sizes if self.per_image else sizes.sum(0, keepdim=True)) > 0  # (G, C)
        seen = pixels.valid_float.flatten(1).any(1) if self.per_image else pixels.valid_float.any().view(1)
        share = self._shares(present, seen.unsqueeze(1).expand_as(present))
        labels = pixels.labels.to(torch.int32)  # half the memory to compare with every class
        if pixels.valid is not None:
            labels = torch.where(pixels.valid, labels, -1)
        numbers = torch.arange(p.shape[1], dtype=torch.int32, device=p.device).view(-1, 1, 1)
        slope = torch.empty_like(p)
        value = to_double(p.new_zeros(()))
        for images, classes in self._portions(pixels):
            target = self._rows(labels[images].unsqueeze(1) == numbers[classes])
            sides = target.to(p.dtype)  # (R, P)
            errors = (self._rows(p[images, classes]) - sides).abs_()
            steps = (
                lovasz_steps(errors, target) if self.bins is None else binned_steps(errors, sides, self.bins)
            )
            of_rows = share[images if self.per_image else slice(None), classes].reshape(-1, 1)
            value = value + (to_double(errors.mul_(steps).sum(1, keepdim=True)) * of_rows).sum()
            # the error falls with the probability of the class of the label
            of_rows = of_rows.to(p.dtype)
            steps.mul_(sides.mul_(-2 * of_rows).add_(of_rows))
            slope[images, classes] = self._images(steps, slope[images, classes].shape)
        value = value.to(p.dtype)
        if not pixels.wants_grad:
            return value, None
        return value, pixels.activation_backward(slope)

    def _portions(self, pixels: LossInputs) -> Iterator[tuple[slice, slice]]:
        """Images and classes to rank at a time; a row of the ranking is never cut."""
        images, classes = pixels.logits.shape[:2]
        size = max(pixels.labels[0].numel() if images else 0, 1)
        together = max(pixels.chunk_size // (classes * size), 1) if self.per_image else max(images, 1)
        step = max(pixels.chunk_size // (together * size), 1)
        for image in range(0, images, together):
            for first in range(0, classes, step):
                yield slice(image, image + together), slice(first, first + step)

    def _rows(self, values: Tensor) -> Tensor:
        """(N, C, H, W) -> what is ranked together in one row: (N C, H W) per image, else (C, N H W)."""
        return values.flatten(0, 1).flatten(1) if self.per_image else values.transpose(0, 1).flatten(1)

    def _images(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Rows back to (N, C, H, W)."""
        images, classes, height, width = shape
        if self.per_image:
            return rows.view(shape)
        return rows.view(classes, images, height, width).transpose(0, 1)

    def _shares(self, present: Tensor, seen: Tensor) -> Tensor:
        """(G, C) what each class contributes, from whether it, and any pixel at all, is there."""
        counted = present if self.only_present else seen
        if self.listed is not None:
            counted = counted & self.listed
        shares = safe_divide(to_double(counted), counted.sum(1, keepdim=True))
        return safe_divide(shares, counted.any(1).sum())


class LovaszHinge(FusedLoss):
    """Lovász hinge (Berman et al. 2018, arXiv 1705.08790) of the foreground.

    As Lovász-Softmax with errors e = max(0, 1 - z (2t - 1)), z the logit and t the label. Value in [0, inf).

    Args:
        task: what is learnt; binary.
        per_image: average over the images that have valid pixels, in place of ranking the whole batch.
    """

    def __init__(self, task: Task, per_image: bool = False) -> None:
        super().__init__(task)
        self.per_image = per_image

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in FusedLoss."""
        logits = pixels.logits
        groups = len(logits) if self.per_image else min(len(logits), 1)
        size = pixels.labels.numel() // max(groups, 1)
        sign = pixels.labels.unsqueeze(1).to(logits.dtype).mul_(2).sub_(1)  # (N, 1, H, W)
        errors = pixels.zero_ignored_((1.0 - logits * sign).clamp_(min=0) + 0.0)  # + 0.0: no -0.0
        seen = pixels.valid_float.view(groups, size).any(1, keepdim=True).to(logits.dtype)  # (G, 1)
        share = safe_divide(seen, seen.sum())
        rows = errors.view(groups, size)
        steps = lovasz_steps(rows, pixels.labels.view(groups, size) > 0).mul_(share)
        value = (rows * steps).sum()
        if not pixels.wants_grad:
            return value, None
        return value, steps.view_as(errors).mul(sign).neg_().mul_(errors > 0)


def lovasz_steps(errors: Tensor, target: Tensor) -> Tensor:
    """What each error is multiplied with in the Lovász extension of the Jaccard loss, its derivative too.

    With G the size of the target, and I and U the intersection and union that are left when the first k
    pixels (by falling error) are wrong, J_k = 1 - I / U. Its step is 1 / U for a pixel of the target (I falls
    by 1), and I / (U (U - 1)) for another (U grew by 1): no differences of nearly equal numbers. Where there
    is no target, J is 1 from the first error on.

    Args:
        errors: (R, P) at least +0, finite; 0 at pixels that count for nothing, so that they come last.
        target: (R, P) bool, whether the pixel belongs to the class.

    Returns:
        (R, P).
    """
    rows, size = errors.shape
    hit, order = _rank(errors, target)
    done = hit.cumsum(1, dtype=torch.int32)
    total = done[:, -1:].clone()
    left = done.neg_().add_(total).to(errors.dtype)  # I
    union = left + torch.arange(1, size + 1, dtype=errors.dtype, device=errors.device)  # U
    hit = hit.to(errors.dtype)
    step = left.lerp(union, hit).div_(union)
    step.div_(union.sub_(1).add_(hit).clamp_(min=1.0))
    step[:, :1] += (total == 0).to(errors.dtype)
    return left.view(-1).scatter_(0, order, step.view(-1)).view(rows, size)


def _rank(errors: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Sorts every row by falling error: the target (R, P) in that order, and the places (R P,) in the batch.

    One sort of integers serves all rows: the number of the row, then the error upside down, then one bit for
    the target. Of the bits of a float32 the last one has to go for it.
    """
    bits = sortable_int_keys(errors)
    level = bits | 1 if bits.dtype == torch.int32 else bits << 1 | 1
    keys = level.bitwise_xor_((1 << 31) - 1).bitwise_or_(target)
    if len(errors) > 1:
        keys = keys.long() + (torch.arange(len(errors), device=keys.device).view(-1, 1) << 32)
    keys, order = keys.view(-1).sort()
    return keys.bitwise_and_(1).view(errors.shape), order


def binned_steps(errors: Tensor, target: Tensor, bins: int) -> Tensor:
    """`lovasz_steps` without a sort: pixels of one interval of the error share the mean of two orders.

    With I and U before an interval of h target and m other pixels, the steps are, if the target comes first,
    1 / U and (I - h) / (U (U + m)), and if it comes last, 1 / (U + m) and I / (U (U + m)). A mean of orders
    that fit the intervals lies below the extension (the largest over all orders), by two half intervals at
    most, as it is the extension itself at the middles of the intervals.

    Args:
        errors: (R, P) in [0, 1].
        target: (R, P) 1 at pixels of the class, 0 at others, in the dtype of errors.
        bins: number of intervals.

    Returns:
        (R, P).
    """
    rows, size = errors.shape
    intervals = bins + 1  # from the largest errors down; the last is for errors of 0, ignored pixels too
    level = (errors * -float(bins)).floor_().add_(bins)
    cell = level.mul_(2).add_(target).long()
    if rows > 1:
        cell += torch.arange(0, rows * 2 * intervals, 2 * intervals, device=errors.device).view(-1, 1)
    cell = cell.view(-1)
    counts = torch.zeros(rows * intervals * 2, dtype=torch.int32, device=errors.device)
    counts.scatter_add_(0, cell, counts.new_ones(()).expand(cell.shape))
    others, hits = to_double(counts.view(rows, intervals, 2)).unbind(2)  # (R, B)
    total = hits.sum(1, keepdim=True)
    after, before = total - hits.cumsum(1), total - hits.cumsum(1) + hits  # I after and before the interval
    union = total + others.cumsum(1)  # U after
    start_union = (union - others).clamp(min=1.0)
    union = union.clamp(min=1.0)
    of_hit = (1.0 / start_union + 1.0 / union) / 2
    of_other = (before + after) / 2 / (start_union * union)
    # no target: the pixels of the largest errors share the one step from 0 to 1
    largest = (others > 0) & (others.cumsum(1) == others) & (total == 0)
    of_other = torch.where(largest, 1.0 / union, of_other)
    table = torch.stack([of_other, of_hit], 2).to(errors.dtype)
    return table.view(-1).index_select(0, cell).view(rows, size)


@register("lovasz", modes=("binary", "multiclass"))
def lovasz(
    task: Task,
    *,
    per_image: bool = False,
    classes: Literal["present", "all"] | Sequence[int] = "present",
    bins: int | None = None,
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
        bins: count errors in so many intervals in place of sorting them: faster, at most 1 / bins below the
            exact value; null sorts. Multiclass only.

    Returns:
        A `LovaszSoftmax` or a `LovaszHinge`.

    Raises:
        LossError: class weights in the task, a list of classes or bins in binary mode.
    """
    reject_class_weights(task, BALANCED)
    listed = listed_classes(classes, task)
    if task.binary:
        if bins is not None:
            raise LossError(f"bins={bins} is for multiclass mode; the hinge has no largest error")
        return LovaszHinge(task, per_image)
    loss = LovaszSoftmax(task.ignore_index, classes != "all", None, per_image, bins)
    loss.num_classes = task.num_classes
    if not isinstance(classes, str):
        loss.listed = torch.tensor([c in listed for c in range(task.num_classes)])
    return loss
