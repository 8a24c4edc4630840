"""Registry of losses: register, list and build them by name."""

import math
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import (
    Any,
    Literal,
    Protocol,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from torch import Tensor, nn

from losses.errors import LossError, did_you_mean
from losses.task import MODES, Task

Factory = Callable[..., nn.Module]


@dataclass(frozen=True)
class _Entry:
    """A registered loss.

    Attributes:
        factory: `(task, *, option=default, ...) -> nn.Module`.
        modes: the modes that it works in.
    """

    factory: Factory
    modes: tuple[str, ...]


_LOSSES: dict[str, _Entry] = {}


def register(name: str, *, modes: Sequence[str]) -> Callable[[Factory], Factory]:
    """Register a loss factory; its keyword-only parameters are the options of the loss.

    Args:
        name: name of the loss in `loss=<name>`.
        modes: "binary", "multiclass" or both.

    Returns:
        A decorator that returns the factory `(task, *, option=default, ...) -> nn.Module` unchanged.

    Raises:
        LossError: a duplicate name, an unknown mode, an option without default or annotation.
    """

    def decorator(factory: Factory) -> Factory:
        if name in _LOSSES:
            raise LossError(f"two losses are named {name!r}: {_LOSSES[name].factory} and {factory}")
        if not modes or any(mode not in MODES for mode in modes):
            raise LossError(f"loss {name!r}: modes must be from {MODES}, got {modes!r}")
        for option in _parameters(factory):
            if Parameter.empty in (option.default, option.annotation):
                raise LossError(f"loss {name!r}: option {option.name} needs an annotation and a default")
        _LOSSES[name] = _Entry(factory, tuple(modes))
        return factory

    return decorator


def available(mode: str | None = None) -> tuple[str, ...]:
    """Return the sorted names of all losses, or of those that work in `mode`."""
    if mode is not None and mode not in MODES:
        raise LossError(f"unknown mode {mode!r}{did_you_mean(mode, MODES)}")
    return tuple(sorted(name for name, entry in _LOSSES.items() if mode is None or mode in entry.modes))


def options(name: str) -> dict[str, Any]:
    """Return the options of a loss and their defaults, in the order of its signature."""
    return {option.name: option.default for option in _parameters(_entry(name).factory)}


def modes(name: str) -> tuple[str, ...]:
    """Return the modes that a loss works in."""
    return _entry(name).modes


class Loss(Protocol):
    """A torch module from logits (N, C, H, W) and labels (N, H, W) to a scalar."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch."""

    def modules(self) -> Iterator[nn.Module]:
        """Yield the module and all modules in it."""


@runtime_checkable
class LossWithSchedule(Protocol):
    """A loss that changes from epoch to epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Set what the loss is in an epoch, counted from 0."""


@runtime_checkable
class LossWithTerms(Protocol):
    """A loss of several terms."""

    def terms(self) -> dict[str, Tensor]:
        """Return each term's value in the last forward pass, detached and without its weight."""


def build(name: str, task: Task, **options: Any) -> nn.Module:
    """Build a loss.

    Args:
        name: one of `available()`.
        task: the segmentation task.
        **options: any of `options(name)`; the others keep their defaults.

    Returns:
        A module `forward(logits, labels) -> scalar`; logits (N, task.channels, H, W) of any float dtype,
        labels (N, H, W) or (N, 1, H, W) of any integer dtype.

    Raises:
        LossError: an unknown name or option, a value of the wrong type or range, a mode that the loss does
            not work in, or class weights that it cannot use.
    """
    entry = _entry(name)
    if task.mode not in entry.modes:
        names = ", ".join(available(task.mode))
        raise LossError(f"loss {name!r} needs a {entry.modes[0]} task; available for {task.mode}: {names}")
    option_names = {option.name for option in _parameters(entry.factory)}
    hints = get_type_hints(entry.factory)
    for option, value in options.items():
        if option not in option_names:
            raise LossError(f"loss {name!r} has no option {option!r}{did_you_mean(option, option_names)}")
        if not _matches_hint(value, hints[option]):
            raise LossError(f"loss {name!r}: {option}={value!r} should be {_describe(hints[option])}")
    try:
        return entry.factory(task, **options)
    except LossError as error:
        raise type(error)(f"loss {name!r}: {error}") from None


def _entry(name: str) -> _Entry:
    if name not in _LOSSES:
        raise LossError(f"unknown loss {name!r}{did_you_mean(name, _LOSSES)}")
    return _LOSSES[name]


def _parameters(factory: Factory) -> list[Parameter]:
    """Return the keyword-only parameters of a factory."""
    return [p for p in signature(factory).parameters.values() if p.kind is Parameter.KEYWORD_ONLY]


def _matches_hint(value: Any, hint: Any) -> bool:
    """Return whether a value has the type of an annotation; an int is also a float, a bool is no int."""
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return any(_matches_hint(value, choice) for choice in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(_matches_hint(v, get_args(hint)[0]) for v in value)
    if isinstance(value, bool) or origin is bool:
        return isinstance(value, bool) and origin is bool
    if origin is float:
        return isinstance(value, float | int) and math.isfinite(value)
    return isinstance(value, origin)


def _describe(hint: Any) -> str:
    """Return an annotation in words, for messages."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe(choice) for choice in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    if get_origin(hint) is Sequence:
        return f"a list of {_describe(get_args(hint)[0])}"
    descriptions = {float: "a number", int: "an integer", bool: "true or false", types.NoneType: "null"}
    return descriptions.get(hint, "a mapping")
