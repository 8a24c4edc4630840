"""Tversky index losses: Tversky, focal Tversky, Jaccard, and the class behind Dice."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from losses.errors import LossError
from losses.kernels.batch import FusedLoss, LossInputs
from losses.kernels.reductions import safe_divide
from losses.kernels.soft_confusion import SoftConfusion, soft_confusion, soft_confusion_grad
from losses.registry import register
from losses.task import Task, reject_class_weights

Classes = str | Sequence[int]
EPSILON = 1e-7


class TverskyLoss(FusedLoss):
    """1 - the Tversky index (Salehi et al. 2017, arXiv 1706.05721) of soft regions, mean over classes.

    With I, S, G the intersection, predicted and target size of a class over the valid pixels of the batch:

        FP = S - I    FN = G - I
        T = (I + smooth) / (I + alpha FP + beta FN + smooth)
        loss of a class = (1 - T)^gamma, or -log T
        loss = weighted mean over the classes that `classes` selects

    alpha = beta = 1/2 is Dice, alpha = beta = 1 Jaccard. Value in [0, 1]; with log_loss in [0, 16.2].

    Args:
        task: the segmentation task; class weights in multiclass mode only.
        alpha: cost of false positives.
        beta: cost of false negatives.
        gamma: exponent of each class's loss.
        smooth: added to numerator and denominator, in pixels.
        log_loss: -log T instead of 1 - T.
        classes: "present": classes with a valid pixel in the batch; in binary mode the foreground, or the
            background if there is no foreground, so that false positives have a cost even then.
            "all": all classes, absent ones as 0 (smp's values); in binary mode the foreground, 0 if absent.
            A list (multiclass): those of the listed classes that are present.

    Raises:
        LossError: an option out of range, or class weights in binary mode.
    """

    counted: Tensor

    def __init__(
        self,
        task: Task,
        *,
        alpha: float,
        beta: float,
        gamma: float = 1.0,
        smooth: float = 0.0,
        log_loss: bool = False,
        classes: Classes = "present",
    ) -> None:
        super().__init__(task)
        if min(alpha, beta) < 0 or alpha + beta == 0:
            raise LossError(f"alpha and beta must be at least 0 and not both 0, got {alpha} and {beta}")
        if gamma <= 0 or smooth < 0:
            raise LossError(f"gamma must be positive and smooth at least 0, got {gamma} and {smooth}")
        if task.binary:
            reject_class_weights(task, "in binary mode only the foreground counts")
        self.alpha, self.beta, self.gamma, self.smooth, self.log_loss = alpha, beta, gamma, smooth, log_loss
        self.only_present = classes != "all"
        selected = selected_classes(classes, task)
        weights = task.class_weights or [1.0] * task.num_classes
        selected_weights = [w if c in selected else 0.0 for c, w in enumerate(weights)]
        if not any(selected_weights):
            raise LossError(f"the class weights of all of classes={classes} are 0")
        # the name "counted" is a key of checkpoints
        self.register_buffer("counted", torch.tensor(selected_weights, dtype=torch.float32))

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient, see `FusedLoss`."""
        confusion = soft_confusion(inputs)
        intersection, predicted, target = confusion  # I, S, G
        false_positives = (predicted - intersection).clamp(min=0)
        false_negatives = (target - intersection).clamp(min=0)
        errors = self.alpha * false_positives + self.beta * false_negatives  # alpha FP + beta FN
        denominator = (intersection + errors + self.smooth).clamp(min=EPSILON)
        index = (intersection + self.smooth) / denominator  # T
        one_minus_index = errors / denominator  # 1 - T, without cancellation
        losses, grad_index = self._class_losses(index, one_minus_index)
        weights = self._mean_weights(confusion)
        value = (weights * losses).sum().to(inputs.logits.dtype)
        if not inputs.wants_grad:
            return value, None
        # dT / dI = (1 - T (1 - alpha - beta)) / denominator, dT / dS = -alpha T / denominator
        scaled_grad = weights * grad_index / denominator
        grad_intersection = scaled_grad * (1.0 - index * (1.0 - self.alpha - self.beta))
        grad_predicted = scaled_grad * -index * self.alpha
        return value, soft_confusion_grad(inputs, grad_intersection, grad_predicted)

    def _class_losses(self, index: Tensor, one_minus_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of every class (K,), and its derivative by the index."""
        if self.log_loss:  # -log T
            clamped = index.clamp(min=EPSILON)
            return -torch.log(clamped), -torch.where(index > EPSILON, 1.0 / clamped, 0.0)
        if self.gamma == 1:  # 1 - T
            return one_minus_index, -torch.ones_like(one_minus_index)
        # (1 - T)^gamma
        grad_index = -(self.gamma * one_minus_index.clamp(min=EPSILON) ** (self.gamma - 1))
        return one_minus_index**self.gamma, grad_index

    def _mean_weights(self, confusion: SoftConfusion) -> Tensor:
        """Return the weights (K,) of the classes in the mean; all 0 if no selected class is present."""
        present = confusion.target > 0
        class_weights = self.counted.to(confusion.target.dtype)
        weights = class_weights * present
        if not self.only_present:
            return weights / class_weights.sum()
        if self.binary:  # the background, if there is no foreground
            weights = torch.stack([(present[0] & ~present[1]).to(weights.dtype), weights[1]])
        return safe_divide(weights, weights.sum())


def selected_classes(classes: Classes, task: Task) -> list[int]:
    """Return the classes that an option `classes` selects; in binary mode the foreground.

    Raises:
        LossError: a list in binary mode, an empty list, a number that is no class.
    """
    if task.binary:
        if not isinstance(classes, str):
            raise LossError(f"classes={classes} can list classes in multiclass mode only")
        return [1]
    if isinstance(classes, str):
        return list(range(task.num_classes))
    if not classes or any(not 0 <= c < task.num_classes for c in classes):
        raise LossError(f"classes must be numbers from 0 to {task.num_classes - 1}, got {classes}")
    return list(classes)


@register("tversky", modes=("binary", "multiclass"))
def tversky(
    task: Task,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 0.0,
    log_loss: bool = False,
    classes: Literal["present", "all"] | Sequence[int] = "present",
) -> nn.Module:
    """Tversky loss: Dice with separate costs for false positives and false negatives.

    With classes="all" equal to smp's TverskyLoss where smp's intersection does not cancel in float32; smp's
    also keeps absent classes in the mean and is 0 for any prediction on a batch without foreground.

    Args:
        task: the segmentation task; class weights in multiclass mode only.
        alpha: cost of false positives.
        beta: cost of false negatives; above alpha it raises the recall of rare classes.
        smooth: added to numerator and denominator, in pixels.
        log_loss: -log of the index instead of 1 - index.
        classes: "present", "all" or a list, as in `TverskyLoss`.

    Returns:
        A `TverskyLoss`.
    """
    return TverskyLoss(task, alpha=alpha, beta=beta, smooth=smooth, log_loss=log_loss, classes=classes)


@register("focal_tversky", modes=("binary", "multiclass"))
def focal_tversky(
    task: Task,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 0.75,
    smooth: float = 0.0,
    classes: Literal["present", "all"] | Sequence[int] = "present",
) -> nn.Module:
    """Focal Tversky loss (Abraham and Khan 2019, arXiv 1810.07842): (1 - T_c)^gamma, mean over classes.

    gamma is the exponent, the paper's 1 / gamma (its 4/3 is 0.75 here). smp's TverskyLoss raises the mean
    over the classes to the power, not each class, and has a NaN gradient on empty batches for gamma < 1.

    Args:
        task: the segmentation task; class weights in multiclass mode only.
        alpha: cost of false positives.
        beta: cost of false negatives.
        gamma: below 1 keeps the gradient of nearly perfect classes up, above 1 lets it fade.
        smooth: added to numerator and denominator, in pixels.
        classes: "present", "all" or a list, as in `TverskyLoss`.

    Returns:
        A `TverskyLoss`.
    """
    return TverskyLoss(task, alpha=alpha, beta=beta, gamma=gamma, smooth=smooth, classes=classes)


@register("jaccard", modes=("binary", "multiclass"))
def jaccard(
    task: Task,
    *,
    smooth: float = 0.0,
    log_loss: bool = False,
    classes: Literal["present", "all"] | Sequence[int] = "present",
) -> nn.Module:
    """Soft Jaccard loss: 1 - (I + smooth) / (S + G - I + smooth), mean over classes.

    With classes="all" equal to smp's JaccardLoss where smp's intersection does not cancel in float32; smp's
    also keeps absent classes in the mean and is 0 for any prediction on a batch without foreground.

    Args:
        task: the segmentation task; class weights in multiclass mode only.
        smooth: added to numerator and denominator, in pixels.
        log_loss: -log of the index instead of 1 - index.
        classes: "present", "all" or a list, as in `TverskyLoss`.

    Returns:
        A `TverskyLoss` with alpha = beta = 1.
    """
    return TverskyLoss(task, alpha=1.0, beta=1.0, smooth=smooth, log_loss=log_loss, classes=classes)
