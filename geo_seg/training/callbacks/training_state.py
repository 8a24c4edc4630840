"""Checks of the training state in a checkpoint, before training resumes from it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from geo_seg.errors import CheckpointError

RESTART_REMEDY = "replace it by another checkpoint, such as best.ckpt, or start again without resume="
"""Remedy for a checkpoint from which training can't resume, for messages."""


def check_alike(state: object, template: object, name: str) -> None:
    """Check that nested containers have the keys of a template, and numbers where it has numbers.

    Args:
        state: the containers to check; further keys are allowed.
        template: containers with the expected keys.
        name: name of `state` for the message.

    Raises:
        ValueError: a key or a number is missing; the message names it.
    """
    if isinstance(template, dict):
        if not isinstance(state, dict) or not template.keys() <= state.keys():
            raise ValueError(f"{name} has to hold {', '.join(map(str, template))}")
        for key, value in template.items():
            check_alike(state[key], value, f"{name}.{key}")
    elif isinstance(template, int) and not (isinstance(state, int) and state >= 0):
        raise ValueError(f"{name} has to be a whole number from 0 on, or true or false")


def check_optimizers(states: list[object], path: str | Path) -> None:
    """Check the optimizer states of a checkpoint.

    Args:
        states: state dict of each optimizer.
        path: the checkpoint file, for the message.

    Raises:
        CheckpointError: there is not exactly one state, or it holds values that are not finite.
    """
    parameter_states = [state.get("state") for state in states if isinstance(state, dict)]
    if len(states) != 1 or not parameter_states or not isinstance(parameter_states[0], dict):
        raise CheckpointError(
            f"{path}: its optimizer_states are those of no training run of geo_seg, which has one "
            f"optimizer; {RESTART_REMEDY}"
        )
    tensors = tree_leaves(parameter_states[0])
    if not all(bool(torch.isfinite(value).all()) for value in tensors if isinstance(value, Tensor)):
        raise CheckpointError(
            f"{path}: its optimizer_states hold values that are not finite; {RESTART_REMEDY}"
        )


def check_sizes(optimizers: Sequence[Optimizer]) -> None:
    """Check the shapes of a fused optimizer's state: its kernels would write past a smaller tensor.

    Raises:
        ValueError: a tensor has neither the shape of its weight nor a single value.
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
