"""Focal losses: cross entropies that well-classified pixels hardly take part in."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from losses.cross_entropy import weight_buffer
from losses.pixels import PixelLoss, Pixels
from losses.registry import LossError, Task, checked_weights, refuse_weights, register
from losses.soft_bce import negative_log_sigmoid


class SigmoidFocal(PixelLoss):
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
            refuse_weights(task, "in binary mode its alpha weighs the foreground")
        if alpha is not None and not 0 <= alpha <= 1:
            raise LossError(f"alpha must be in [0, 1] or null, got {alpha}")
        self.gamma = _checked_gamma(gamma)
        self.balance = (1.0, 1.0) if alpha is None else (1.0 - alpha, alpha)
        self.register_buffer("class_weights", weight_buffer(task.class_weights))

    def evaluate(self, pixels: Pixels) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in PixelLoss."""
        logits = pixels.logits
        # as if no pixel was of any class, then put right in the channel of the label
        losses, grad = self._term(logits, sign=-1.0, balance=self.balance[0])
        index, hit = _own_channel(pixels)
        own_losses, own_grad = self._term(logits.gather(1, index), sign=1.0, balance=self.balance[1])
        losses.scatter_(1, index, torch.where(hit, own_losses, losses.gather(1, index)))
        grad.scatter_(1, index, torch.where(hit, own_grad, grad.gather(1, index)))
        share = self._channel_share(logits) / pixels.count.clamp(min=1)  # (C, 1, 1)
        value = (pixels.keep(losses).sum((0, 2, 3)) * share.flatten()).sum()
        return value, pixels.keep(grad.mul_(share)) if pixels.wants_grad else None

    def _term(self, logits: Tensor, sign: float, balance: float) -> tuple[Tensor, Tensor]:
        right, wrong = torch.sigmoid(logits * sign), torch.sigmoid(logits * -sign)
        surprise = negative_log_sigmoid(logits.abs()) + (logits * -sign).clamp_(min=0)  # -log q
        factor = wrong**self.gamma * balance
        slope = -sign * factor * (wrong + self.gamma * right * surprise)
        return factor * surprise, slope

    def _channel_share(self, logits: Tensor) -> Tensor:
        channels = logits.shape[1]
        if self.class_weights is None:
            return logits.new_full((channels, 1, 1), 1.0 / channels)
        weights = self.class_weights.to(logits.dtype)
        return (weights / weights.sum()).view(-1, 1, 1)


class SoftmaxFocal(PixelLoss):
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

    def evaluate(self, pixels: Pixels) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in PixelLoss."""
        surprise = pixels.cross_entropies()  # -log p_y, (N, H, W)
        wrong = torch.expm1(-surprise).neg_()  # 1 - p_y
        weights = pixels.ones if self.class_weights is None else pixels.of_labels(self.class_weights)
        if self.reduction == "mean":
            weights = weights / pixels.count.clamp(min=1)
        factor = wrong**self.gamma * weights
        value = (factor * surprise).sum()
        if not pixels.wants_grad:
            return value, None
        # d l / d(-log p) = (1 - p)^gamma (1 + gamma p (-log p) / (1 - p)); the last ratio is 1 at p = 1
        ratio = torch.where(wrong > 0, surprise / wrong.clamp(min=torch.finfo(wrong.dtype).tiny), 1.0)
        slope = factor * (1.0 + self.gamma * (1.0 - wrong) * ratio)
        return value, pixels.pull_to_target(slope)


def _own_channel(pixels: Pixels) -> tuple[Tensor, Tensor]:
    """The channel that belongs to a pixel's label (N, 1, H, W), and whether there is one."""
    index = pixels.labels.unsqueeze(1)
    if pixels.binary:
        return torch.zeros_like(index), index == 1
    return index, torch.ones_like(index, dtype=torch.bool)


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
        A `SigmoidFocal`.
    """
    return SigmoidFocal(task, gamma, alpha)


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
        A `SoftmaxFocal`.

    Raises:
        LossError: alpha and class weights both.
    """
    if alpha is not None:
        if task.class_weights is not None:
            raise LossError("alpha and the task's class weights are the same thing; give one of them")
        task = replace(task, class_weights=checked_weights(alpha, task.num_classes, "alpha"))
    return SoftmaxFocal(task, gamma, reduction)
