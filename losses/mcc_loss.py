"""Matthews correlation coefficient as a loss."""

import torch
from torch import Tensor, nn

from losses.kernels import soft_confusion as regions
from losses.kernels.batch import FusedLoss, LossInputs
from losses.kernels.reductions import safe_divide
from losses.registry import register
from losses.task import Task, reject_class_weights


class MCCLoss(FusedLoss):
    """One minus the soft Matthews correlation coefficient, for K classes Gorodkin's R_K (2004).

    With I, S, G the overlap, predicted and actual size of each class (in binary mode of background and
    foreground) over the n valid pixels of the whole batch, and c the sum of I:

        R = (n c - sum of S_k G_k) / sqrt((n^2 - sum of S_k^2) (n^2 - sum of G_k^2))
        loss = 1 - R

    For two classes that is the usual coefficient (Abhishek and Hamarneh 2021, arXiv 2010.13454). If all
    valid pixels are of one class, R is 0 / 0, and the loss is 1 - c / n. A prediction of one class for all
    pixels of several has R = 0. Value in [0, 2].

    Args:
        task: what is learnt, without class weights.

    Raises:
        LossError: class weights in the task.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        reject_class_weights(task, "it is one correlation over all classes")

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in FusedLoss."""
        overlap, predicted, actual = regions.soft_confusion(pixels)
        count, correct = actual.sum(), overlap.sum()
        spread = _spread(predicted)
        norm = torch.sqrt(spread * _spread(actual))
        score = safe_divide(count * correct - (predicted * actual).sum(), norm)
        alone = (actual > 0).sum() < 2
        value = torch.where(alone, safe_divide((count - correct).clamp(min=0), count), 1.0 - score)
        value = value.to(pixels.logits.dtype)
        if not pixels.wants_grad:
            return value, None
        by_overlap = -torch.where(alone, safe_divide(torch.ones_like(count), count), safe_divide(count, norm))
        by_predicted = safe_divide(actual, norm) - score * safe_divide(predicted, spread)
        by_predicted = torch.where(alone, 0.0, by_predicted)
        return value, regions.soft_confusion_grad(pixels, by_overlap.expand_as(predicted), by_predicted)


def _spread(sizes: Tensor) -> Tensor:
    """(sum of sizes)^2 - sum of sizes^2, as a sum of products of different classes: nothing cancels."""
    return (torch.outer(sizes, sizes).triu(1)).sum() * 2


@register("mcc", modes=("binary", "multiclass"))
def mcc(task: Task) -> nn.Module:
    """Matthews correlation loss: uses all four cells of the confusion matrix, whatever the class sizes.

    smp's MCCLoss is binary only, takes probabilities where its other losses take logits, and its additive
    eps makes the loss of a perfect prediction without foreground 1/2; equal to it otherwise.

    Args:
        task: what is learnt, without class weights.

    Returns:
        A `MCCLoss`.
    """
    return MCCLoss(task)
