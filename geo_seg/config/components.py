"""What a `_target_` or a name of ours takes: options against the signature. No torch in here."""

from collections.abc import Mapping
from typing import Any

from geo_seg.config.signatures import Signature, ancestors, describe_unknown, signature
from geo_seg.errors import ConfigError, did_you_mean

ARCHITECTURES = {
    "unet": "Unet",
    "unetplusplus": "UnetPlusPlus",
    "manet": "MAnet",
    "linknet": "Linknet",
    "fpn": "FPN",
    "pspnet": "PSPNet",
    "pan": "PAN",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3Plus",
    "upernet": "UPerNet",
    "segformer": "Segformer",
    "dpt": "DPT",
}
"""Our name of each architecture, and its class in segmentation_models_pytorch."""


FROM_PYTHON = {  # parameters that our code fills in
    "optimizer": {"params"},
    "scheduler": {"optimizer", "epochs", "steps_per_epoch"},  # the run's length is total_steps
    "trainer": {
        *("logger", "callbacks", "plugins", "default_root_dir", "num_sanity_val_steps"),
        *("use_distributed_sampler", "limit_predict_batches"),
    },
    "model": {"in_channels", "classes", "activation", "aux_params", "encoder_name", "encoder_weights"},
    "logger": {"save_dir"},
    "callbacks": set(),
    "augment": set(),
    "samples": set(),
}
"""By section."""

_KINDS = {  # what a _target_ has to come from
    "optimizer": "Optimizer",
    "scheduler": "LRScheduler",
    "trainer": "Trainer",
    "callbacks": "Callback",
    "logger": "Logger",
}
_FILLED = {  # what null takes from the run
    "scheduler": {"T_max", "total_iters", "total_steps", "max_lr", "cycle_momentum"},
    "logger": {"experiment_name", "project"},
}
_OPTIONS_OF_OURS = {
    "scheduler": {"interval"},
    "augment": {"_args_", "_partial_"},
}  # keys beside the target's own parameters


def check_target(section: str, key: str, options: Any) -> None:
    """Checks what says which class is built, and with which options.

    Args:
        section: what it is for, one of FROM_PYTHON.
        key: of the mapping.
        options: the mapping.

    Raises:
        ConfigError: there is no such class, it is of another kind, or an option doesn't fit its signature.
    """
    if not isinstance(options, Mapping) or not isinstance(options.get("_target_"), str):
        raise ConfigError(f"{key}: expected a mapping with a _target_, got {options!r}")
    target = options["_target_"]
    if said := describe_unknown(target):
        raise ConfigError(f"{key}._target_={target}: {said}")
    kind, above = _KINDS.get(section), ancestors(target)
    if kind and above is not None and kind not in above:
        raise ConfigError(f"{key}._target_={target}: expected a class that is a {kind}")
    found = signature(target)
    if found is not None:
        ours = {"_target_", *_OPTIONS_OF_OURS.get(section, set())}
        check_options(key, options, found, FROM_PYTHON[section], ours)


def check_options(
    key: str, options: Mapping[str, Any], found: Signature, filled: set[str], ours: set[str]
) -> None:
    """Checks options against a signature.

    Args:
        key: of the mapping.
        options: the mapping.
        found: what takes them.
        filled: parameters that our code fills in.
        ours: keys that our code reads.

    Raises:
        ConfigError: an option that nothing reads, or a value of another type.
    """
    known = {name: p for name, p in found.parameters.items() if name not in filled}
    for option, value in options.items():
        if option in ours:
            continue
        if option not in known:
            if found.accepts_kwargs and option not in filled:
                continue
            raise ConfigError(f"{key}.{option}: nothing reads it; {did_you_mean(option, {*known, *ours})}")
        if value is None and option in _FILLED.get(key.partition(".")[0], set()):
            continue
        if not known[option].accepts(value):
            raise ConfigError(f"{key}.{option}={value!r}: expected {known[option].annotation}")


def check_name(section: str, options: Mapping[str, Any], names: Mapping[str, Any]) -> str:
    """The name in a section.

    Args:
        section: the key.
        options: the section.
        names: what there is.

    Raises:
        ConfigError: there is no such name.
    """
    name = options.get("name")
    if not isinstance(name, str) or name not in names:
        raise ConfigError(
            f"{section}.name={name}: there is no such {section}; {did_you_mean(str(name), names)}"
        )
    return name
