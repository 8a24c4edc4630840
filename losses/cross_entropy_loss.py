"""Cross entropy, plain and weighted by class frequency."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

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

    This is torch's cross entropy, except that torch weighs the smoothing of a pixel by the classes it is
    spread to, and we weigh a pixel as a whole by its own class. Value in [0, inf).

    Args:
        task: what is learnt; multiclass.
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

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in FusedLoss."""
        losses = pixels.cross_entropies(self.smooth_factor)  # (N, H, W)
        if self.class_weights is not None:
            return weighted_mean(
                pixels, losses, pixels.lookup_by_label(self.class_weights), self.smooth_factor
            )
        share = 1.0 / pixels.count.clamp(min=1).to(losses.dtype)
        value = losses.sum() * share
        if not pixels.wants_grad:
            return value, None
        strength = share if pixels.valid is None else pixels.valid_float * share
        return value, pixels.cross_entropy_grad(strength, self.smooth_factor)


def weighted_mean(
    pixels: LossInputs, losses: Tensor, weights: Tensor, smooth: float = 0.0
) -> tuple[Tensor, Tensor | None]:
    """Weighted mean of cross entropies, and its gradient.

    Args:
        pixels: the batch.
        losses: (N, H, W) finite.
        weights: (N, H, W), 0 at ignored pixels.
        smooth: label smoothing that the losses were computed with.

    Returns:
        sum of weights losses / sum of weights, 0 if the weights are all 0; and its derivative by the logits.
    """
    total = weights.sum()
    value = safe_divide((weights * losses).sum(), total)
    if not pixels.wants_grad:
        return value, None
    return value, pixels.cross_entropy_grad(weights * safe_divide(torch.ones_like(total), total), smooth)


def weight_buffer(values: Sequence[float] | None) -> Tensor | None:
    """Class weights as a float32 tensor."""
    return None if values is None else torch.tensor(values, dtype=torch.float32)


@register("cross_entropy", modes=("multiclass",))
def cross_entropy(task: Task, *, smooth_factor: float = 0.0) -> nn.Module:
    """Cross entropy over the valid pixels, with label smoothing.

    smp's SoftCrossEntropyLoss divides by the number of all pixels, ignored ones too, has no class weights,
    and fails with its own default smooth_factor=None; so this is our own, equal to smp's on tiles without
    ignored pixels.

    Args:
        task: what is learnt; class_weights weigh the pixels.
        smooth_factor: share of the target spread evenly over all classes, in [0, 1).

    Returns:
        A `CrossEntropyLoss`.
    """
    return CrossEntropyLoss(task, smooth_factor)


@register("weighted_cross_entropy", modes=("multiclass",))
def weighted_cross_entropy(
    task: Task,
    *,
    weights: Literal["inverse", "median", "effective"] | Sequence[float] = "inverse",
    beta: float = BETA,
    cap: float | None = 20.0,
    smooth_factor: float = 0.0,
) -> nn.Module:
    """Cross entropy with class weights from the class frequencies of the training split.

    Args:
        task: what is learnt, with class_counts unless weights is a list, and image_pixels for "median".
        weights: how `losses.class_weights` makes weights of the counts, or the weights.
        beta: of "effective", in [0, 1).
        cap: largest ratio of two weights, at least 1: those made of counts are cut to it, a list that goes
            beyond is an error; None for no limit.
        smooth_factor: as in cross_entropy.

    Returns:
        A `CrossEntropyLoss`; its buffer class_weights holds the weights.

    Raises:
        LossError: no counts where they are needed, class weights in the task, a list beyond cap, a beta that
            nothing reads.
    """
    if task.class_weights is not None:
        raise LossError(
            "it makes its own class weights; give yours as weights=[...], or take loss 'cross_entropy'"
        )
    if weights != "effective" and beta != BETA:
        raise LossError(f"beta={beta} is for weights=effective, not for weights={weights}")
    if not isinstance(weights, str):
        made = validate_class_weights(weights, task.num_classes, "weights")
        positive = [weight for weight in made if weight > 0]
        if cap is not None and max(positive) > cap * min(positive):
            raise LossError(
                f"weights differ by {max(positive) / min(positive):.3g} times, more than cap={cap}; "
                "raise it, or set it to null"
            )
    elif task.class_counts is None:
        raise LossError(f"weights={weights!r} needs the class counts of the training split in the task")
    else:
        pixels = task.image_pixels if weights == "median" else None
        made = tuple(class_weights(task.class_counts, weights, beta=beta, cap=cap, image_pixels=pixels))
    return CrossEntropyLoss(replace(task, class_weights=made), smooth_factor)
