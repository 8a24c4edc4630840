"""Start of a run from a trained model: its weights by name, class and band, and its normalization."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from geo_seg.checkpoints.checkpoint import CheckpointMetadata, read_checkpoint
from geo_seg.checkpoints.files import resolve_checkpoint
from geo_seg.errors import CheckpointError, ConfigError
from geo_seg.raster.band_names import match_bands

_Matches = Sequence[int | None]


def start_from(
    model: nn.Module, metadata: CheckpointMetadata, path: str, keeps_normalization: bool
) -> tuple[CheckpointMetadata, str]:
    """Take the weights of a trained model, as far as they fit.

    The head is taken by the names of the classes, the first layer by the names of the bands: further classes
    keep their random weights, further bands begin with the mean of the trained model's bands. Where the
    number of bands differs, the first layer is scaled so that its response stays about as strong.

    Args:
        model: of the run; its weights are replaced in place.
        metadata: of the run.
        path: run folder or checkpoint file of the trained model.
        keeps_normalization: whether bands of the trained model are normalized as there.

    Returns:
        The metadata, with mean and std of these bands; and a table for the user, of what was taken and what
        begins anew.

    Raises:
        ConfigError: the file is no checkpoint of geo_seg, or one of another architecture.
    """
    try:
        file = resolve_checkpoint(path)
        content, trained, _ = read_checkpoint(file)
    except CheckpointError as error:
        raise ConfigError(f"init={path}: {error}") from error
    _check_architecture(path, trained, metadata)
    source = {
        name.removeprefix("model."): value
        for name, value in content["state_dict"].items()
        if name.startswith("model.")
    }
    classes, bands = _match_classes(trained, metadata), _match_bands(trained, metadata)
    first, head = _first_and_head(model, metadata)
    state, taken = model.state_dict(), {}
    for name, own in state.items():
        value = source.get(name)
        layer = name.rpartition(".")[0]
        if value is not None and layer == head:
            value = _rows_by_class(value, own, classes, len(_outputs(trained)))
        elif value is not None and layer == first and name.endswith(".weight"):
            value = _slices_by_band(value, bands)
        if value is not None and value.shape == own.shape:
            taken[name] = value.to(own.dtype)
    incomplete = {name.rpartition(".")[0] for name in state.keys() - taken.keys()}  # a bias alone is no layer
    taken = {name: value for name, value in taken.items() if name.rpartition(".")[0] not in incomplete}
    model.load_state_dict({**state, **taken})
    if keeps_normalization:
        metadata = _with_normalization(metadata, trained, bands)
    kept = keeps_normalization and any(match is not None for match in bands)
    return metadata, _table(path, state, taken, trained, metadata, classes, bands, kept)


def _check_architecture(path: str, trained: CheckpointMetadata, metadata: CheckpointMetadata) -> None:
    for key in ("name", "encoder"):
        there, here = trained.model.get(key), metadata.model.get(key)
        if there != here:
            option = "model" if key == "name" else "model.encoder"
            raise ConfigError(
                f"init={path}: has {option}={there}, this run {option}={here}; give {option}={there}, or "
                "model.weights=<file> for the encoder alone"
            )


def _outputs(metadata: CheckpointMetadata) -> list[str]:
    """Return the names of the classes that have a channel of logits: of a binary model, the foreground."""
    return metadata.class_names[1:] if metadata.mode == "binary" else list(metadata.class_names)


def _match_classes(trained: CheckpointMetadata, metadata: CheckpointMetadata) -> _Matches:
    """Return, per channel of the run's logits, the trained model's; None where it has none."""
    if trained.mode != metadata.mode:
        return [None] * len(_outputs(metadata))
    there = _outputs(trained)
    return [there.index(name) if name in there else None for name in _outputs(metadata)]


def _match_bands(trained: CheckpointMetadata, metadata: CheckpointMetadata) -> _Matches:
    """Return, per band of the run, the trained model's; without names the same number of bands matches."""
    there, here = trained.band_names, metadata.band_names
    if there == here:
        return range(len(here))
    named_there, named_here = (["" if n.isdecimal() else n for n in names] for names in (there, here))
    if len(there) == len(here) and not (any(named_there) and any(named_here)):
        return range(len(here))
    return match_bands(named_here, named_there)


def _first_and_head(model: nn.Module, metadata: CheckpointMetadata) -> tuple[str, str]:
    """Return the names of the layers that take the bands and that make the logits; "" for none."""
    channels, bands = len(_outputs(metadata)), len(metadata.mean)
    layers = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    weights = {name: layer.weight for name, layer in layers.items()}
    first = (name for name, weight in weights.items() if weight.dim() == 4 and weight.shape[1] == bands)
    head = (name for name in reversed(weights) if weights[name].shape[0] == channels)
    return next(first, ""), next(head, "")


def _rows_by_class(value: Tensor, own: Tensor, classes: _Matches, channels: int) -> Tensor:
    """Return the run's own tensor of the head with the rows of classes that the trained model has."""
    if value.shape[0] != channels or value.shape[1:] != own.shape[1:]:
        return own.new_empty(0)  # another width: begins anew
    rows = [own[row] if match is None else value[match].to(own) for row, match in enumerate(classes)]
    return torch.stack(rows) if any(match is not None for match in classes) else own.new_empty(0)


def _slices_by_band(value: Tensor, bands: _Matches) -> Tensor:
    """Return the first layer's weight with a slice per band: the trained one, or the mean of all."""
    mean = value.mean(1)
    slices = [mean if match is None else value[:, match] for match in bands]
    scale = 1.0 if len(slices) == value.shape[1] else value.shape[1] / len(slices)
    return torch.stack(slices, 1) * scale


def _with_normalization(
    metadata: CheckpointMetadata, trained: CheckpointMetadata, bands: _Matches
) -> CheckpointMetadata:
    mean, std = list(metadata.mean), list(metadata.std)
    for band, match in enumerate(bands):
        if match is not None:
            mean[band], std[band] = trained.mean[match], trained.std[match]
    return replace(metadata, mean=mean, std=std)


def _table(
    path: str,
    state: Mapping[str, Tensor],
    taken: Mapping[str, Tensor],
    trained: CheckpointMetadata,
    metadata: CheckpointMetadata,
    classes: _Matches,
    bands: _Matches,
    kept: bool,
) -> str:
    """Return what was taken, part by part, and which classes and bands begin anew."""
    parts: dict[str, list[str]] = {}
    for name in state:
        parts.setdefault(name.removeprefix("net.").partition(".")[0], []).append(name)
    lines = [f"init={path}:"]
    for part, names in parts.items():
        numbers = [
            sum(state[n].numel() for n in chosen) for chosen in (names, [n for n in names if n in taken])
        ]
        lines.append(f"  {part:20} {numbers[1] / max(numbers[0], 1):4.0%} of its weights taken")
    lines.append(f"  {'classes':20} {_listed(_outputs(metadata), classes)}")
    lines.append(f"  {'bands':20} {_listed(metadata.band_names, bands)}")
    lines.append(f"  {'normalization':20} {'of the checkpoint' if kept else 'of this data set'}")
    if kept and trained.dtype != metadata.dtype:
        lines.append(
            f"  it was trained on {trained.dtype}, these images are {metadata.dtype}: if their values mean "
            "something else, init_normalize=data takes the normalization of this data set"
        )
    return "\n".join(lines)


def _listed(names: Sequence[str], matches: _Matches) -> str:
    known = [name for name, match in zip(names, matches, strict=True) if match is not None]
    new = [name for name, match in zip(names, matches, strict=True) if match is None]
    groups = (("taken", known), ("new", new))
    return "; ".join(f"{label}: {', '.join(group)}" for label, group in groups if group)
