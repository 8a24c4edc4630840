"""Binary cross entropy with label smoothing."""

from torch import Tensor, nn

from losses.errors import LossError
from losses.kernels.batch import FusedLoss, LossInputs
from losses.kernels.reductions import safe_divide
from losses.registry import register
from losses.task import Task, reject_class_weights


class SmoothedBCELoss(FusedLoss):
    """Mean binary cross entropy of the valid pixels.

    With z the logit, s the sigmoid, e the smoothing, w the weight of the foreground and t the label:

        t' = t (1 - e) + (1 - t) e
        l = -w t' log s(z) - (1 - t') log s(-z)

    Value in [0, inf).

    Args:
        task: binary.
        smooth_factor: e, in [0, 0.5].
        pos_weight: w, positive.

    Raises:
        LossError: an option out of range, or class weights in the task.
    """

    def __init__(self, task: Task, smooth_factor: float = 0.0, pos_weight: float | None = None) -> None:
        super().__init__(task)
        reject_class_weights(task, "its pos_weight weighs the foreground")
        if not 0 <= smooth_factor <= 0.5:
            raise LossError(f"smooth_factor must be in [0, 0.5], got {smooth_factor}")
        if pos_weight is not None and not pos_weight > 0:
            raise LossError(f"pos_weight must be positive, got {pos_weight}")
        self.smooth_factor = smooth_factor
        self.pos_weight = 1.0 if pos_weight is None else pos_weight

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient, see `FusedLoss`."""
        z, p, target = inputs.logits[:, 0], inputs.probabilities[:, 0], inputs.foreground_target  # (N, H, W)
        is_plain = not self.smooth_factor and self.pos_weight == 1.0
        nll_of_abs = negative_log_sigmoid(z.abs())  # -log sigmoid(|z|)
        # -log sigmoid(z) = nll_of_abs + max(-z, 0), -log sigmoid(-z) = nll_of_abs + max(z, 0)
        if is_plain:  # max((1 - 2t) z, 0) + nll_of_abs
            losses = (1.0 - 2.0 * target).mul_(z).clamp_(min=0).add_(nll_of_abs)
        else:
            target = target * (1 - 2 * self.smooth_factor) + self.smooth_factor  # t'
            positive, negative = target * self.pos_weight, 1.0 - target  # w t', 1 - t'
            losses = positive * (nll_of_abs - z.clamp(max=0)) + negative * (nll_of_abs + z.clamp(min=0))
        value = safe_divide(inputs.zero_ignored_(losses).sum(), inputs.valid_count)
        if not inputs.wants_grad:
            return value, None
        # d l / dz = (w t' + 1 - t') p - w t'
        grad = p - target if is_plain else (positive + negative).mul_(p).sub_(positive)
        return value, grad.mul_(safe_divide(inputs.valid_float, inputs.valid_count)).unsqueeze(1)


def negative_log_sigmoid(values: Tensor) -> Tensor:
    """Return -log sigmoid of non-negative values, in place; exact to 1e-7 there."""
    return values.sigmoid_().log_().neg_()


@register("soft_bce", modes=("binary",))
def soft_bce(task: Task, *, smooth_factor: float = 0.0, pos_weight: float | None = None) -> nn.Module:
    """Binary cross entropy over the valid pixels.

    Equal to smp's SoftBCEWithLogitsLoss without ignored pixels; smp's divides by the number of all pixels,
    is NaN for NaN logits at ignored pixels, and accepts neither labels (N, H, W) nor integers.

    Args:
        task: the segmentation task.
        smooth_factor: labels 0 and 1 become e and 1 - e.
        pos_weight: weight of a foreground pixel relative to a background pixel; null for 1.

    Returns:
        A `SmoothedBCELoss`.
    """
    return SmoothedBCELoss(task, smooth_factor, pos_weight)
