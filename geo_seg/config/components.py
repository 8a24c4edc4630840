"""Options of components, checked against the signature of their `_target_` or name. No torch in here."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from geo_seg.config.signatures import Signature, ancestors, describe_unknown, signature, union_members
from geo_seg.errors import ConfigError, did_you_mean

FROM_PYTHON = {
    "optimizer": {"params"},
    "scheduler": {"optimizer", "epochs", "steps_per_epoch"},  # a configuration gives total_steps
    "trainer": {
        *("logger", "callbacks", "plugins", "default_root_dir", "num_sanity_val_steps"),
        *("use_distributed_sampler", "limit_predict_batches"),
    },
    "model": {
        *("in_channels", "channels", "of"),
        *("classes", "activation", "aux_params", "encoder_name", "encoder_weights"),  # smp's
    },
    "logger": {"save_dir"},
    "callbacks": set(),
    "augment": set(),
    "samples": set(),
}
"""Parameters that code fills in, by section: a configuration can't give them."""

_BASE_CLASSES = {  # that a _target_ has to inherit from, by section
    "optimizer": "Optimizer",
    "scheduler": "LRScheduler",
    "trainer": "Trainer",
    "callbacks": "Callback",
    "logger": "Logger",
}
_YAML_TYPES = {  # by annotation
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "None": "null",
    "dict": "a mapping",
    "Mapping": "a mapping",
}
_NULL_FROM_RUN = {  # options whose null is replaced by a value of the run
    "scheduler": {"T_max", "total_iters", "total_steps", "max_lr", "cycle_momentum"},
    "logger": {"experiment_name", "project"},
}
_EXTRA_OPTIONS = {  # options beside the parameters of the target
    "scheduler": {"interval"},
    "augment": {"_args_", "_partial_"},
}


def target_errors(section: str, key: str, options: object) -> Iterator[ConfigError]:
    """Yield what is wrong with the `_target_` of a component, and with its options.

    The class may be unknown, have another base class, or not accept an option.

    Args:
        section: a key of FROM_PYTHON.
        key: of the mapping.
        options: the mapping, with a `_target_`.
    """
    if not isinstance(options, Mapping) or not isinstance(options.get("_target_"), str):
        yield ConfigError(f"{key}: expected a mapping with a _target_, got {options!r}")
        return
    target = options["_target_"]
    base, bases = _BASE_CLASSES.get(section), ancestors(target)
    if message := describe_unknown(target):
        yield ConfigError(f"{key}._target_={target}: {message}")
    elif base and bases is not None and base not in bases:
        yield ConfigError(f"{key}._target_={target}: expected a class that is a {base}")
    elif (accepted := signature(target)) is not None:
        extra = {"_target_", *_EXTRA_OPTIONS.get(section, set())}
        yield from option_errors(key, options, accepted, FROM_PYTHON[section], extra)


def option_errors(
    key: str, options: Mapping[str, Any], accepted: Signature, filled: set[str], extra: set[str]
) -> Iterator[ConfigError]:
    """Yield an error for each option that a signature lacks, and for each value of the wrong type.

    Args:
        key: of the mapping.
        options: the mapping.
        accepted: signature of the callable that receives them.
        filled: parameters that code fills in.
        extra: options beside the parameters.
    """
    parameters = {name: p for name, p in accepted.parameters.items() if name not in filled}
    nullable = _NULL_FROM_RUN.get(key.partition(".")[0], set())
    for option, value in options.items():
        if option in extra or (value is None and option in nullable):
            continue
        if option in parameters:
            if not parameters[option].accepts(value):
                expected = _describe_type(parameters[option].annotation)
                yield ConfigError(f"{key}.{option}={value!r}: expected {expected}")
        elif not accepted.accepts_kwargs or option in filled:
            hint = did_you_mean(option, {*parameters, *extra})
            yield ConfigError(f"{key}.{option}: nothing reads it; {hint}")


def _describe_type(annotation: str) -> str:
    """Return what YAML can give for an annotation: "mean, sum or a list of numbers"."""
    described = []
    for member in union_members(annotation):
        name, _, inner = member.partition("[")
        if name == "Literal":
            described += [str(choice) for choice in ast.literal_eval(f"({inner[:-1]},)")]
        elif name in {"list", "tuple", "Sequence", "Iterable"}:
            described.append("a list of numbers" if inner[:-1] in {"int", "float"} else "a list")
        elif name in _YAML_TYPES:
            described.append(_YAML_TYPES[name])
    *others, last = dict.fromkeys(described)
    return f"{', '.join(others)} or {last}" if others else last


def check_name(section: str, options: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return the name in a section.

    Args:
        section: its key.
        options: the section.
        names: all valid names.

    Raises:
        ConfigError: the name is unknown.
    """
    name = options.get("name")
    if not isinstance(name, str) or name not in names:
        raise ConfigError(
            f"{section}.name={name}: unknown {section} {name!r}; {did_you_mean(str(name), names)}"
        )
    return name
