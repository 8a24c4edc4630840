"""Focal losses: cross entropies that give well-classified pixels little weight."""

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

    For every pixel and channel c, with z the logit and t = 1 where the label is c, else 0:

        pt = sigmoid((2t - 1) z)                    probability of the right answer
        alpha_t = alpha if t else 1 - alpha         1 without alpha
        l_c = alpha_t (1 - pt)^gamma (-log pt)
        loss = weighted mean over c of the mean over valid pixels of l_c

    Channels are independent, so this is no softmax loss: with gamma = 0 it is not cross entropy, and a
    constant added to all logits of a pixel changes it. Value in [0, inf).

    Args:
        task: the segmentation task; class weights in multiclass mode only.
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
        self.gamma = _validate_gamma(gamma)
        self.alpha = alpha
        self.register_buffer("class_weights", weight_buffer(task.class_weights))

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient, see `FusedLoss`."""
        # (1 - 2t) z, so that 1 - pt = sigmoid(neg_margin) and -log pt = softplus(neg_margin)
        neg_margins = _negate_label_channel(inputs, inputs.zero_ignored_(inputs.logits.clone()))
        flat = neg_margins.flatten(2)  # (N, C, H W), the same memory
        alpha_t = self._alpha_t(inputs)
        total = to_double(torch.zeros((), device=flat.device))
        for images, pixels in inputs.chunks():
            neg_margin = flat[images, :, pixels]
            one_minus_pt = torch.sigmoid(neg_margin)
            pt = 1.0 - one_minus_pt
            # softplus(v) = max(v, 0) - log max(sigmoid(v), 1 - sigmoid(v))
            nll = torch.maximum(one_minus_pt, pt).log_().neg_().add_(neg_margin.clamp(min=0))
            modulator = one_minus_pt**self.gamma
            if alpha_t is not None:
                modulator.mul_(alpha_t[images, :, pixels])
            total = total + to_double((modulator * nll).sum())  # alpha_t (1 - pt)^gamma (-log pt)
            # d l / d neg_margin = alpha_t (1 - pt)^gamma (gamma pt (-log pt) + 1 - pt), kept in flat
            grad = nll.mul_(pt).mul_(self.gamma).add_(one_minus_pt).mul_(modulator)
            neg_margin.copy_(grad)
        scale = 1.0 / (inputs.valid_count.clamp(min=1) * inputs.logits.shape[1])
        value = (total * scale).to(neg_margins.dtype)
        if not inputs.wants_grad:
            return value, None
        grad_neg_margins = neg_margins.mul_(scale)  # see the end of the loop
        return value, _negate_label_channel(inputs, grad_neg_margins)  # d neg_margin / d z = 1 - 2t

    def _alpha_t(self, inputs: LossInputs) -> Tensor | None:
        """Return alpha_t times the class weights (N, C or 1, H W), 0 at ignored pixels; None if all are 1."""
        weights = None if inputs.valid is None else inputs.valid_float.unsqueeze(1)
        if self.alpha is not None:
            one_minus_alpha = 1.0 - self.alpha
            alpha_t = torch.full_like(inputs.logits, one_minus_alpha)
            if inputs.binary:
                alpha_t.add_(inputs.labels.unsqueeze(1), alpha=self.alpha - one_minus_alpha)
            else:
                difference = torch.full_like(alpha_t[:, 0], self.alpha - one_minus_alpha)
                inputs.scatter_add_labels_(alpha_t, difference)
            weights = alpha_t if weights is None else alpha_t.mul_(weights)
        if self.class_weights is not None:
            per_class = self.class_weights.to(inputs.logits.dtype).view(-1, 1, 1)
            per_class = per_class * (len(per_class) / per_class.sum())  # mean 1
            weights = per_class.expand_as(inputs.logits) if weights is None else weights * per_class
        return None if weights is None else weights.flatten(2)


class SoftmaxFocalLoss(FusedLoss):
    """Focal cross entropy (Lin et al. 2017, arXiv 1708.02002, with the softmax in place of the sigmoid).

        pt = p_y, alpha_t = alpha_y                 with y the label
        l = alpha_t (1 - pt)^gamma (-log pt)
        loss = sum of l over valid pixels, divided by their number (reduction mean)

    alpha is not part of the divisor. gamma = 0 without alpha is cross entropy. Value in [0, inf).

    Args:
        task: multiclass; its class weights are alpha.
        gamma: at least 0.
        reduction: "mean" or "sum".

    Raises:
        LossError: gamma out of range.
    """

    class_weights: Tensor | None

    def __init__(self, task: Task, gamma: float = 2.0, reduction: str = "mean") -> None:
        super().__init__(task)
        self.gamma = _validate_gamma(gamma)
        self.reduction = reduction
        self.register_buffer("class_weights", weight_buffer(task.class_weights))

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient, see `FusedLoss`."""
        nll = inputs.cross_entropies()  # -log pt, (N, H, W)
        one_minus_pt = 1.0 - inputs.label_probabilities  # exact near 0, where it is of the size of nll
        if self.class_weights is None:
            alpha_t = inputs.valid_float
        else:
            alpha_t = inputs.lookup_by_label(self.class_weights)
        if self.reduction == "mean":
            alpha_t = alpha_t / inputs.valid_count.clamp(min=1)
        modulator = one_minus_pt**self.gamma * alpha_t
        value = (modulator * nll).sum()  # alpha_t (1 - pt)^gamma (-log pt)
        if not inputs.wants_grad:
            return value, None
        # d l / d nll = alpha_t (1 - pt)^gamma (1 + gamma pt nll / (1 - pt)); the ratio is 1 at pt = 1
        tiny = torch.finfo(one_minus_pt.dtype).tiny
        ratio = nll.clamp_(min=tiny).div_(one_minus_pt.clamp(min=tiny))
        pt = one_minus_pt.neg_().add_(1.0)
        grad_nll = pt.mul_(ratio).mul_(self.gamma).add_(1.0).mul_(modulator)
        return value, inputs.cross_entropy_grad(grad_nll)


def _negate_label_channel(inputs: LossInputs, values: Tensor) -> Tensor:
    """Multiply values (N, C, H, W) in place by 1 - 2t: the channel of each pixel's label changes its sign."""
    if inputs.binary:
        return values.mul_((1 - 2 * inputs.labels).unsqueeze(1))
    return inputs.scatter_add_labels_(values, inputs.gather_labels(values).mul_(-2.0))  # v - 2v = -v


def _validate_gamma(gamma: float) -> float:
    if gamma < 0:
        raise LossError(f"gamma must be at least 0, got {gamma}")
    return float(gamma)


@register("focal", modes=("binary", "multiclass"))
def focal(task: Task, *, gamma: float = 2.0, alpha: float | None = None) -> nn.Module:
    """Focal loss, one-vs-rest by sigmoids, as smp defines it.

    Equal to smp's FocalLoss, except that smp's is NaN when all pixels are ignored and for gamma below 1, and
    that its normalized=True divides twice.

    Args:
        task: the segmentation task; class weights in multiclass mode only.
        gamma: how little well-classified pixels count, at least 0.
        alpha: weight of a pixel in the channel of its label, 1 - alpha in the others; null for no weights.

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
        task: the segmentation task; its class weights are used as alpha.
        gamma: how little well-classified pixels count, at least 0.
        alpha: one weight per class, or null.
        reduction: "mean" over the valid pixels, or "sum".

    Returns:
        A `SoftmaxFocalLoss`.

    Raises:
        LossError: both alpha and class weights.
    """
    if alpha is not None:
        if task.class_weights is not None:
            raise LossError("alpha and the task's class weights are the same thing; give one of them")
        task = replace(task, class_weights=validate_class_weights(alpha, task.num_classes, "alpha"))
    return SoftmaxFocalLoss(task, gamma, reduction)
