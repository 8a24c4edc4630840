"""Registry of models: register them by name, and build them for any number of bands and image size."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

import geo_seg.models
from geo_seg.config.signatures import module_file
from geo_seg.errors import ConfigError, did_you_mean, first_line
from geo_seg.models.layers import PadToStride
from geo_seg.runtime.registration import import_modules
from geo_seg.tiling import OUTPUT_STRIDE

Factory = Callable[..., nn.Module]


@dataclass(frozen=True)
class _Entry:
    """A registered model; see register_model."""

    factory: Factory
    of: str | None
    min_size: int


_MODELS: dict[str, _Entry] = {}


def register_model(
    name: str, *, of: str | None = None, min_size: int = OUTPUT_STRIDE
) -> Callable[[Factory], Factory]:
    """Register a model; its keyword-only parameters are the options of the model.

    The configuration is checked against the source, without importing it: name and `of` are literals, and the
    decorator stands above a function or a class.

    Args:
        name: of the model, in model.name.
        of: dotted name of a class of a library that the factory builds: the options of that class are options
            of the model too, and the factory gets the class as `of`.
        min_size: smallest side in pixels that the model takes; smaller images are padded.

    Returns:
        A decorator that returns the factory unchanged: `(in_channels, channels, *, option=default, ...)`
        to a module from (N, in_channels, H, W) to logits (N, channels, H, W), for sides that are multiples of
        OUTPUT_STRIDE. If the module has an `encoder`, that can be frozen and learn at rates of its own; its
        text `origin`, if it has one, is a note for the user.

    Raises:
        ConfigError: another model has the name.
    """

    def decorator(factory: Factory) -> Factory:
        known = _MODELS.get(name)
        if known is not None and _full_name(known.factory) != _full_name(factory):
            raise ConfigError(
                f"two models are named {name!r}: {_full_name(known.factory)} and {_full_name(factory)}"
            )
        _MODELS[name] = _Entry(factory, of, min_size)
        return factory

    return decorator


def own_modules() -> set[str]:
    """Return the modules outside this package whose models are registered, except those without a file."""
    modules = {entry.factory.__module__ for entry in _MODELS.values()}
    return {m for m in modules if not m.startswith(f"{geo_seg.models.__name__}.") and module_file(m)}


def build_model(options: Mapping[str, Any], in_channels: int, channels: int) -> PadToStride:
    """Build a registered model; `module` is not imported here, see import_own_module.

    Args:
        options: name, and options of the model.
        in_channels: number of bands of the image, 1 or more.
        channels: number of channels of the logits.

    Returns:
        A module from (N, in_channels, H, W) to logits (N, channels, H, W), for any H and W.

    Raises:
        ConfigError: the name is unknown, or the model can't be built with these options.
    """
    import_modules(geo_seg.models)
    arguments = {key: value for key, value in options.items() if key not in {"name", "module"}}
    entry = _MODELS.get(name := str(options["name"]))
    if entry is None:
        raise ConfigError(f"model.name={name}: unknown model {name!r}; {did_you_mean(name, _MODELS)}")
    if entry.of is not None:
        library, _, class_name = entry.of.rpartition(".")
        arguments["of"] = getattr(import_module(library), class_name)
    try:
        net = entry.factory(in_channels, channels, **arguments)
    except ConfigError:
        raise
    except Exception as error:  # models check their options in many ways
        raise ConfigError(f"{_describe(options)}: {first_line(error)}") from error
    return PadToStride(net, entry.min_size, getattr(net, "origin", ""))


def check_window_sides(
    options: Mapping[str, Any], sides: Collection[int], in_channels: int = 3, channels: int = 2
) -> None:
    """Raise unless a model takes square windows of these sides.

    Models of this package are checked on the meta device, without memory; a user's may not work there.

    Args:
        options: of build_model.
        sides: of the windows in pixels.
        in_channels: number of bands.
        channels: number of channels of the logits.

    Raises:
        ConfigError: the model doesn't take one of them, or see build_model.
    """
    unweighted = without_weights(options)
    device = "cpu" if options.get("module") else "meta"
    if device == "cpu" or str(options.get("encoder")).startswith("mit_"):  # whose constructor reads values
        model = build_model(unweighted, in_channels, channels).to(device)
    else:
        with torch.device(device):
            model = build_model(unweighted, in_channels, channels)
    model.eval()
    for side in sides:
        image = torch.zeros(1, in_channels, side, side, device=device)
        try:
            with torch.no_grad():
                shape = tuple(model(image).shape)
        except Exception as error:  # networks check their input in many ways
            other = "encoder" if "encoder" in options else "window"
            raise ConfigError(
                f"{_describe(options)}: doesn't take windows of {side} x {side} pixels, as dataset.window "
                f"sets them ({first_line(error)}); use another {other}"
            ) from error
        if shape != (1, channels, side, side):
            raise ConfigError(
                f"{_describe(options)}: makes logits {shape} of a window of {side} x {side} pixels; expected "
                f"{(1, channels, side, side)}"
            )


def without_weights(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a model whose weights come from elsewhere: its option `weights` is null."""
    return {key: None if key == "weights" else value for key, value in options.items()}


def _describe(options: Mapping[str, Any]) -> str:
    encoder = f" model.encoder={options['encoder']}" if "encoder" in options else ""
    return f"model={options['name']}{encoder}"


def _full_name(factory: Factory) -> str:
    return f"{factory.__module__}.{factory.__qualname__}"
