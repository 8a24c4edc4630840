"""Computing in bfloat16: whether the machine can, and which layers stay in float32."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn


def supports_bf16(device: str) -> bool:
    """Whether a type of device ("cpu", "cuda" ...) has hardware for bfloat16; elsewhere it is slow."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and torch.cpu._is_avx512_bf16_supported()


def keep_depthwise_fp32(model: nn.Module) -> None:
    """Has a CPU train depthwise convolutions in float32 under autocast: in bfloat16 their gradients are slow.

    Args:
        model: changed; its weights and what it predicts are not.
    """
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and part.groups > 1:
            part.forward = partial(_in_float32, part.forward)  # type: ignore[method-assign]


def _in_float32(forward: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    if image.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
        return forward(image)
    with torch.autocast("cpu", enabled=False):
        return forward(image.float()).to(torch.get_autocast_dtype("cpu"))
