"""What a checkpoint holds beside the weights, and reading it back: everything that prediction needs."""

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geo_seg.checkpoints.files import resolve_checkpoint
from geo_seg.checkpoints.metadata_checks import FORMAT, check_metadata
from geo_seg.errors import CheckpointError, ConfigError
from geo_seg.models.layers import Normalize
from geo_seg.models.smp import build_model
from losses import Task

METADATA_KEY = "geo_seg"
"""Entry of the checkpoint file under which the facts lie, in plain containers."""


@dataclass(frozen=True)
class CheckpointMetadata:
    """What was true of a training run, in plain types; metadata_checks says what each has to be.

    Attributes:
        mode: "binary" or "multiclass".
        class_names: per class.
        class_colors: per class, red, green and blue from 0 to 255.
        ignore_index: label of pixels that don't count.
        bands: the bands as the data set's configuration names them; None for all.
        band_names: names or numbers of the bands that the model sees.
        nodata: overrides what rasters declare, or None.
        dtype: NumPy name of the training images' type.
        mean: per band, subtracted from its values.
        std: per band, divided by.
        window: side of the training windows in pixels.
        model: name and options of the model.
        config: the whole composed configuration.
        versions: of the programs that trained it.
        zero_is_nodata: whether pixels whose bands are all 0 are nodata, whatever rasters declare.
        temperature: divides the logits before they become probabilities; fitted to the validation scenes.
        threshold: of binary tasks: pixels whose probability of the foreground, after the temperature, is
            above it are foreground; chosen on the validation scenes.
        scale_offset: per band the scale and the offset that the training images declare; None if they differ,
            or if an earlier version has trained it.
        seen: per band the two values between which 99 % of the training pixels lie; None of earlier versions.
        trained_on: what geo_seg.data.scenes.scene.mark_of says of each training scene.
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
        path: the file.
        metadata: what was true of its training.
        task: mode, classes and ignore_index.
        model: in eval mode: (N, bands, H, W) float to logits (N, channels, H, W).
        normalize: raw band values to what the model takes.
        notes: what the user should know of the file.
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
        """What the bands were called in training; "" for one without a name."""
        return tuple("" if name.isdecimal() else name for name in self.metadata.band_names)

    @property
    def in_channels(self) -> int:
        """Number of bands that the model takes."""
        return len(self.metadata.mean)

    @property
    def nodata(self) -> float | None:
        """Overrides what rasters declare."""
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
        """Divides the logits before they become probabilities."""
        return self.metadata.temperature

    @property
    def threshold(self) -> float:
        """Of binary tasks: foreground is what has a higher probability, after the temperature."""
        return self.metadata.threshold

    @property
    def window(self) -> int:
        """Side of the training windows in pixels."""
        return self.metadata.window


def to_dict(facts: CheckpointMetadata) -> dict[str, Any]:
    """What goes into the checkpoint file under KEY: plain containers, strings and numbers only."""
    return {"format": FORMAT, **vars(facts)}


def read_checkpoint(
    file: Path, map_location: Any = "cpu"
) -> tuple[dict[str, Any], CheckpointMetadata, tuple[str, ...]]:
    """Read a checkpoint file and check it: facts and weights; nothing in it is executed.

    Args:
        file: the checkpoint.
        map_location: of the weights, as torch.load takes it.

    Returns:
        All that the file holds, the facts in it, and what the user should know of it.

    Raises:
        CheckpointError: it is truncated, of another program, or of a newer geo_seg; a fact isn't what it has
            to be, or weights aren't finite.
    """
    try:
        found = torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise CheckpointError(
            f"{file}: cannot be read as a checkpoint; it is truncated or of another program "
            f"({type(error).__name__})"
        ) from error
    if not isinstance(found, dict) or METADATA_KEY not in found or "state_dict" not in found:
        raise CheckpointError(
            f"{file}: not a checkpoint of geo_seg (it has no entry {METADATA_KEY!r} or no weights)"
        )
    content = found[METADATA_KEY]
    notes = check_metadata(content, file)
    _check_weights(found["state_dict"], file)
    known = {field.name for field in fields(CheckpointMetadata)}
    return found, CheckpointMetadata(**{key: value for key, value in content.items() if key in known}), notes


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint for prediction; nothing in it is executed.

    Args:
        path: a checkpoint file or a run folder.

    Raises:
        CheckpointError: it is missing, its weights don't fit its model, or see read.
    """
    file = resolve_checkpoint(path)
    found, facts, notes = read_checkpoint(file)
    task = Task(mode=facts.mode, num_classes=len(facts.class_names), ignore_index=facts.ignore_index)
    try:
        model = build_model({**facts.model, "weights": None}, len(facts.mean), task.channels)
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    weights = {k.removeprefix("model."): v for k, v in found["state_dict"].items() if k.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{file}: its weights don't fit its model {facts.model['name']}") from error
    return Checkpoint(file, facts, task, model.eval(), Normalize(facts.mean, facts.std), notes)


def _check_weights(weights: Any, file: Path) -> None:
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
                "take another checkpoint of the run, or train anew"
            )


def library_versions() -> dict[str, str]:
    """Versions of the programs that matter to a result, and the revision of the working folder."""
    names = ("torch", "pytorch-lightning", "segmentation-models-pytorch", "timm", "rasterio", "numpy")
    found = {"python": platform.python_version(), **{name: version(name) for name in names}}
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 - whichever git the user has
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    found["geo_seg"] = version("geo-seg")
    found["revision"] = git.stdout.strip() or "unknown"
    return found
