"""A value and a gradient that were computed without a graph, joined to the logits."""

from typing import Any

import torch
from torch import Tensor

from losses.kernels.validation import can_sync


def attach_gradient(logits: Tensor, value: Tensor, grad: Tensor | None) -> Tensor:
    """Joins a value that was computed outside the graph, and its gradient, to the logits.

    Args:
        logits: (N, C, H, W) of any float dtype.
        value: scalar.
        grad: (N, C, H, W), derivative of value by the logits in float32 or float64; None leaves value as is.

    Returns:
        The value; its backward pass gives the logits a gradient in their own dtype.
    """
    return value if grad is None else _AttachGradient.apply(logits, value, grad)


class _AttachGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        ctx.dtype = logits.dtype
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        if grad.dtype == ctx.dtype and outer.device.type == "cpu" and can_sync(outer) and outer == 1:
            return grad, None, None  # what most backward passes start with; saves a pass over the gradient
        # scaled before it is rounded: the gradient of a mean is too small for float16
        return torch.mul(grad, outer).to(ctx.dtype), None, None
