"""Weighted sums of losses, with weights that may change over the epochs."""

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

_SCHEDULE = {"from", "to", "over"}


@dataclass(frozen=True)
class Schedule:
    """A weight that goes linearly from start to end over some epochs, and stays there.

    Attributes:
        start: weight in epoch 0.
        end: weight from epoch `over` on.
        over: epochs, at least 1.
    """

    start: float
    end: float
    over: int = 1

    def at(self, epoch: int) -> float:
        """The weight in an epoch, counted from 0."""
        return self.start + (self.end - self.start) * min(epoch / self.over, 1.0)


class CompoundLoss(nn.Module):
    """The sum of weight times loss over some losses. Terms of this package share one softmax.

    Args:
        terms: the losses by name, with the schedules of their weights.
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
        """Moves the weights to those of an epoch, counted from 0."""
        self.weights.copy_(torch.tensor([schedule.at(epoch) for schedule in self.schedules]))

    def terms(self) -> dict[str, Tensor]:
        """Each term's value in the last forward pass, detached and without its weight."""
        return dict(self._values)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (N, C, H, W).
            labels: (N, H, W) or (N, 1, H, W).

        Returns:
            A scalar in float32 (float64 for logits in float64).
        """
        values: dict[str, Tensor] = {}
        weights = dict(zip(self.losses, self.weights, strict=True))
        own = {name: loss for name, loss in self.losses.items() if isinstance(loss, FusedLoss)}
        if own:
            with torch.autocast(logits.device.type, enabled=False):
                values, grad = _evaluate(own, weights, logits, labels)
        weighted = [weights[name] * value for name, value in values.items()]
        total = [attach_gradient(logits, torch.stack(weighted).sum(), grad)] if own else []
        for name, loss in self.losses.items():
            if name not in own:
                value = loss(logits, labels)
                values[name] = value.detach()
                total.append(weights[name] * value)
        self._values = {name: values[name] for name in self.losses}
        return torch.stack(total).sum()


def _evaluate(
    losses: dict[str, FusedLoss], weights: dict[str, Tensor], logits: Tensor, labels: Tensor
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Each loss's value, and the gradient of their weighted sum, on one `Pixels`."""
    pixels = next(iter(losses.values())).prepare(logits, labels)
    values, total = {}, None
    for place, (name, loss) in enumerate(losses.items(), start=1):
        pixels.shared = place < len(losses)
        values[name], grad = loss.value_and_grad(pixels)
        if grad is not None:
            weight = weights[name]
            if not (weight.device.type == "cpu" and can_sync(weight) and weight == 1):
                grad.mul_(weight)  # else a pass less
            total = grad if total is None else total.add_(grad)
    return values, total


@register("compound", modes=("binary", "multiclass"))
def compound(task: Task, *, terms: Mapping[str, Any] | None = None) -> nn.Module:
    """Any weighted sum of losses by name.

    Class weights of the task go to the terms that can use them; if none can, they are refused.

    Args:
        task: what is learnt, in a mode that all terms work in.
        terms: for each loss by name its weight; a schedule {from: 0, to: 1, over: 10}, linear over that many
            epochs and constant after them; or a mapping of `weight` (a number or a schedule, 1 if it is left
            out) and options of that loss. None takes dice and focal, 1 each, which suit both modes.

    Returns:
        A `CompoundLoss`.

    Raises:
        LossError: no terms, a weight that is negative or no number, whatever the losses refuse.
    """
    terms = {"dice": 1, "focal": 1} if terms is None else terms
    if not terms:
        raise LossError("terms is empty; give losses and their weights, such as {dice: 1, focal: 1}")
    parts, refusals = {}, []
    for name, term in terms.items():
        weight, options = _weight_and_options(term)
        schedule = _schedule(name, weight)
        try:
            loss = build(name, task, **options)
        except ClassWeightsError as error:
            refusals.append(error)
            loss = build(name, replace(task, class_weights=None), **options)
        parts[name] = (loss, schedule)
    if len(refusals) == len(terms):
        raise refusals[0]
    if not any(schedule.start or schedule.end for _, schedule in parts.values()):
        raise LossError(f"all weights are 0 in terms={dict(terms)}")
    return CompoundLoss(parts)


def _weight_and_options(term: Any) -> tuple[Any, dict[str, Any]]:
    if not isinstance(term, Mapping) or set(term) & {"from", "to"}:
        return term, {}
    return term.get("weight", 1.0), {option: value for option, value in term.items() if option != "weight"}


def _schedule(name: str, weight: Any) -> Schedule:
    if not isinstance(weight, Mapping):
        constant = _number(name, "weight", weight)
        return Schedule(constant, constant)
    if set(weight) != _SCHEDULE:
        raise LossError(f"a schedule is {{from: 0, to: 1, over: 10}}, got {name}: {dict(weight)}")
    over = weight["over"]
    if not isinstance(over, int) or isinstance(over, bool) or over < 1:
        raise LossError(f"{name}: over is a number of epochs, at least 1, got {over!r}")
    return Schedule(_number(name, "from", weight["from"]), _number(name, "to", weight["to"]), over)


def _number(name: str, what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise LossError(f"{what} of {name} must be a number of at least 0, got {value!r}")
    return float(value)
