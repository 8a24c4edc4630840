"""The models of a map: one checkpoint, or an ensemble of several that agree about classes and bands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geo_seg.checkpoints.checkpoint import Checkpoint, load_checkpoint
from geo_seg.checkpoints.files import expand_checkpoints
from geo_seg.config.inference import InferenceConfig
from geo_seg.errors import CheckpointError, ConfigError

_SHARED = {  # facts that decide what is read and what is written
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
        checkpoints: one or more, each with statistics of its own.
        weights: per checkpoint, above 0; they sum to 1.
        temperatures: per checkpoint, what its logits are divided by.
        threshold: probability above which a pixel of a binary map is foreground.
    """

    checkpoints: tuple[Checkpoint, ...]
    weights: tuple[float, ...]
    temperatures: tuple[float, ...]
    threshold: float

    @property
    def first(self) -> Checkpoint:
        """The one that stands for all where they agree; colours and the type of the images are its own."""
        return self.checkpoints[0]

    @property
    def window(self) -> int:
        """The largest side of their training windows in pixels."""
        return max(checkpoint.window for checkpoint in self.checkpoints)


def load_ensemble(config: InferenceConfig) -> Ensemble:
    """Loads the checkpoints that the configuration names.

    Raises:
        CheckpointError: one is missing or broken, or they don't agree.
        ConfigError: one is there twice, or weights or threshold don't fit them.
    """
    found = tuple(load_checkpoint(path) for path in expand_checkpoints(config.checkpoint))
    files = [checkpoint.path.resolve() for checkpoint in found]
    twice = next((c.path for c, file in zip(found, files, strict=True) if files.count(file) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"checkpoint={config.checkpoint}: {twice} is there twice; name each checkpoint once, and let "
            "weights say how much it counts"
        )
    return make_ensemble(found, config.weights, config.temperature, config.threshold)


def make_ensemble(
    checkpoints: Sequence[Checkpoint],
    weights: Sequence[float] | None = None,
    temperature: float | None = None,
    threshold: float | None = None,
) -> Ensemble:
    """Makes an ensemble of checkpoints, which may be one.

    Args:
        checkpoints: one or more.
        weights: per checkpoint, above 0; None weighs all alike.
        temperature: of all of them; None takes each checkpoint's own.
        threshold: None takes the weighted mean of the checkpoints' own.

    Raises:
        CheckpointError: they don't agree.
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
            f"threshold={threshold:g}: is for binary models; this one has {len(first.class_names)} classes, "
            "and each pixel gets the likeliest"
        )
    given = [1.0] * len(checkpoints) if weights is None else list(weights)
    shares = tuple(weight / sum(given) for weight in given)
    own = sum(share * c.metadata.threshold for share, c in zip(shares, checkpoints, strict=True))
    return Ensemble(
        tuple(checkpoints),
        shares,
        tuple(temperature or checkpoint.metadata.temperature for checkpoint in checkpoints),
        own if threshold is None else threshold,
    )


def _check_agreement(first: Checkpoint, other: Checkpoint) -> None:
    for fact, called in _SHARED.items():
        here, there = getattr(first.metadata, fact), getattr(other.metadata, fact)
        if here != there:
            raise CheckpointError(
                f"{other.path}: has other {called} than {first.path} ({_text(there)}; {_text(here)}); the "
                "models of an ensemble must agree about them"
            )


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
