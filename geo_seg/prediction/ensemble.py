"""Ensemble of one or more checkpoints that share classes, bands and nodata."""

from collections.abc import Sequence
from dataclasses import dataclass

from geo_seg.checkpoints.checkpoint import Checkpoint, load_checkpoint
from geo_seg.checkpoints.files import expand_checkpoints
from geo_seg.config.inference import InferenceConfig
from geo_seg.errors import CheckpointError, ConfigError
from geo_seg.runtime.registration import import_own_module

_SHARED_METADATA = {  # fields that decide what is read and written, and their names in messages
    "mode": "modes",
    "class_names": "classes",
    "band_names": "bands",
    "bands": "choices of bands",
    "nodata": "nodata values",
    "zero_is_nodata": "rules for pixels of 0 (zero_is_nodata)",
}


@dataclass(frozen=True)
class Ensemble:
    """Models whose probabilities are averaged.

    Attributes:
        checkpoints: one or more, each with its own normalization.
        weights: positive weight per checkpoint; they sum to 1.
        temperatures: divisor of the logits per checkpoint.
        threshold: probability above which a pixel of a binary map is foreground.
    """

    checkpoints: tuple[Checkpoint, ...]
    weights: tuple[float, ...]
    temperatures: tuple[float, ...]
    threshold: float

    @property
    def first(self) -> Checkpoint:
        """First checkpoint; its colours, image dtype and the shared metadata hold for the ensemble."""
        return self.checkpoints[0]

    @property
    def window(self) -> int:
        """Largest side of the training windows, in pixels."""
        return max(checkpoint.window for checkpoint in self.checkpoints)


def load_ensemble(config: InferenceConfig) -> Ensemble:
    """Load the checkpoints that the configuration names.

    Raises:
        CheckpointError: a checkpoint is missing or broken, or they disagree about classes or bands.
        ConfigError: module can't be imported, a checkpoint is given twice, or weights or threshold
            don't fit them.
    """
    import_own_module(config.module)
    checkpoints = tuple(load_checkpoint(path) for path in expand_checkpoints(config.checkpoint))
    files = [checkpoint.path.resolve() for checkpoint in checkpoints]
    duplicate = next(
        (c.path for c, file in zip(checkpoints, files, strict=True) if files.count(file) > 1), None
    )
    if duplicate is not None:
        raise ConfigError(
            f"checkpoint={config.checkpoint}: {duplicate} is given twice; name each checkpoint once, and set "
            "its share by weights"
        )
    return make_ensemble(checkpoints, config.weights, config.temperature, config.threshold)


def make_ensemble(
    checkpoints: Sequence[Checkpoint],
    weights: Sequence[float] | None = None,
    temperature: float | None = None,
    threshold: float | None = None,
) -> Ensemble:
    """Combine checkpoints into an ensemble.

    Args:
        checkpoints: one or more.
        weights: positive weight per checkpoint; None for equal weights.
        temperature: for all checkpoints; None takes the temperature of each checkpoint.
        threshold: probability above which a pixel is foreground; None takes the weighted mean of the
            checkpoints' thresholds.

    Raises:
        CheckpointError: they disagree about classes, bands or nodata.
        ConfigError: weights or threshold don't fit them.
    """
    first = checkpoints[0]
    for other in checkpoints[1:]:
        _check_agreement(first, other)
    if weights is not None and len(weights) != len(checkpoints):
        raise ConfigError(
            f"weights={list(weights)}: {len(weights)} for {len(checkpoints)} checkpoints; expected one each"
        )
    if threshold is not None and not first.task.binary:
        raise ConfigError(
            f"threshold={threshold:g}: only for binary models; this one has {len(first.class_names)} "
            "classes, and each pixel gets the most probable one"
        )
    raw_weights = [1.0] * len(checkpoints) if weights is None else list(weights)
    normalized = tuple(weight / sum(raw_weights) for weight in raw_weights)
    mean_threshold = sum(
        weight * c.metadata.threshold for weight, c in zip(normalized, checkpoints, strict=True)
    )
    return Ensemble(
        tuple(checkpoints),
        normalized,
        tuple(temperature or checkpoint.metadata.temperature for checkpoint in checkpoints),
        mean_threshold if threshold is None else threshold,
    )


def _check_agreement(first: Checkpoint, other: Checkpoint) -> None:
    for field, label in _SHARED_METADATA.items():
        expected, actual = getattr(first.metadata, field), getattr(other.metadata, field)
        if expected != actual:
            raise CheckpointError(
                f"{other.path}: has other {label} than {first.path} ({_format_value(actual)}; "
                f"{_format_value(expected)}); the models of an ensemble must agree about them"
            )


def _format_value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
