"""Focal losses: cross entropies that well-classified pixels hardly take part in."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from losses.class_weights import validate_class_weights
from losses.cross_entropy_loss import weight_buffer
from losses.errors import LossError
from losses.kernels.batch import FusedLoss, LossInputs
from losses.kernels.reductions import to_double
from losses.registry import register
from losses.task import Task, reject_class_weights


class SigmoidFocalLoss(FusedLoss):
    """One-vs-rest focal loss (Lin et al. 2017, arXiv 1708.02002), the mean over valid pixels and classes.

    For every pixel and channel c, with z the logit, t whether the label is c, q = s((2t - 1) z) the
    probability of being right and a the balance (1 without alpha; else alpha if t, 1 - alpha if not):

        l_c = a (1 - q)^gamma (-log q)
        loss = weighted mean over c of the mean over valid pixels of l_c

    Channels are independent, so this is no softmax loss: with gamma = 0 it is not cross entropy, and a
    constant added to all logits of a pixel changes it. Value in [0, inf).

    Args:
        task: what is learnt; class weights in multiclass mode only.
        gamma: at least 0.
        alpha: in [0, 1] or None.

    Raises:
        LossError: an option out of range, or class weights in binary mode.
    """

    class_weights: Tensor | None

    def __init__(self, task: Task, gamma: float = 2.0, alpha: float | None = None) -> None:
        super().__init__(task)
        if task.binary:
            reject_class_weights(task, "in binary mode its alpha weighs the foreground")
        if alpha is not None and not 0 <= alpha <= 1:
            raise LossError(f"alpha must be in [0, 1] or null, got {alpha}")
        self.gamma = _checked_gamma(gamma)
        self.balance = None if alpha is None else (1.0 - alpha, alpha)
        self.register_buffer("class_weights", weight_buffer(task.class_weights))

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in FusedLoss."""
        # v = (1 - 2t) z, so that 1 - q = s(v) and -log q = log(1 + exp(v)) in every channel
        wrongness = _negate_label_channel(pixels, pixels.zero_ignored_(pixels.logits.clone()))
        rows, weights = wrongness.flatten(2), self._weights(pixels)
        value = to_double(torch.zeros((), device=rows.device))
        for images, part in pixels.chunks():
            v = rows[images, :, part]
            wrong = torch.sigmoid(v)
            right = 1.0 - wrong
            surprise = torch.maximum(wrong, right).log_().neg_().add_(v.clamp(min=0))
            factor = wrong**self.gamma
            if weights is not None:
                factor.mul_(weights[images, :, part])
            value = value + to_double((factor * surprise).sum())
            # d l / dv = (1 - q)^gamma (gamma q (-log q) + (1 - q))
            v.copy_(surprise.mul_(right).mul_(self.gamma).add_(wrong).mul_(factor))
        share = 1.0 / (pixels.count.clamp(min=1) * pixels.logits.shape[1])
        value = (value * share).to(rows.dtype)
        if not pixels.wants_grad:
            return value, None
        return value, _negate_label_channel(pixels, wrongness.mul_(share))

    def _weights(self, pixels: LossInputs) -> Tensor | None:
        """(N, C or 1, H W) balance and class weights, 0 at ignored pixels; None where all is 1."""
        weights = None if pixels.valid is None else pixels.valid_float.unsqueeze(1)
        if self.balance is not None:
            other, own = self.balance
            balance = torch.full_like(pixels.logits, other)
            if pixels.binary:
                balance.add_(pixels.labels.unsqueeze(1), alpha=own - other)
            else:
                pixels.scatter_add_labels_(balance, torch.full_like(balance[:, 0], own - other))
            weights = balance if weights is None else balance.mul_(weights)
        if self.class_weights is not None:
            per_class = self.class_weights.to(pixels.logits.dtype).view(-1, 1, 1)
            per_class = per_class * (len(per_class) / per_class.sum())
            weights = per_class.expand_as(pixels.logits) if weights is None else weights * per_class
        return None if weights is None else weights.flatten(2)


class SoftmaxFocalLoss(FusedLoss):
    """Focal cross entropy (Lin et al. 2017, arXiv 1708.02002, with the softmax in place of the sigmoid).

        l = alpha_y (1 - p_y)^gamma (-log p_y)
        loss = sum of l over valid pixels, divided by their number (reduction mean)

    alpha is not part of the divisor. gamma = 0 without alpha is cross entropy. Value in [0, inf).

    Args:
        task: what is learnt; multiclass. Its class weights are alpha.
        gamma: at least 0.
        reduction: "mean" or "sum".

    Raises:
        LossError: gamma out of range.
    """

    class_weights: Tensor | None

    def __init__(self, task: Task, gamma: float = 2.0, reduction: str = "mean") -> None:
        super().__init__(task)
        self.gamma = _checked_gamma(gamma)
        self.reduction = reduction
        self.register_buffer("class_weights", weight_buffer(task.class_weights))

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in FusedLoss."""
        surprise = pixels.cross_entropies()  # -log p_y, (N, H, W)
        wrong = 1.0 - pixels.label_probabilities  # exact near 0, where it is of the size of the surprise
        weights = (
            pixels.valid_float if self.class_weights is None else pixels.lookup_by_label(self.class_weights)
        )
        if self.reduction == "mean":
            weights = weights / pixels.count.clamp(min=1)
        factor = wrong**self.gamma * weights
        value = (factor * surprise).sum()
        if not pixels.wants_grad:
            return value, None
        # d l / d(-log p) = (1 - p)^gamma (1 + gamma p (-log p) / (1 - p)); the last ratio is 1 at p = 1
        tiny = torch.finfo(wrong.dtype).tiny
        ratio = surprise.clamp_(min=tiny).div_(wrong.clamp(min=tiny))
        slope = wrong.neg_().add_(1.0).mul_(ratio).mul_(self.gamma).add_(1.0).mul_(factor)
        return value, pixels.cross_entropy_grad(slope)


def _negate_label_channel(pixels: LossInputs, values: Tensor) -> Tensor:
    """Turns the sign of values (N, C, H, W) in place in the channel of each pixel's label."""
    if pixels.binary:
        return values.mul_((1 - 2 * pixels.labels).unsqueeze(1))
    return pixels.scatter_add_labels_(values, pixels.gather_labels(values).mul_(-2.0))


def _checked_gamma(gamma: float) -> float:
    if gamma < 0:
        raise LossError(f"gamma must be at least 0, got {gamma}")
    return float(gamma)


@register("focal", modes=("binary", "multiclass"))
def focal(task: Task, *, gamma: float = 2.0, alpha: float | None = None) -> nn.Module:
    """Focal loss, one-vs-rest by sigmoids, as smp defines it.

    smp's FocalLoss is NaN when all pixels are ignored and for gamma below 1, and its normalized=True divides
    twice; equal to it otherwise.

    Args:
        task: what is learnt; class weights in multiclass mode only.
        gamma: how little well-classified pixels count, at least 0.
        alpha: weight of a pixel in the channel of its own class, 1 - alpha in the others; null for none.

    Returns:
        A `SigmoidFocalLoss`.
    """
    return SigmoidFocalLoss(task, gamma, alpha)


@register("softmax_focal", modes=("multiclass",))
def softmax_focal(
    task: Task,
    *,
    gamma: float = 2.0,
    alpha: Sequence[float] | None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> nn.Module:
    """Focal cross entropy over the softmax.

    Args:
        task: what is learnt; its class weights are taken as alpha.
        gamma: how little well-classified pixels count, at least 0.
        alpha: one factor per class, or null.
        reduction: divide by the number of valid pixels, or don't.

    Returns:
        A `SoftmaxFocalLoss`.

    Raises:
        LossError: alpha and class weights both.
    """
    if alpha is not None:
        if task.class_weights is not None:
            raise LossError("alpha and the task's class weights are the same thing; give one of them")
        task = replace(task, class_weights=validate_class_weights(alpha, task.num_classes, "alpha"))
    return SoftmaxFocalLoss(task, gamma, reduction)
