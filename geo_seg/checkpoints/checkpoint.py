"""Checkpoints: metadata of the training run, and reading model and metadata for prediction."""

import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.types import Storage

from geo_seg.checkpoints.files import resolve_checkpoint
from geo_seg.checkpoints.metadata_checks import FORMAT, check_metadata
from geo_seg.errors import CheckpointError, ConfigError
from geo_seg.models.layers import Normalize
from geo_seg.models.registry import build_model, without_weights
from geo_seg.runtime.program import is_checkout
from losses import Task

MapLocation = Callable[[Storage, str], Storage] | torch.device | str | None
"""Where torch.load puts weights."""

METADATA_KEY = "geo_seg"
"""Key of the checkpoint file with the metadata, in plain containers."""


@dataclass(frozen=True)
class CheckpointMetadata:
    """Metadata of a training run, in plain types; metadata_checks has the rules for each field.

    Attributes:
        mode: "binary" or "multiclass".
        class_names: per class.
        class_colors: per class, red, green and blue from 0 to 255.
        ignore_index: label of pixels that are left out.
        bands: numbers or names of the bands as in dataset.bands; None for all.
        band_names: names or numbers of the bands that the model sees.
        nodata: overrides the nodata value of rasters, or None.
        dtype: NumPy name of the training images' type.
        mean: per band, subtracted from its values.
        std: per band, divided by.
        window: side of the training windows in pixels.
        model: name and options of the model.
        config: the complete composed configuration.
        versions: of Python and the packages that trained the model.
        zero_is_nodata: whether pixels whose bands are all 0 are nodata, whatever rasters declare.
        temperature: divides the logits (temperature scaling); fitted to the validation scenes.
        threshold: of binary tasks: probability, after temperature scaling, above which a pixel is
            foreground; tuned on the validation scenes.
        scale_offset: per band scale and offset of the training images; None if they differ, or if an
            earlier version wrote the file.
        seen: per band the two values between which 99 % of the training pixels lie; None if an earlier
            version wrote the file.
        trained_on: per training scene the mark from geo_seg.data.scenes.scene.mark_of.
    """

    mode: str
    class_names: list[str]
    class_colors: list[list[int]]
    ignore_index: int
    bands: list[int | str] | None
    band_names: list[str]
    nodata: float | None
    dtype: str
    mean: list[float]
    std: list[float]
    window: int
    model: dict[str, Any]
    config: dict[str, Any]
    versions: dict[str, str]
    zero_is_nodata: bool = False
    temperature: float = 1.0
    threshold: float = 0.5
    scale_offset: list[list[float]] | None = None
    seen: list[list[float]] | None = None
    trained_on: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """A trained model, ready to predict.

    Attributes:
        path: of the checkpoint file.
        metadata: of the training run.
        task: mode, classes and ignore_index.
        model: in eval mode, from (N, bands, H, W) float to logits (N, channels, H, W).
        normalize: from raw band values to the input of the model.
        notes: for the user, about the file.
    """

    path: Path
    metadata: CheckpointMetadata
    task: Task
    model: nn.Module
    normalize: Normalize
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Per class."""
        return tuple(self.metadata.class_names)

    @property
    def class_colors(self) -> tuple[tuple[int, int, int], ...]:
        """Per class, red, green and blue from 0 to 255."""
        return tuple((r, g, b) for r, g, b in self.metadata.class_colors)

    @property
    def bands(self) -> tuple[int | str, ...] | None:
        """Bands to read, in the model's order; None for all."""
        return None if self.metadata.bands is None else tuple(self.metadata.bands)

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands in training; "" for a band without a name."""
        return tuple("" if name.isdecimal() else name for name in self.metadata.band_names)

    @property
    def in_channels(self) -> int:
        """Number of input bands of the model."""
        return len(self.metadata.mean)

    @property
    def nodata(self) -> float | None:
        """Overrides the nodata value of rasters; None for no override."""
        return self.metadata.nodata

    @property
    def zero_is_nodata(self) -> bool:
        """Whether pixels whose bands are all 0 are nodata."""
        return self.metadata.zero_is_nodata

    @property
    def dtype(self) -> str:
        """NumPy name of the training images' type."""
        return self.metadata.dtype

    @property
    def temperature(self) -> float:
        """Divisor of the logits (temperature scaling)."""
        return self.metadata.temperature

    @property
    def threshold(self) -> float:
        """Of binary tasks: probability, after temperature scaling, above which a pixel is foreground."""
        return self.metadata.threshold

    @property
    def window(self) -> int:
        """Side of the training windows in pixels."""
        return self.metadata.window


def to_dict(metadata: CheckpointMetadata) -> dict[str, Any]:
    """Return the value for METADATA_KEY in a checkpoint file: plain containers, strings and numbers only."""
    return {"format": FORMAT, **vars(metadata)}


def read_checkpoint(
    file: Path, map_location: MapLocation = "cpu"
) -> tuple[dict[str, Any], CheckpointMetadata, tuple[str, ...]]:
    """Read a checkpoint file and check its metadata and weights; nothing in it is executed.

    Args:
        file: the checkpoint file.
        map_location: of the weights, as in torch.load.

    Returns:
        The content of the file, its metadata, and notes for the user.

    Raises:
        CheckpointError: it is truncated, of another program or of a newer geo_seg; its metadata are invalid,
            or its weights are not finite.
    """
    try:
        content = torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises many types for a broken file
        raise CheckpointError(
            f"{file}: cannot be read as a checkpoint; it is truncated or of another program "
            f"({type(error).__name__})"
        ) from error
    if not isinstance(content, dict) or METADATA_KEY not in content or "state_dict" not in content:
        raise CheckpointError(
            f"{file}: not a checkpoint of geo_seg (it has no entry {METADATA_KEY!r} or no weights)"
        )
    values = content[METADATA_KEY]
    notes = check_metadata(values, file)
    _check_weights(content["state_dict"], file)
    names = {field.name for field in fields(CheckpointMetadata)}
    metadata = CheckpointMetadata(**{name: value for name, value in values.items() if name in names})
    return content, metadata, notes


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint for prediction; nothing in it is executed.

    Args:
        path: a checkpoint file or a run folder.

    Raises:
        CheckpointError: it is missing, its weights don't fit its model, or see read_checkpoint.
    """
    file = resolve_checkpoint(path)
    content, metadata, notes = read_checkpoint(file)
    task = Task(mode=metadata.mode, num_classes=len(metadata.class_names), ignore_index=metadata.ignore_index)
    try:
        model = build_model(without_weights(metadata.model), len(metadata.mean), task.channels)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    weights = {
        k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{file}: its weights don't fit its model {metadata.model['name']}") from error
    normalize = Normalize(metadata.mean, metadata.std)
    return Checkpoint(file, metadata, task, model.eval(), normalize, notes)


def _check_weights(weights: object, file: Path) -> None:
    """Raise unless all weights are finite numbers."""
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise CheckpointError(f"{file}: its weights have no names; expected a checkpoint of a training run")
    for name, value in weights.items():
        try:
            finite = bool(torch.isfinite(value).all())
        except (RuntimeError, TypeError):  # no tensor, or one without values in memory
            raise CheckpointError(f"{file}: {name} is no tensor of numbers") from None
        if not finite:
            raise CheckpointError(
                f"{file}: {name} holds values that are not finite, so that the model would predict nothing; "
                "use another checkpoint of the run, or train again"
            )


def library_versions() -> dict[str, str]:
    """Return the versions of Python and the packages that affect results, and the Git revision."""
    names = ("torch", "pytorch-lightning", "segmentation-models-pytorch", "timm", "rasterio", "numpy")
    versions = {"python": platform.python_version(), **{name: version(name) for name in names}}
    versions["geo_seg"] = version("geo-seg")
    versions["revision"] = _revision()
    return versions


def _revision() -> str:
    """Return the Git revision of a clone; an installed package may lie in a repository of someone else's."""
    if not is_checkout():
        return "unknown"
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty"],  # noqa: S607 - whichever git the user has
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git on this machine
        return "unknown"
    return git.stdout.strip() or "unknown"
