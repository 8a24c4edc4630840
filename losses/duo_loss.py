"""The mean of Lovász-Softmax and boundary loss."""

from inspect import signature
from typing import Any

from torch import Tensor, nn

from losses.boundary_loss import BoundaryLoss
from losses.errors import LossError
from losses.kernels.batch import FusedLoss, LossInputs
from losses.lovasz_loss import LovaszSoftmax
from losses.registry import register
from losses.task import Task, reject_class_weights


class DuoLoss(FusedLoss):
    """(LovaszSoftmax + BoundaryLoss) / 2: regions by the one, outlines by the other. Value in [0, 1].

    Args:
        **kwargs: arguments of `LovaszSoftmax` and `BoundaryLoss`; each part gets those that it has, so
            ignore_index goes to both.

    Raises:
        LossError: an argument that neither part has.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(ignore_index=kwargs.get("ignore_index"))
        known = {part: tuple(signature(part).parameters) for part in (LovaszSoftmax, BoundaryLoss)}
        for name in kwargs:
            if not any(name in names for names in known.values()):
                there = sorted({name for names in known.values() for name in names})
                raise LossError(f"DuoLoss has no argument {name!r}. There is: {', '.join(there)}")
        mine = {part: {k: v for k, v in kwargs.items() if k in names} for part, names in known.items()}
        self.lovasz = LovaszSoftmax(**mine[LovaszSoftmax])
        self.boundary = BoundaryLoss(**mine[BoundaryLoss])

    def forward(self, preds: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            preds: logits (N, C, H, W).
            labels: (N, H, W) or (N, 1, H, W).

        Returns:
            A scalar in float32 (float64 for logits in float64).
        """
        return super().forward(preds, labels)

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in FusedLoss."""
        region, by_region = self.lovasz.value_and_grad(pixels)
        outline, by_outline = self.boundary.value_and_grad(pixels)
        value = (region + outline) / 2
        if by_region is None or by_outline is None:
            return value, None
        return value, by_region.add_(by_outline).div_(2)


@register("duo", modes=("multiclass",))
def duo(task: Task, *, theta0: int = 5, theta: int = 9, per_image: bool = False) -> nn.Module:
    """The mean of Lovász-Softmax and boundary loss.

    Args:
        task: what is learnt, without class weights.
        theta0: side of the window that finds boundaries, odd.
        theta: side of the window within which boundaries match, odd.
        per_image: of Lovász-Softmax: average over images in place of ranking the whole batch.

    Returns:
        A `DuoLoss`.

    Raises:
        LossError: a window that is even or not positive, class weights in the task.
    """
    reject_class_weights(task, "neither of its parts has a use for them")
    loss = DuoLoss(theta0=theta0, theta=theta, per_image=per_image, ignore_index=task.ignore_index)
    loss.num_classes = task.num_classes
    return loss
