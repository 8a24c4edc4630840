"""The device that models run on."""

import os

import torch

from geo_seg.errors import ConfigError


def choose_device(accelerator: str) -> torch.device:
    """The device for "auto", "cpu", "gpu" or "mps".

    Raises:
        ConfigError: this machine doesn't have it.
    """
    has = {
        "gpu": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if accelerator == "auto":
        accelerator = next(name for name, there in has.items() if there)
    if not has[accelerator]:
        there = ", ".join(name for name, present in has.items() if present)
        raise ConfigError(f"accelerator={accelerator}: torch finds none on this machine; there is: {there}")
    if accelerator == "gpu":  # the ranks of torchrun take turns
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device(accelerator)
