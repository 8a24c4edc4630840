"""Cross entropy, plain and weighted by class frequency."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from losses.bce_loss import negative_log_sigmoid
from losses.class_weights import BETA, class_weights, validate_class_weights
from losses.errors import LossError
from losses.kernels.batch import FusedLoss, LossInputs
from losses.kernels.reductions import safe_divide
from losses.registry import register
from losses.task import Task


class CrossEntropyLoss(FusedLoss):
    """Weighted mean of the (smoothed) cross entropy of the valid pixels.

    With y the label of a pixel, p its softmax, e the smoothing and w the class weights (1 without):

        l = (1 - e) (-log p_y) + e / C  sum over c of -log p_c
        loss = sum of w_y l / sum of w_y

    This is torch's cross entropy, except that torch weights the smoothing term by the classes that it is
    spread over, and this loss weights the whole pixel by its label. In binary mode p is the sigmoid and its
    complement, and C is 2. Value in [0, inf).

    Args:
        task: the task.
        smooth_factor: e, in [0, 1).

    Raises:
        LossError: smooth_factor out of range.
    """

    class_weights: Tensor | None

    def __init__(self, task: Task, smooth_factor: float = 0.0) -> None:
        super().__init__(task)
        if not 0 <= smooth_factor < 1:
            raise LossError(f"smooth_factor must be in [0, 1), got {smooth_factor}")
        self.smooth_factor = smooth_factor
        self.register_buffer("class_weights", weight_buffer(task.class_weights))

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient, see `FusedLoss`."""
        if inputs.binary:
            return self._binary_value_and_grad(inputs)
        nll = inputs.cross_entropies(self.smooth_factor)  # l, (N, H, W)
        if self.class_weights is not None:
            weights = inputs.lookup_by_label(self.class_weights)  # w_y
            return weighted_mean(inputs, nll, weights, self.smooth_factor)
        scale = 1.0 / inputs.valid_count.clamp(min=1).to(nll.dtype)
        value = nll.sum() * scale
        if not inputs.wants_grad:
            return value, None
        grad_nll = scale if inputs.valid is None else inputs.valid_float * scale
        return value, inputs.cross_entropy_grad(grad_nll, self.smooth_factor)

    def _binary_value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient for one channel of logits, that of the foreground."""
        logits, target = inputs.logits[:, 0], inputs.foreground_target  # (N, H, W)
        smooth = self.smooth_factor
        nll = (1.0 - 2.0 * target).mul_(logits).clamp_(min=0)  # with -log s(|z|), l without smoothing
        if smooth:
            nll = nll.mul_(1.0 - smooth).add_(logits.abs(), alpha=smooth / 2)
        nll = inputs.zero_ignored_(nll.add_(negative_log_sigmoid(logits.abs())))
        weights = inputs.valid_float
        if self.class_weights is not None:
            weights = inputs.lookup_by_label(self.class_weights)  # w_y
        total = weights.sum()
        value = safe_divide((weights * nll).sum(), total)
        if not inputs.wants_grad:
            return value, None
        grad = inputs.probabilities[:, 0] - (target * (1.0 - smooth) + smooth / 2)
        return value, grad.mul_(weights).mul_(safe_divide(torch.ones_like(total), total)).unsqueeze(1)


def weighted_mean(
    inputs: LossInputs, nll: Tensor, weights: Tensor, smooth: float = 0.0
) -> tuple[Tensor, Tensor | None]:
    """Return the weighted mean of cross entropies, and its gradient.

    Args:
        inputs: the batch.
        nll: (N, H, W) cross entropies, finite.
        weights: (N, H, W), 0 at ignored pixels.
        smooth: label smoothing that `nll` was computed with.

    Returns:
        sum of weights nll / sum of weights, 0 if the weights are all 0; and its derivative by the logits.
    """
    total = weights.sum()
    value = safe_divide((weights * nll).sum(), total)
    if not inputs.wants_grad:
        return value, None
    grad_nll = weights * safe_divide(torch.ones_like(total), total)
    return value, inputs.cross_entropy_grad(grad_nll, smooth)


def weight_buffer(values: Sequence[float] | None) -> Tensor | None:
    """Return class weights as a float32 tensor for `register_buffer`."""
    return None if values is None else torch.tensor(values, dtype=torch.float32)


@register("cross_entropy", modes=("multiclass",))
def cross_entropy(task: Task, *, smooth_factor: float = 0.0) -> nn.Module:
    """Cross entropy over the valid pixels, with label smoothing.

    Equal to smp's SoftCrossEntropyLoss on tiles without ignored pixels; smp's divides by the number of all
    pixels, ignored ones too, has no class weights, and fails with its own default smooth_factor=None.

    Args:
        task: the segmentation task; its class weights weight the pixels.
        smooth_factor: share of the target spread evenly over all classes, in [0, 1).

    Returns:
        A `CrossEntropyLoss`.
    """
    return CrossEntropyLoss(task, smooth_factor)


@register("weighted_cross_entropy", modes=("binary", "multiclass"))
def weighted_cross_entropy(
    task: Task,
    *,
    weights: Literal["inverse", "sqrt", "median", "effective"] | Sequence[float] = "sqrt",
    beta: float = BETA,
    cap: float | None = 20.0,
    smooth_factor: float = 0.0,
) -> nn.Module:
    """Cross entropy with class weights from the class frequencies of the training split.

    Args:
        task: the segmentation task, with class_counts (unless weights is a list), for "median" image_pixels.
        weights: the method of `losses.class_weights`, or one weight per class.
        beta: for "effective", in [0, 1).
        cap: largest ratio of two weights, at least 1: weights from counts are clipped to it, a list that
            exceeds it is an error; None for no limit.
        smooth_factor: as in cross_entropy.

    Returns:
        A `CrossEntropyLoss`; its buffer class_weights holds the weights.

    Raises:
        LossError: missing class counts, class weights in the task, a list that exceeds cap, beta without
            "effective".
    """
    if task.class_weights is not None:
        raise LossError(
            "it computes its own class weights; pass yours as weights=[...], or use loss 'cross_entropy'"
        )
    if weights != "effective" and beta != BETA:
        raise LossError(f"beta={beta} is for weights=effective, not for weights={weights}")
    if not isinstance(weights, str):
        values = validate_class_weights(weights, task.num_classes, "weights")
        positive = [weight for weight in values if weight > 0]
        if cap is not None and max(positive) > cap * min(positive):
            raise LossError(
                f"weights differ by {max(positive) / min(positive):.3g} times, more than cap={cap}; "
                "raise it, or set it to null"
            )
    elif task.class_counts is None:
        raise LossError(f"weights={weights!r} needs the class counts of the training split in the task")
    else:
        image_pixels = task.image_pixels if weights == "median" else None
        values = tuple(
            class_weights(task.class_counts, weights, beta=beta, cap=cap, image_pixels=image_pixels)
        )
    return CrossEntropyLoss(replace(task, class_weights=values), smooth_factor)
