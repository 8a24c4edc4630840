"""Matthews correlation coefficient as a loss."""

import torch
from torch import Tensor, nn

from losses.kernels.batch import FusedLoss, LossInputs
from losses.kernels.reductions import safe_divide
from losses.kernels.soft_confusion import soft_confusion, soft_confusion_grad
from losses.registry import register
from losses.task import Task, reject_class_weights


class MCCLoss(FusedLoss):
    """One minus the soft Matthews correlation coefficient, for K classes Gorodkin's R_K (2004).

    With I, S, G the intersection, predicted and target size of each class (in binary mode of background and
    foreground) over the n valid pixels of the whole batch, and c the sum of I:

        R = (n c - sum of S_k G_k) / sqrt((n^2 - sum of S_k^2) (n^2 - sum of G_k^2))
        loss = 1 - R

    For two classes that is the usual coefficient (Abhishek and Hamarneh 2021, arXiv 2010.13454). If all
    valid pixels are of one class, R is 0 / 0, and the loss is 1 - c / n. A prediction of one class for all
    pixels of several has R = 0. Value in [0, 2].

    Args:
        task: the segmentation task, without class weights.

    Raises:
        LossError: class weights in the task.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        reject_class_weights(task, "it is one correlation over all classes")

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient, see `FusedLoss`."""
        intersection, predicted, target = soft_confusion(inputs)  # I, S, G
        n, correct = target.sum(), intersection.sum()
        predicted_variance = _variance(predicted)  # n^2 - sum of S_k^2
        norm = torch.sqrt(predicted_variance * _variance(target))
        r = safe_divide(n * correct - (predicted * target).sum(), norm)  # R
        one_class = (target > 0).sum() < 2
        value = torch.where(one_class, safe_divide((n - correct).clamp(min=0), n), 1.0 - r)
        value = value.to(inputs.logits.dtype)
        if not inputs.wants_grad:
            return value, None
        # d loss / d I_k = -n / norm; with one class -1 / n
        grad_intersection = -torch.where(one_class, safe_divide(torch.ones_like(n), n), safe_divide(n, norm))
        # d loss / d S_k = G_k / norm - R S_k / (n^2 - sum of S_k^2); with one class 0
        grad_predicted = safe_divide(target, norm) - r * safe_divide(predicted, predicted_variance)
        grad_predicted = torch.where(one_class, 0.0, grad_predicted)
        return value, soft_confusion_grad(inputs, grad_intersection.expand_as(predicted), grad_predicted)


def _variance(sizes: Tensor) -> Tensor:
    """Return (sum of sizes)^2 - sum of sizes^2, as a sum of products of two classes: nothing cancels."""
    return (torch.outer(sizes, sizes).triu(1)).sum() * 2


@register("mcc", modes=("binary", "multiclass"))
def mcc(task: Task) -> nn.Module:
    """Matthews correlation loss: uses all cells of the confusion matrix, for any class sizes.

    Equal to smp's MCCLoss, except that smp's is binary only, takes probabilities where its other losses take
    logits, and has an additive eps that makes the loss of a perfect prediction without foreground 1/2.

    Args:
        task: the segmentation task, without class weights.

    Returns:
        An `MCCLoss`.
    """
    return MCCLoss(task)
