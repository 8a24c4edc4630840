"""Losses for semantic segmentation, chosen by name; they need only torch.

This module imports every module of the package, so a new loss is one file with `@register` above its factory.
`build("focal", Task("multiclass", 6), gamma=3)` returns a module `forward(logits, labels) -> scalar`.
"""

from importlib import import_module
from pkgutil import iter_modules

from losses.class_weights import class_weights
from losses.errors import LossError
from losses.registry import (
    Loss,
    LossWithSchedule,
    LossWithTerms,
    available,
    build,
    modes,
    options,
    register,
)
from losses.task import Task

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Loss",
    "LossError",
    "LossWithSchedule",
    "LossWithTerms",
    "Task",
    "available",
    "build",
    "class_weights",
    "modes",
    "options",
    "register",
]
