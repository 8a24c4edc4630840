"""The Tversky index and its relatives: Dice, Jaccard, Tversky, focal Tversky."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from losses.errors import LossError
from losses.kernels import soft_confusion as regions
from losses.kernels.batch import FusedLoss, LossInputs
from losses.kernels.reductions import safe_divide
from losses.registry import register
from losses.task import Task, reject_class_weights

Classes = str | Sequence[int]
TINY = 1e-7


class TverskyLoss(FusedLoss):
    """One minus the Tversky index (Salehi et al. 2017, arXiv 1706.05721) of soft regions, mean over classes.

    With I, S, G the overlap, predicted and actual size of a class over the valid pixels of the whole batch:

        FP = S - I    FN = G - I
        T = (I + smooth) / (I + alpha FP + beta FN + smooth)
        loss of a class = (1 - T)^gamma, or -log T
        loss = weighted mean over the classes that `classes` says

    alpha = beta = 1/2 is Dice, alpha = beta = 1 Jaccard. Value in [0, 1]; with log_loss in [0, 16.2].

    Args:
        task: what is learnt; class weights in multiclass mode only.
        alpha: cost of false positives.
        beta: cost of false negatives.
        gamma: power of each class's loss.
        smooth: added to numerator and denominator, in pixels.
        log_loss: -log T in place of 1 - T.
        classes: "present": classes with a valid pixel in the batch; in binary mode the foreground, or the
            background if there is no foreground, so that false positives cost something even then.
            "all": all classes, absent ones as 0 (smp's numbers); in binary mode the foreground, 0 if absent.
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
        listed = listed_classes(classes, task)
        weights = task.class_weights or [1.0] * task.num_classes
        counted = [w if c in listed else 0.0 for c, w in enumerate(weights)]
        if not any(counted):
            raise LossError(f"the class weights of all of classes={classes} are 0")
        self.register_buffer("counted", torch.tensor(counted, dtype=torch.float32))

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in FusedLoss."""
        overlap, predicted, actual = sizes = regions.soft_confusion(pixels)
        false_positive = (predicted - overlap).clamp(min=0)
        false_negative = (actual - overlap).clamp(min=0)
        misses = self.alpha * false_positive + self.beta * false_negative
        union = (overlap + misses + self.smooth).clamp(min=TINY)
        index = (overlap + self.smooth) / union
        miss = misses / union  # 1 - index, without cancellation
        losses, slope = self._shape(index, miss)  # slope: derivative by the index, negated
        share = self.shares(sizes)
        value = (share * losses).sum().to(pixels.logits.dtype)
        if not pixels.wants_grad:
            return value, None
        by_index = -share * slope / union
        by_overlap = by_index * (1.0 - index * (1.0 - self.alpha - self.beta))
        return value, regions.soft_confusion_grad(pixels, by_overlap, by_index * -index * self.alpha)

    def _shape(self, index: Tensor, miss: Tensor) -> tuple[Tensor, Tensor]:
        if self.log_loss:
            above = index.clamp(min=TINY)
            return -torch.log(above), torch.where(index > TINY, 1.0 / above, 0.0)
        if self.gamma == 1:
            return miss, torch.ones_like(miss)
        return miss**self.gamma, self.gamma * miss.clamp(min=TINY) ** (self.gamma - 1)

    def shares(self, sizes: regions.SoftConfusion) -> Tensor:
        """(K,) what each class contributes to the mean; 0 for all if no class counts."""
        present = sizes.target > 0
        share = self.counted.to(sizes.target.dtype) * present
        if not self.only_present:
            return share / self.counted.to(sizes.target.dtype).sum()
        if self.binary:
            share = torch.stack([(present[0] & ~present[1]).to(share.dtype), share[1]])
        return safe_divide(share, share.sum())


def listed_classes(classes: Classes, task: Task) -> list[int]:
    """The classes that an option `classes` speaks of; in binary mode the foreground."""
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

    smp's TverskyLoss has the cancelling overlap, keeps absent classes in the mean and gives 0 for any
    prediction on a batch without foreground; classes="all" is equal to it where its overlap does not cancel.

    Args:
        task: what is learnt; class weights in multiclass mode only.
        alpha: cost of false positives.
        beta: cost of false negatives; above alpha it finds more of rare classes.
        smooth: added to numerator and denominator, in pixels.
        log_loss: -log of the index in place of 1 - index.
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
        task: what is learnt; class weights in multiclass mode only.
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

    smp's JaccardLoss has the cancelling overlap, keeps absent classes in the mean and gives 0 for any
    prediction on a batch without foreground; classes="all" is equal to it where its overlap does not cancel.

    Args:
        task: what is learnt; class weights in multiclass mode only.
        smooth: added to numerator and denominator, in pixels.
        log_loss: -log of the index in place of 1 - index.
        classes: "present", "all" or a list, as in `TverskyLoss`.

    Returns:
        A `TverskyLoss` with alpha = beta = 1.
    """
    return TverskyLoss(task, alpha=1.0, beta=1.0, smooth=smooth, log_loss=log_loss, classes=classes)
