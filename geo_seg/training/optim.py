"""Parameter groups with the learning rates of decoder and encoder layers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import nn

from geo_seg.config.training import EncoderConfig
from geo_seg.errors import ConfigError
from geo_seg.models.protocol import Model


def parameter_groups(
    decoder: Sequence[nn.Parameter],
    encoder: nn.Module | None,
    options: Mapping[str, Any],
    config: EncoderConfig,
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer, with learning rates where they differ from its own.

    Args:
        decoder: all weights outside the encoder.
        encoder: encoder of the model; None if it has none.
        options: options of the optimizer; lr is the rate of the decoder.
        config: options of the encoder. Its last layer has the rate lr * lr_factor, each layer before it
            layer_decay times that of the next one (Clark et al. 2020, ELECTRA).

    Raises:
        ConfigError: lr_factor or layer_decay is set, but not the optimizer's lr.
    """
    if encoder is None:
        return [{"params": list(decoder)}]
    if config.lr_factor == config.layer_decay == 1:
        return [{"params": list(decoder)}, {"params": list(encoder.parameters())}]
    if options.get("lr") is None:
        raise ConfigError("encoder.lr_factor, encoder.layer_decay: expected a value for optimizer.lr")
    layers = encoder_layers(encoder) if config.layer_decay != 1 else [list(encoder.parameters())]
    encoder_lr = options["lr"] * config.lr_factor
    rates = [encoder_lr * config.layer_decay ** (len(layers) - 1 - number) for number in range(len(layers))]
    encoder_groups = [{"params": layer, "lr": rate} for layer, rate in zip(layers, rates, strict=True)]
    return [{"params": list(decoder)}, *encoder_groups]


def check_has_encoder(model: Model, config: EncoderConfig) -> None:
    """Raise ConfigError if an option of the encoder is set, and the model has none."""
    changed = [
        f"encoder.{field.name}={getattr(config, field.name)}"
        for field in fields(config)
        if getattr(config, field.name) != field.default
    ]
    if changed and model.encoder is None:
        raise ConfigError(
            f"{', '.join(changed)}: the model {type(getattr(model, 'net', model)).__name__} has no attribute "
            "encoder to freeze or to train at rates of its own; leave these keys out"
        )


def encoder_layers(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """Return the weights of an encoder by layer, starting at the image.

    Weights with the same first number in their names are a layer: a stage of a ResNet, a block of an
    EfficientNet or of a transformer. Weights without a number belong to the layer before them, the stem to
    the first layer.
    """
    layer_weights: dict[int, list[nn.Parameter]] = {}
    number = -1
    for name, weight in encoder.named_parameters():
        match = re.search(r"\d+", name)
        number = int(match.group()) if match else number
        layer_weights.setdefault(number, []).append(weight)
    stem = layer_weights.pop(-1, [])
    layers = [layer_weights[key] for key in sorted(layer_weights)]
    return [[*stem, *layers[0]], *layers[1:]] if layers else [stem]
