"""Dice and generalized Dice."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from losses.kernels.batch import FusedLoss, LossInputs
from losses.kernels.reductions import safe_divide
from losses.kernels.soft_confusion import soft_confusion, soft_confusion_grad
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

    With classes="all" and smooth 0 equal to smp's DiceLoss, except that smp's computes I as a difference that
    cancels in float32 (the gradient of a small object in a large batch has the wrong sign). smp's also keeps
    absent classes in the mean, is 0 for any prediction on a batch without foreground, and adds smooth twice.

    Args:
        task: the segmentation task; class weights in multiclass mode only.
        smooth: added to numerator and denominator, in pixels.
        log_loss: -log of the coefficient instead of 1 - coefficient.
        classes: "present", "all" or a list, as in `TverskyLoss`.

    Returns:
        A `TverskyLoss` with alpha = beta = 1/2.
    """
    return TverskyLoss(task, alpha=0.5, beta=0.5, smooth=smooth / 2, log_loss=log_loss, classes=classes)


class GeneralizedDiceLoss(FusedLoss):
    """Generalized Dice loss (Sudre et al. 2017, arXiv 1707.03237).

    With I, S, G the intersection, predicted and target size of each class (in binary mode of background and
    foreground) over the valid pixels of the whole batch:

        loss = 1 - 2 sum of w_c I_c / sum of w_c (S_c + G_c),    w_c = 1 / G_c^2

    Only ratios of the weights matter, so they are divided by the largest, and no epsilon is added to the
    sums. An absent class has the largest weight of the classes present: its false positives cost as much as
    those of the rarest class. Value in [0, 1].

    Args:
        task: the segmentation task, without class weights.

    Raises:
        LossError: class weights in the task.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        reject_class_weights(task, "it weighs classes by their size")

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient, see `FusedLoss`."""
        intersection, predicted, target = soft_confusion(inputs)  # I, S, G
        present = target > 0
        smallest = torch.where(present, target, torch.inf).amin()
        weights = torch.where(present, smallest / target, 1.0) ** 2  # w_c, scaled to a maximum of 1
        weights = torch.where(present.any(), weights, 0.0)
        # 1 - 2 sum of w I / sum of w (S + G) = sum of w (S + G - 2 I) / sum of w (S + G)
        numerator = (weights * (predicted + target - 2.0 * intersection)).sum().clamp(min=0)
        denominator = (weights * (predicted + target)).sum()
        value = safe_divide(numerator, denominator).to(inputs.logits.dtype)
        if not inputs.wants_grad:
            return value, None
        grad_intersection = safe_divide(-2.0 * weights, denominator)
        dice = safe_divide(denominator - numerator, denominator)  # 1 - loss
        grad_predicted = safe_divide(weights * dice, denominator)
        return value, soft_confusion_grad(inputs, grad_intersection, grad_predicted)


@register("generalized_dice", modes=("binary", "multiclass"))
def generalized_dice(task: Task) -> nn.Module:
    """Generalized Dice loss: one Dice over all classes, each weighted by the inverse square of its size.

    Args:
        task: the segmentation task, without class weights.

    Returns:
        A `GeneralizedDiceLoss`.
    """
    return GeneralizedDiceLoss(task)
