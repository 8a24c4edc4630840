"""What is learnt (Task), and the losses by name."""

import math
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

MODES = ("binary", "multiclass")


class LossError(ValueError):
    """A loss, an option or a task does not fit; one line with what was given and what was expected."""


class ClassWeightsError(LossError):
    """The task has class weights, and the loss has no place for them."""


@dataclass(frozen=True)
class Task:
    """What is learnt: the one place that knows how binary and multiclass differ.

    Attributes:
        mode: "multiclass" (logits with one channel per class) or "binary" (one channel, that of the
            foreground).
        num_classes: at least 2. Binary tasks have background and foreground, so 2; 1 and None mean the same.
        ignore_index: label of pixels that no loss sees, or None; it may be the number of a class.
        class_weights: one per class, not negative, not all 0; None weighs all alike.
        class_counts: valid pixels per class in the training split, for losses that weigh by frequency.
        image_pixels: per class, valid pixels of all training images that hold it, for the same.

    Raises:
        LossError: anything else.
    """

    mode: str
    num_classes: int = None  # type: ignore[assignment] # None is replaced, or refused, on construction
    ignore_index: int | None = 255
    class_weights: Sequence[float] | None = None
    class_counts: Sequence[int] | None = None
    image_pixels: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise LossError(f"unknown mode {self.mode!r}{nearest(self.mode, MODES)}")
        object.__setattr__(self, "num_classes", self._count_classes())
        if self.ignore_index is not None and not _is_int(self.ignore_index):
            raise LossError(f"ignore_index must be an integer or None, got {self.ignore_index!r}")
        for field in ("class_weights", "class_counts", "image_pixels"):
            values = getattr(self, field)
            if values is not None:
                object.__setattr__(self, field, checked_weights(values, self.num_classes, field))
        if self.class_counts is not None and not all(float(n).is_integer() for n in self.class_counts):
            raise LossError(f"class_counts must be whole numbers of pixels, got {list(self.class_counts)}")

    def _count_classes(self) -> int:
        number = self.num_classes
        if self.mode == "binary":
            if number is not None and (not _is_int(number) or number not in (1, 2)):
                raise LossError(f"a binary task has 2 classes (background, foreground), got {number!r}")
            return 2
        if not _is_int(number) or number < 2:
            raise LossError(f"a multiclass task needs num_classes of at least 2, got {number!r}")
        return int(number)

    @property
    def binary(self) -> bool:
        """Whether one logit per pixel decides between background and foreground."""
        return self.mode == "binary"

    @property
    def channels(self) -> int:
        """Channels of the logits: num_classes, or 1 in binary mode."""
        return 1 if self.binary else self.num_classes

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities in float32.

        Args:
            logits: (N, channels, H, W).

        Returns:
            (N, num_classes, H, W): softmax, or background and foreground from the sigmoid.
        """
        logits = logits.float()
        if self.binary:
            return torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=1)
        return torch.softmax(logits, dim=1)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Logarithms of the probabilities, finite where those round to 0; see probabilities."""
        logits = logits.float()
        if self.binary:
            return nn.functional.logsigmoid(torch.cat([-logits, logits], dim=1))
        return torch.log_softmax(logits, dim=1)

    def decode(self, logits: Tensor, threshold: float = 0.5) -> Tensor:
        """The most likely class of every pixel.

        Args:
            logits: (N, channels, H, W).
            threshold: of binary tasks: what has a higher probability is foreground; above 0 and below 1.

        Returns:
            (N, H, W) int64.
        """
        if self.binary:
            return (logits[:, 0] > math.log(threshold / (1 - threshold))).long()
        return logits.max(dim=1).indices  # several times faster than argmax on a CPU


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
        raise LossError(f"unknown mode {mode!r}{nearest(mode, MODES)}")
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
            raise LossError(f"loss {name!r} has no option {option!r}{nearest(option, known)}")
        if not _fits(value, hints[option]):
            raise LossError(f"loss {name!r}: {option}={value!r} should be {_words(hints[option])}")
    try:
        return entry.factory(task, **options)
    except LossError as error:
        raise type(error)(f"loss {name!r}: {error}") from None


def refuse_weights(task: Task, why: str) -> None:
    """Refuses the class weights of a task, rather than dropping them, where a loss has no place for them."""
    if task.class_weights is not None:
        raise ClassWeightsError(f"no place for class weights: {why}")


def checked_weights(values: Any, length: int, what: str) -> tuple[float, ...]:
    """A tuple of one number per class: finite, not negative, not all 0; anything else is a LossError."""
    if isinstance(values, Tensor):
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise LossError(f"{what} must be a list of {length} numbers, got {values!r}")
    numbers = list(values)
    if len(numbers) != length:
        raise LossError(f"{what} must be one number for each of {length} classes, got {numbers}")
    if not all(_fits(v, float) and v >= 0 for v in numbers) or not any(numbers):
        raise LossError(f"{what} must be finite, not negative and not all 0, got {numbers}")
    return tuple(numbers)


def _entry(name: str) -> _Entry:
    if name not in _LOSSES:
        raise LossError(f"unknown loss {name!r}{nearest(name, _LOSSES)}")
    return _LOSSES[name]


def _parameters(factory: Factory) -> list[Parameter]:
    return [p for p in signature(factory).parameters.values() if p.kind is Parameter.KEYWORD_ONLY]


def nearest(given: object, names: Iterable[str]) -> str:
    """What ends a message about an unknown name: the nearest one, and all that there are."""
    known = sorted(names)
    close = get_close_matches(str(given), known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{hint} There is: {', '.join(known) or 'nothing'}"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
