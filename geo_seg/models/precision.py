"""Computing in bfloat16: hardware support, and the layers that stay in float32."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn


def supports_bf16(device: str) -> bool:
    """Return whether a type of device ("cpu", "cuda" ...) has hardware for bfloat16; elsewhere it is slow."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and _cpu_has("_is_avx512_bf16_supported")


def has_amx_tiles() -> bool:
    """Return whether the CPU has AMX tiles, with which bfloat16 also trains faster than float32."""
    return _cpu_has("_is_amx_tile_supported")


def _cpu_has(check: str) -> bool:
    """Return the answer of a private check of torch.cpu; False, thus float32, where torch has it no more."""
    supported: Callable[[], bool] | None = getattr(torch.cpu, check, None)
    return supported is not None and supported()


def keep_depthwise_fp32(model: nn.Module) -> None:
    """Train depthwise convolutions in float32 on a CPU under autocast: their bfloat16 gradients are slow.

    Args:
        model: modified in place; its weights and predictions stay the same.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.forward = partial(_in_float32, module.forward)  # type: ignore[method-assign]


def _in_float32(forward: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    if image.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
        return forward(image)
    with torch.autocast("cpu", enabled=False):
        return forward(image.float()).to(torch.get_autocast_dtype("cpu"))
