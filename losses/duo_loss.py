"""Mean of Lovász-Softmax and boundary loss."""

from inspect import signature
from typing import Any

from torch import Tensor, nn

from losses.boundary_loss import BoundaryLoss
from losses.errors import LossError, did_you_mean
from losses.kernels.batch import FusedLoss, LossInputs
from losses.lovasz_loss import LovaszSoftmax
from losses.registry import register
from losses.task import Task, reject_class_weights


class DuoLoss(FusedLoss):
    """(LovaszSoftmax + BoundaryLoss) / 2: a loss of regions and one of outlines. Value in [0, 1].

    Args:
        **kwargs: arguments of `LovaszSoftmax` and `BoundaryLoss`; each is passed to the losses that have it,
            so ignore_index to both.

    Raises:
        LossError: an argument that neither loss has.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(ignore_index=kwargs.get("ignore_index"))
        lovasz_names = set(signature(LovaszSoftmax).parameters)
        boundary_names = set(signature(BoundaryLoss).parameters)
        for name in kwargs:
            if name not in lovasz_names | boundary_names:
                hint = did_you_mean(name, lovasz_names | boundary_names)
                raise LossError(f"DuoLoss has no argument {name!r}{hint}")
        self.lovasz = LovaszSoftmax(**{name: value for name, value in kwargs.items() if name in lovasz_names})
        self.boundary = BoundaryLoss(
            **{name: value for name, value in kwargs.items() if name in boundary_names}
        )

    def forward(self, preds: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch.

        Args:
            preds: logits (N, C, H, W).
            labels: (N, H, W) or (N, 1, H, W).

        Returns:
            A scalar in float32 (float64 for logits in float64).
        """
        return super().forward(preds, labels)

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient, see `FusedLoss`."""
        lovasz, grad_lovasz = self.lovasz.value_and_grad(inputs)
        boundary, grad_boundary = self.boundary.value_and_grad(inputs)
        value = (lovasz + boundary) / 2
        if grad_lovasz is None or grad_boundary is None:
            return value, None
        return value, grad_lovasz.add_(grad_boundary).div_(2)


@register("duo", modes=("multiclass",))
def duo(task: Task, *, theta0: int = 5, theta: int = 9, per_image: bool = False) -> nn.Module:
    """Mean of Lovász-Softmax and boundary loss.

    Args:
        task: the segmentation task, without class weights.
        theta0: side of the window that finds boundaries, odd.
        theta: side of the window within which boundaries match, odd.
        per_image: for Lovász-Softmax: average over images instead of ranking the whole batch.

    Returns:
        A `DuoLoss`.

    Raises:
        LossError: a window that is even or not positive, class weights in the task.
    """
    reject_class_weights(task, "neither of its two losses can use them")
    loss = DuoLoss(theta0=theta0, theta=theta, per_image=per_image, ignore_index=task.ignore_index)
    loss.num_classes = task.num_classes
    return loss
