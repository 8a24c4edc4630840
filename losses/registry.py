"""Losses by name: registered, listed and built."""

import math
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from losses.errors import LossError, did_you_mean
from losses.task import MODES, Task

Factory = Callable[..., nn.Module]


@dataclass(frozen=True)
class _Entry:
    factory: Factory
    modes: tuple[str, ...]


_LOSSES: dict[str, _Entry] = {}


def register(name: str, *, modes: Sequence[str]) -> Callable[[Factory], Factory]:
    """Puts a factory into the registry; its keyword-only parameters are the options of the loss.

    Args:
        name: what users write, `loss=<name>`.
        modes: "binary", "multiclass" or both.

    Returns:
        A decorator that gives the factory `(task, *, option=default, ...) -> nn.Module` back unchanged.

    Raises:
        LossError: a name that is taken, a mode that does not exist, an option without default or annotation.
    """

    def enter(factory: Factory) -> Factory:
        if name in _LOSSES:
            raise LossError(f"two losses are named {name!r}: {_LOSSES[name].factory} and {factory}")
        if not modes or any(mode not in MODES for mode in modes):
            raise LossError(f"loss {name!r}: modes must be out of {MODES}, got {modes!r}")
        for option in _parameters(factory):
            if Parameter.empty in (option.default, option.annotation):
                raise LossError(f"loss {name!r}: option {option.name} needs an annotation and a default")
        _LOSSES[name] = _Entry(factory, tuple(modes))
        return factory

    return enter


def available(mode: str | None = None) -> tuple[str, ...]:
    """Names of all losses, sorted; with a mode, of those that work in it."""
    if mode is not None and mode not in MODES:
        raise LossError(f"unknown mode {mode!r}{did_you_mean(mode, MODES)}")
    return tuple(sorted(name for name, entry in _LOSSES.items() if mode is None or mode in entry.modes))


def options(name: str) -> dict[str, Any]:
    """The options of a loss and their defaults, in the order of its signature."""
    return {option.name: option.default for option in _parameters(_entry(name).factory)}


def modes(name: str) -> tuple[str, ...]:
    """The modes that a loss works in."""
    return _entry(name).modes


def build(name: str, task: Task, **options: Any) -> nn.Module:
    """Builds a loss.

    Args:
        name: one of `available()`.
        task: what is learnt.
        **options: some of `options(name)`; the others keep their defaults.

    Returns:
        A module `forward(logits, labels) -> scalar`; logits (N, task.channels, H, W) of any float dtype,
        labels (N, H, W) or (N, 1, H, W) of any integer dtype.

    Raises:
        LossError: an unknown name or option, a value of the wrong type or range, a mode or class weights
            that the loss has no use for.
    """
    entry = _entry(name)
    if task.mode not in entry.modes:
        others = ", ".join(available(task.mode))
        raise LossError(f"loss {name!r} needs a {entry.modes[0]} task; for {task.mode} there is: {others}")
    known = {option.name for option in _parameters(entry.factory)}
    hints = get_type_hints(entry.factory)
    for option, value in options.items():
        if option not in known:
            raise LossError(f"loss {name!r} has no option {option!r}{did_you_mean(option, known)}")
        if not _fits(value, hints[option]):
            raise LossError(f"loss {name!r}: {option}={value!r} should be {_words(hints[option])}")
    try:
        return entry.factory(task, **options)
    except LossError as error:
        raise type(error)(f"loss {name!r}: {error}") from None


def _entry(name: str) -> _Entry:
    if name not in _LOSSES:
        raise LossError(f"unknown loss {name!r}{did_you_mean(name, _LOSSES)}")
    return _LOSSES[name]


def _parameters(factory: Factory) -> list[Parameter]:
    return [p for p in signature(factory).parameters.values() if p.kind is Parameter.KEYWORD_ONLY]


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(_fits(v, get_args(hint)[0]) for v in value)
    if isinstance(value, bool) or origin is bool:
        return isinstance(value, bool) and origin is bool
    if origin is float:
        return isinstance(value, float | int) and math.isfinite(value)
    return isinstance(value, origin)


def _words(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_words(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(repr(part) for part in get_args(hint))
    if get_origin(hint) is Sequence:
        return f"a list of {_words(get_args(hint)[0])}"
    words = {float: "a number", int: "an integer", bool: "true or false", types.NoneType: "null"}
    return words.get(hint, "a mapping")
