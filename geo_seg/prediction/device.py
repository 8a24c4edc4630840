"""Device selection: CPU, CUDA GPU or MPS."""

import os

import torch

from geo_seg.errors import ConfigError


def choose_device(accelerator: str) -> torch.device:
    """Return the torch device for "auto", "cpu", "gpu" or "mps".

    Raises:
        ConfigError: torch finds no such device on this machine.
    """
    is_available = {
        "gpu": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if accelerator == "auto":
        accelerator = next(name for name, available in is_available.items() if available)
    if not is_available[accelerator]:
        names = ", ".join(name for name, available in is_available.items() if available)
        raise ConfigError(f"accelerator={accelerator}: torch finds none on this machine; available: {names}")
    if accelerator == "gpu":  # the ranks of torchrun take turns
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device(accelerator)
