"""Dice and generalized Dice."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from losses.kernels import soft_confusion as regions
from losses.kernels.batch import FusedLoss, LossInputs
from losses.kernels.reductions import safe_divide
from losses.registry import register
from losses.task import Task, reject_class_weights
from losses.tversky_loss import TverskyLoss


@register("dice", modes=("binary", "multiclass"))
def dice(
    task: Task,
    *,
    smooth: float = 0.0,
    log_loss: bool = False,
    classes: Literal["present", "all"] | Sequence[int] = "present",
) -> nn.Module:
    """Soft Dice loss (Milletari et al. 2016, arXiv 1606.04797): 1 - (2 I + smooth) / (S + G + smooth).

    smp's DiceLoss computes I with a difference that cancels in float32 (the gradient of a small object in a
    large batch has the wrong sign), keeps absent classes in the mean, gives 0 for any prediction on a batch
    without foreground, and counts smooth double; classes="all" without smooth is equal to it otherwise.

    Args:
        task: what is learnt; class weights in multiclass mode only.
        smooth: added to numerator and denominator, in pixels.
        log_loss: -log of the coefficient in place of 1 - coefficient.
        classes: "present", "all" or a list, as in `TverskyLoss`.

    Returns:
        A `TverskyLoss` with alpha = beta = 1/2.
    """
    return TverskyLoss(task, alpha=0.5, beta=0.5, smooth=smooth / 2, log_loss=log_loss, classes=classes)


class GeneralizedDiceLoss(FusedLoss):
    """Generalized Dice loss (Sudre et al. 2017, arXiv 1707.03237).

    With I, S, G the overlap, predicted and actual size of each class (in binary mode of background and
    foreground) over the valid pixels of the whole batch:

        loss = 1 - 2 sum of w_c I_c / sum of w_c (S_c + G_c),    w_c = 1 / G_c^2

    Only ratios of the weights matter, so they are scaled by the largest, and nothing is added to the sums.
    A class that is absent takes the largest weight of those present: what is predicted of it counts as
    much as a false positive of the rarest class. Value in [0, 1].

    Args:
        task: what is learnt; its own weights leave no place for class weights.

    Raises:
        LossError: class weights in the task.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        reject_class_weights(task, "it weighs classes by their size")

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in FusedLoss."""
        overlap, predicted, actual = regions.soft_confusion(pixels)
        present = actual > 0
        smallest = torch.where(present, actual, torch.inf).amin()
        weights = torch.where(present, smallest / actual, 1.0) ** 2
        weights = torch.where(present.any(), weights, 0.0)
        misses = (weights * (predicted + actual - 2.0 * overlap)).sum().clamp(min=0)
        total = (weights * (predicted + actual)).sum()
        value = safe_divide(misses, total).to(pixels.logits.dtype)
        if not pixels.wants_grad:
            return value, None
        by_overlap = safe_divide(-2.0 * weights, total)
        by_predicted = safe_divide(weights * safe_divide(total - misses, total), total)
        return value, regions.soft_confusion_grad(pixels, by_overlap, by_predicted)


@register("generalized_dice", modes=("binary", "multiclass"))
def generalized_dice(task: Task) -> nn.Module:
    """Generalized Dice loss: one Dice over all classes, each weighted by the inverse square of its size.

    Args:
        task: what is learnt, without class weights.

    Returns:
        A `GeneralizedDiceLoss`.
    """
    return GeneralizedDiceLoss(task)
