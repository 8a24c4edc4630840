"""Autograd function that attaches a gradient computed without a graph."""

from typing import Any

import torch
from torch import Tensor

from losses.kernels.validation import can_sync


def attach_gradient(logits: Tensor, value: Tensor, grad: Tensor | None) -> Tensor:
    """Attach a value that was computed outside the graph, and its gradient, to the logits.

    Args:
        logits: (N, C, H, W) of any float dtype.
        value: scalar.
        grad: (N, C, H, W), d value / d logits in float32 or float64; None returns `value` unchanged.

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
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        on_cpu = grad_output.device.type == "cpu" and can_sync(grad_output)
        if grad.dtype == ctx.dtype and on_cpu and grad_output == 1:
            return grad, None, None  # the usual case; saves a pass over the gradient
        # scaled before it is rounded: the gradient of a mean is too small for float16
        return torch.mul(grad, grad_output).to(ctx.dtype), None, None
