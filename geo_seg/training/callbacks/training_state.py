"""Whether training can go on from the state that a checkpoint holds."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from geo_seg.errors import CheckpointError

RESTART_REMEDY = "put a checkpoint of another moment there, such as best.ckpt, or train anew without resume="
"""What to do about a checkpoint that training can't go on from."""


def check_alike(found: Any, usual: Any, name: str) -> None:
    """Check that plain containers have the keys of others, and numbers where those have some.

    Args:
        found: what is checked; it may have further keys.
        usual: what it is like.
        name: of what is found.

    Raises:
        ValueError: it isn't; names the place.
    """
    if isinstance(usual, dict):
        if not isinstance(found, dict) or not usual.keys() <= found.keys():
            raise ValueError(f"{name} has to hold {', '.join(map(str, usual))}")
        for key, value in usual.items():
            check_alike(found[key], value, f"{name}.{key}")
    elif isinstance(usual, int) and not (isinstance(found, int) and found >= 0):
        raise ValueError(f"{name} has to be a whole number from 0 on, or true or false")


def check_optimizers(states: list[Any], path: Any) -> None:
    """Check the states of optimizers that a checkpoint holds.

    Args:
        states: one of each optimizer.
        path: of the checkpoint.

    Raises:
        CheckpointError: Lightning would leave one out, or an optimizer would spread what isn't finite.
    """
    held = [state.get("state") for state in states if isinstance(state, dict)]
    if len(states) != 1 or not held or not isinstance(held[0], dict):
        raise CheckpointError(
            f"{path}: its optimizer_states are those of no training run of geo_seg, which has one "
            f"optimizer; {RESTART_REMEDY}"
        )
    tensors = tree_leaves(held[0])
    if not all(bool(torch.isfinite(value).all()) for value in tensors if isinstance(value, Tensor)):
        raise CheckpointError(
            f"{path}: its optimizer_states hold values that are not finite; {RESTART_REMEDY}"
        )


def check_sizes(optimizers: Sequence[Optimizer]) -> None:
    """Check what fused optimizers hold for each weight: their kernels would write past a smaller tensor.

    Raises:
        ValueError: a tensor has neither the shape of its weight nor one value.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for weight in group["params"] if group.get("fused") else ():
                for key, value in optimizer.state.get(weight, {}).items():
                    if isinstance(value, Tensor) and value.numel() != 1 and value.shape != weight.shape:
                        raise ValueError(
                            f"optimizer_states: {key} of shape {tuple(value.shape)} for a weight of shape "
                            f"{tuple(weight.shape)}"
                        )
