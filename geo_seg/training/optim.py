"""Learning rates of the parts of a model."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from geo_seg.config.training import EncoderConfig
from geo_seg.errors import ConfigError


def parameter_groups(
    decoder: Sequence[nn.Parameter], encoder: nn.Module, options: Mapping[str, Any], config: EncoderConfig
) -> list[dict[str, Any]]:
    """Groups of weights for an optimizer, each with its rate where that isn't the optimizer's own.

    Args:
        decoder: weights of the decoder and all the rest.
        encoder: of the model.
        options: of the optimizer; lr is the rate of the decoder.
        config: how the encoder learns. Its last layer has the rate lr * lr_factor, each one before it
            layer_decay times that of the next (Clark et al. 2020, ELECTRA).

    Raises:
        ConfigError: the encoder shall have rates of its own, and the optimizer has none to begin with.
    """
    if config.lr_factor == config.layer_decay == 1:
        return [{"params": list(decoder)}, {"params": list(encoder.parameters())}]
    if options.get("lr") is None:
        raise ConfigError("encoder.lr_factor, encoder.layer_decay: expected an optimizer.lr to begin with")
    layers = encoder_layers(encoder) if config.layer_decay != 1 else [list(encoder.parameters())]
    highest = options["lr"] * config.lr_factor
    rates = [highest * config.layer_decay ** (len(layers) - 1 - number) for number in range(len(layers))]
    own = [{"params": layer, "lr": rate} for layer, rate in zip(layers, rates, strict=True)]
    return [{"params": list(decoder)}, *own]


def encoder_layers(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """The weights of an encoder by layer, from the image on.

    A layer is what bears one number in its name: a stage of a ResNet, a block of an EfficientNet or of a
    transformer. What bears none belongs to what is defined before it, and the stem to the first layer.
    """
    found: dict[int, list[nn.Parameter]] = {}
    number = -1
    for name, weight in encoder.named_parameters():
        said = re.search(r"\d+", name)
        number = int(said.group()) if said else number
        found.setdefault(number, []).append(weight)
    stem = found.pop(-1, [])
    layers = [found[key] for key in sorted(found)]
    return [[*stem, *layers[0]], *layers[1:]] if layers else [stem]
