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
from losses.tversky_loss import selected_classes

_MAX_BINS = 1 << 20  # 2 bins + 1 is exact in float32
_NO_WEIGHTS_REASON = "the Jaccard index balances the classes by itself"


class LovaszSoftmax(FusedLoss):
    """Lovász-Softmax loss (Berman et al. 2018, arXiv 1705.08790), the Lovász extension of the Jaccard loss.

    For a class c, with the errors e = |g_c - p_c| of the valid pixels in descending order and J_k the Jaccard
    loss of a prediction that is wrong exactly at the first k of them:

        loss_c = sum over k of e_k (J_k - J_(k - 1))
        loss = mean of loss_c over classes

    Value in [0, 1]. In float32, errors with a relative difference below 2.4e-7 may swap their ranks: the
    value changes by no more than that, the gradient of single pixels by up to 2e-5 of the largest.

    With bins, errors are not sorted but counted in a histogram, and the pixels of a bin share the mean of the
    steps of its two extreme orders (target first, target last). The value is then at most 1 / bins below the
    exact one and never above it, in a third of the time.

    Args:
        ignore_index: label of ignored pixels, or None.
        only_present: average over the classes that occur among the valid pixels; else over all, where the
            loss of an absent class is its largest probability (as in GDL and in Berman's code).
        weight: must be None; it exists because scripts written for GDL may pass it by position.
        per_image: average over the images with valid pixels, instead of ranking the whole batch.
        bins: number of bins; None sorts.

    Raises:
        LossError: a weight, bins out of range.
    """

    selected: Tensor | None

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
            raise ClassWeightsError(f"no place for class weights: {_NO_WEIGHTS_REASON}")
        self.only_present = only_present
        if bins is not None and not 2 <= bins <= _MAX_BINS:
            raise LossError(f"bins must be 2 to {_MAX_BINS}, or null to sort, got {bins}")
        self.per_image = per_image
        self.bins = bins
        self.register_buffer("selected", None, persistent=False)

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient, see `FusedLoss`."""
        p = inputs.probabilities
        support = sum_by_label(inputs.valid_float, inputs.labels, p.shape[1])  # (N, C)
        present = (support if self.per_image else support.sum(0, keepdim=True)) > 0  # (G, C)
        any_valid = (
            inputs.valid_float.flatten(1).any(1) if self.per_image else inputs.valid_float.any().view(1)
        )
        weights = self._mean_weights(present, any_valid.unsqueeze(1).expand_as(present))
        labels = inputs.labels.to(torch.int32)  # half the memory to compare with every class
        if inputs.valid is not None:
            labels = torch.where(inputs.valid, labels, -1)
        class_index = torch.arange(p.shape[1], dtype=torch.int32, device=p.device).view(-1, 1, 1)
        grad_p = torch.empty_like(p)
        value = to_double(p.new_zeros(()))
        for images, classes in self._chunks(inputs):
            target = self._to_rows(labels[images].unsqueeze(1) == class_index[classes])  # g, (R, P)
            g = target.to(p.dtype)
            errors = (self._to_rows(p[images, classes]) - g).abs_()  # |g - p|
            steps = lovasz_steps(errors, target) if self.bins is None else binned_steps(errors, g, self.bins)
            row_weights = weights[images if self.per_image else slice(None), classes].reshape(-1, 1)
            # sum over k of e_k (J_k - J_(k - 1))
            value = value + (to_double(errors.mul_(steps).sum(1, keepdim=True)) * row_weights).sum()
            # d e / dp = 1 - 2 g: the error falls with the probability of the label
            row_weights = row_weights.to(p.dtype)
            steps.mul_(g.mul_(-2 * row_weights).add_(row_weights))
            grad_p[images, classes] = self._from_rows(steps, grad_p[images, classes].shape)
        value = value.to(p.dtype)
        if not inputs.wants_grad:
            return value, None
        return value, inputs.activation_backward(grad_p)

    def _chunks(self, inputs: LossInputs) -> Iterator[tuple[slice, slice]]:
        """Yield slices of images and classes to rank at a time; a row of the ranking is never split."""
        num_images, num_classes = inputs.logits.shape[:2]
        size = max(inputs.labels[0].numel() if num_images else 0, 1)
        if self.per_image:
            images_per_chunk = max(inputs.chunk_size // (num_classes * size), 1)
        else:
            images_per_chunk = max(num_images, 1)
        classes_per_chunk = max(inputs.chunk_size // (images_per_chunk * size), 1)
        for image in range(0, num_images, images_per_chunk):
            for first in range(0, num_classes, classes_per_chunk):
                yield slice(image, image + images_per_chunk), slice(first, first + classes_per_chunk)

    def _to_rows(self, values: Tensor) -> Tensor:
        """Return (N, C, H, W) with one row per ranking: (N C, H W) per image, else (C, N H W)."""
        return values.flatten(0, 1).flatten(1) if self.per_image else values.transpose(0, 1).flatten(1)

    def _from_rows(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Return the inverse of `_to_rows`: rows as (N, C, H, W)."""
        images, classes, height, width = shape
        if self.per_image:
            return rows.view(shape)
        return rows.view(classes, images, height, width).transpose(0, 1)

    def _mean_weights(self, present: Tensor, any_valid: Tensor) -> Tensor:
        """Return the weights (G, C) of groups of images and classes in the mean.

        Args:
            present: (G, C) whether the class occurs.
            any_valid: (G, C) whether the group has a valid pixel.
        """
        included = present if self.only_present else any_valid
        if self.selected is not None:
            included = included & self.selected
        weights = safe_divide(to_double(included), included.sum(1, keepdim=True))
        return safe_divide(weights, included.any(1).sum())


class LovaszHinge(FusedLoss):
    """Lovász hinge (Berman et al. 2018, arXiv 1705.08790) of the foreground.

    Lovász-Softmax with the hinge errors e = max(0, 1 - z (2t - 1)), z the logit and t the label. Value in
    [0, inf).

    Args:
        task: binary.
        per_image: average over the images with valid pixels, instead of ranking the whole batch.
    """

    def __init__(self, task: Task, per_image: bool = False) -> None:
        super().__init__(task)
        self.per_image = per_image

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient, see `FusedLoss`."""
        z = inputs.logits
        groups = len(z) if self.per_image else min(len(z), 1)
        size = inputs.labels.numel() // max(groups, 1)
        sign = inputs.labels.unsqueeze(1).to(z.dtype).mul_(2).sub_(1)  # 2t - 1, (N, 1, H, W)
        # max(0, 1 - z (2t - 1)); + 0.0: no -0.0
        errors = inputs.zero_ignored_((1.0 - z * sign).clamp_(min=0) + 0.0)
        any_valid = inputs.valid_float.view(groups, size).any(1, keepdim=True).to(z.dtype)  # (G, 1)
        weights = safe_divide(any_valid, any_valid.sum())
        rows = errors.view(groups, size)
        steps = lovasz_steps(rows, inputs.labels.view(groups, size) > 0).mul_(weights)
        value = (rows * steps).sum()  # sum over k of e_k (J_k - J_(k - 1))
        if not inputs.wants_grad:
            return value, None
        return value, steps.view_as(errors).mul(sign).neg_().mul_(errors > 0)  # d e / dz = 1 - 2t where e > 0


def lovasz_steps(errors: Tensor, target: Tensor) -> Tensor:
    """Return the factor J_k - J_(k - 1) of every error in the Lovász extension; its derivative by the error.

    With G the size of the target, and I and U the intersection and union that are left when the first k
    pixels (in order of descending error) are wrong, J_k = 1 - I / U. Its step is 1 / U for a pixel of the
    target (I falls by 1), and I / (U (U - 1)) for another (U grows by 1): no differences of nearly equal
    numbers. Without a target, J is 1 from the first error on.

    Args:
        errors: (R, P) at least +0, finite; 0 at ignored pixels, so that they come last.
        target: (R, P) bool, whether the pixel belongs to the class.

    Returns:
        (R, P).
    """
    rows, size = errors.shape
    sorted_target, order = _sort_by_error(errors, target)
    cumulative = sorted_target.cumsum(1, dtype=torch.int32)
    total = cumulative[:, -1:].clone()  # G
    intersection = cumulative.neg_().add_(total).to(errors.dtype)  # I = G - target pixels among the first k
    rank = torch.arange(1, size + 1, dtype=errors.dtype, device=errors.device)
    union = intersection + rank  # U = G + others among the first k = I + k
    g = sorted_target.to(errors.dtype)
    step = intersection.lerp(union, g).div_(union)  # 1 of the target, I / U of others
    step.div_(union.sub_(1).add_(g).clamp_(min=1.0))  # / U of the target, / (U - 1) of others
    step[:, :1] += (total == 0).to(errors.dtype)
    return intersection.view(-1).scatter_(0, order, step.view(-1)).view(rows, size)


def _sort_by_error(errors: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Sort every row by descending error.

    One sort of integers serves all rows: the number of the row, then the inverted error, then one bit for the
    target, which replaces the last bit of a float32.

    Returns:
        The target (R, P) in that order, and the indices (R P,) in the flat batch.
    """
    keys = sortable_int_keys(errors)
    keys = keys | 1 if keys.dtype == torch.int32 else keys << 1 | 1
    keys = keys.bitwise_xor_((1 << 31) - 1).bitwise_or_(target)
    if len(errors) > 1:
        keys = keys.long() + (torch.arange(len(errors), device=keys.device).view(-1, 1) << 32)
    keys, order = keys.view(-1).sort()
    return keys.bitwise_and_(1).view(errors.shape), order


def binned_steps(errors: Tensor, target: Tensor, bins: int) -> Tensor:
    """Return `lovasz_steps` without a sort: the pixels of one bin of the error share the mean of two orders.

    With I and U before a bin of h target and m other pixels, the steps are, if the target comes first, 1 / U
    and (I - h) / (U (U + m)), and if it comes last, 1 / (U + m) and I / (U (U + m)). A mean of orders that
    agree with the bins lies below the extension (the largest over all orders), by two half bins at most, as
    it is the extension itself at the centres of the bins.

    Args:
        errors: (R, P) in [0, 1].
        target: (R, P) 1 at pixels of the class, 0 at others, in the dtype of errors.
        bins: number of bins.

    Returns:
        (R, P).
    """
    rows, size = errors.shape
    num_levels = bins + 1  # from the largest errors down; the last is for errors of 0, ignored pixels too
    level = (errors * -float(bins)).floor_().add_(bins)
    index = level.mul_(2).add_(target).long()  # 2 level + target, in the flat (R, levels, 2)
    if rows > 1:
        row_size = 2 * num_levels
        index += torch.arange(0, rows * row_size, row_size, device=errors.device).view(-1, 1)
    index = index.view(-1)
    counts = torch.zeros(rows * num_levels * 2, dtype=torch.int32, device=errors.device)
    counts.scatter_add_(0, index, counts.new_ones(()).expand(index.shape))
    others, hits = to_double(counts.view(rows, num_levels, 2)).unbind(2)  # m, h, (R, levels)
    total = hits.sum(1, keepdim=True)  # G
    after, before = total - hits.cumsum(1), total - hits.cumsum(1) + hits  # I after and before the level
    union_after = total + others.cumsum(1)  # U + m
    union_before = (union_after - others).clamp(min=1.0)  # U
    union_after = union_after.clamp(min=1.0)
    target_step = (1.0 / union_before + 1.0 / union_after) / 2
    other_step = (before + after) / 2 / (union_before * union_after)
    # without a target, the pixels of the largest errors share the only step, from 0 to 1
    is_first = (others > 0) & (others.cumsum(1) == others) & (total == 0)
    other_step = torch.where(is_first, 1.0 / union_after, other_step)
    table = torch.stack([other_step, target_step], 2).to(errors.dtype)
    return table.view(-1).index_select(0, index).view(rows, size)


@register("lovasz", modes=("binary", "multiclass"))
def lovasz(
    task: Task,
    *,
    per_image: bool = False,
    classes: Literal["present", "all"] | Sequence[int] = "present",
    bins: int | None = None,
) -> nn.Module:
    """Lovász-Softmax loss, in binary mode Lovász hinge.

    The same definitions as smp's LovaszLoss; smp's fails on tiles without valid pixels, in half precision and
    on bool labels, treats labels out of range as background, and loops over classes and images.

    Args:
        task: the segmentation task, without class weights.
        per_image: average over images instead of ranking the pixels of the whole batch together.
        classes: "present": mean over the classes that occur; "all": over all classes, absent ones with their
            largest probability; a list: over those of the listed classes that occur. In binary mode the only
            class is the foreground, present or not.
        bins: count the errors in this number of bins instead of sorting them: faster, at most 1 / bins below
            the exact value; null sorts. Multiclass only.

    Returns:
        A `LovaszSoftmax` or a `LovaszHinge`.

    Raises:
        LossError: class weights in the task, a list of classes or bins in binary mode.
    """
    reject_class_weights(task, _NO_WEIGHTS_REASON)
    selected = selected_classes(classes, task)
    if task.binary:
        if bins is not None:
            raise LossError(f"bins={bins} is for multiclass mode; the hinge has no largest error")
        return LovaszHinge(task, per_image)
    loss = LovaszSoftmax(task.ignore_index, classes != "all", None, per_image, bins)
    loss.num_classes = task.num_classes
    if not isinstance(classes, str):
        loss.selected = torch.tensor([c in selected for c in range(task.num_classes)])
    return loss
