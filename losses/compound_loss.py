"""Weighted sums of losses, with weights that are constant or follow a linear schedule."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from losses.errors import ClassWeightsError, LossError
from losses.kernels.autograd import attach_gradient
from losses.kernels.batch import FusedLoss
from losses.kernels.validation import can_sync
from losses.registry import build, register
from losses.task import Task

_SCHEDULE_KEYS = {"from", "to", "over"}


@dataclass(frozen=True)
class Schedule:
    """A weight that changes linearly over the first epochs and is constant after them.

    Attributes:
        start: weight in epoch 0.
        end: weight from epoch `over` on.
        over: number of epochs, at least 1.
    """

    start: float
    end: float
    over: int = 1

    def at(self, epoch: int) -> float:
        """Return the weight in an epoch, counted from 0."""
        return self.start + (self.end - self.start) * min(epoch / self.over, 1.0)


class CompoundLoss(nn.Module):
    """A weighted sum of losses; the terms of this package share one softmax.

    Args:
        terms: each loss by name, with the schedule of its weight.
    """

    weights: Tensor

    def __init__(self, terms: Mapping[str, tuple[nn.Module, Schedule]]) -> None:
        super().__init__()
        self.losses = nn.ModuleDict({name: loss for name, (loss, _) in terms.items()})
        self.schedules = [schedule for _, schedule in terms.values()]
        self.register_buffer("weights", torch.zeros(len(terms)), persistent=False)
        self._values: dict[str, Tensor] = {}
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Set the weights to those of an epoch, counted from 0."""
        self.weights.copy_(torch.tensor([schedule.at(epoch) for schedule in self.schedules]))

    def terms(self) -> dict[str, Tensor]:
        """Return each term's value in the last forward pass, detached and without its weight."""
        return dict(self._values)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch.

        Args:
            logits: (N, C, H, W).
            labels: (N, H, W) or (N, 1, H, W).

        Returns:
            A scalar in float32 (float64 for logits in float64).
        """
        values: dict[str, Tensor] = {}
        weights = dict(zip(self.losses, self.weights, strict=True))
        fused = {name: loss for name, loss in self.losses.items() if isinstance(loss, FusedLoss)}
        if fused:
            with torch.autocast(logits.device.type, enabled=False):
                values, grad = _values_and_grad(fused, weights, logits, labels)
        weighted = [weights[name] * value for name, value in values.items()]
        summands = [attach_gradient(logits, torch.stack(weighted).sum(), grad)] if fused else []
        for name, loss in self.losses.items():
            if name not in fused:
                value = loss(logits, labels)
                values[name] = value.detach()
                summands.append(weights[name] * value)
        self._values = {name: values[name] for name in self.losses}
        return torch.stack(summands).sum()


def _values_and_grad(
    losses: dict[str, FusedLoss], weights: dict[str, Tensor], logits: Tensor, labels: Tensor
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return each loss's value, and the gradient of their weighted sum, from one `LossInputs`."""
    inputs = next(iter(losses.values())).prepare(logits, labels)
    values, total_grad = {}, None
    for number, (name, loss) in enumerate(losses.items(), start=1):
        inputs.shared = number < len(losses)
        values[name], grad = loss.value_and_grad(inputs)
        if grad is not None:
            weight = weights[name]
            is_one = weight.device.type == "cpu" and can_sync(weight) and weight == 1
            if not is_one:  # saves a pass over the gradient
                grad.mul_(weight)
            total_grad = grad if total_grad is None else total_grad.add_(grad)
    return values, total_grad


@register("compound", modes=("binary", "multiclass"))
def compound(task: Task, *, terms: Mapping[str, Any] | None = None) -> nn.Module:
    """Weighted sum of losses, by name.

    Class weights of the task are passed to the terms that can use them; if no term can, they are an error.

    Args:
        task: the segmentation task, in a mode that all terms work in.
        terms: for each loss by name its weight; a schedule {from: 0, to: 1, over: 10}, linear over that many
            epochs and constant after them; or a mapping of `weight` (a number or a schedule, default 1) and
            options of that loss. None for dice and focal, 1 each, which work in both modes.

    Returns:
        A `CompoundLoss`.

    Raises:
        LossError: no terms, a weight that is negative or not a number, an invalid option of a term.
    """
    terms = {"dice": 1, "focal": 1} if terms is None else terms
    if not terms:
        raise LossError("terms is empty; give losses and their weights, such as {dice: 1, focal: 1}")
    losses_with_schedules, weight_errors = {}, []
    for name, term in terms.items():
        weight, options = _weight_and_options(term)
        schedule = _schedule(name, weight)
        try:
            loss = build(name, task, **options)
        except ClassWeightsError as error:
            weight_errors.append(error)
            loss = build(name, replace(task, class_weights=None), **options)
        losses_with_schedules[name] = (loss, schedule)
    if len(weight_errors) == len(terms):
        raise weight_errors[0]
    if not any(schedule.start or schedule.end for _, schedule in losses_with_schedules.values()):
        raise LossError(f"all weights are 0 in terms={dict(terms)}")
    return CompoundLoss(losses_with_schedules)


def _weight_and_options(term: Any) -> tuple[Any, dict[str, Any]]:
    """Return the weight (a number or a schedule, not checked) and the options of a term."""
    if not isinstance(term, Mapping) or set(term) & {"from", "to"}:
        return term, {}
    return term.get("weight", 1.0), {option: value for option, value in term.items() if option != "weight"}


def _schedule(name: str, weight: Any) -> Schedule:
    """Return the schedule of a loss's weight; raise LossError if the weight is invalid."""
    if not isinstance(weight, Mapping):
        constant = _non_negative(name, "weight", weight)
        return Schedule(constant, constant)
    if set(weight) != _SCHEDULE_KEYS:
        raise LossError(f"a schedule is {{from: 0, to: 1, over: 10}}, got {name}: {dict(weight)}")
    over = weight["over"]
    if not isinstance(over, int) or isinstance(over, bool) or over < 1:
        raise LossError(f"{name}: over is a number of epochs, at least 1, got {over!r}")
    return Schedule(
        _non_negative(name, "from", weight["from"]), _non_negative(name, "to", weight["to"]), over
    )


def _non_negative(name: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise LossError(f"{key} of {name} must be a number of at least 0, got {value!r}")
    return float(value)
