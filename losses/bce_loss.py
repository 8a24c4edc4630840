"""Binary cross entropy with smoothing."""

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
        task: what is learnt; binary.
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

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in FusedLoss."""
        logits, p, target = (
            pixels.logits[:, 0],
            pixels.probabilities[:, 0],
            pixels.foreground_target,
        )  # (N, H, W)
        plain = not self.smooth_factor and self.pos_weight == 1.0
        small = negative_log_sigmoid(logits.abs())
        # -log s(z) = small + max(-z, 0), -log s(-z) = small + max(z, 0)
        if plain:
            losses = (1.0 - 2.0 * target).mul_(logits).clamp_(min=0).add_(small)
        else:
            target = target * (1 - 2 * self.smooth_factor) + self.smooth_factor
            positive, negative = target * self.pos_weight, 1.0 - target
            losses = positive * (small - logits.clamp(max=0)) + negative * (small + logits.clamp(min=0))
        value = safe_divide(pixels.zero_ignored_(losses).sum(), pixels.count)
        if not pixels.wants_grad:
            return value, None
        grad = p - target if plain else (positive + negative).mul_(p).sub_(positive)
        return value, grad.mul_(safe_divide(pixels.valid_float, pixels.count)).unsqueeze(1)


def negative_log_sigmoid(values: Tensor) -> Tensor:
    """-log of the sigmoid of values that are not negative, in place; there the formula is exact to 1e-7."""
    return values.sigmoid_().log_().neg_()


@register("soft_bce", modes=("binary",))
def soft_bce(task: Task, *, smooth_factor: float = 0.0, pos_weight: float | None = None) -> nn.Module:
    """Binary cross entropy over the valid pixels.

    smp's SoftBCEWithLogitsLoss divides by the number of all pixels, turns NaN under ignored pixels into a
    NaN loss, and refuses labels (N, H, W) and integers; equal to it without ignored pixels otherwise.

    Args:
        task: what is learnt.
        smooth_factor: labels 0 and 1 become e and 1 - e.
        pos_weight: how much more a pixel of the foreground counts; null for as much.

    Returns:
        A `SmoothedBCELoss`.
    """
    return SmoothedBCELoss(task, smooth_factor, pos_weight)
