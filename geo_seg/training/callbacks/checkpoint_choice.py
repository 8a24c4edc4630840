"""Which checkpoint is predicted with: the last one, unless validation says otherwise beyond doubt."""

import filecmp
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geo_seg.metrics.bootstrap import CONFIDENCE_LEVEL, ResamplingUnits, difference_interval

LAST, HIGHEST = "last", "highest"


@dataclass(frozen=True)
class CheckpointChoice:
    """The checkpoint that is predicted with.

    Attributes:
        checkpoint: "last", or "highest" for that of the highest score in validation.
        reason: why, as reports say it.
        difference: 95 % interval of the validation mean IoU of the highest one minus that of the last one;
            None where it was not asked for, or the places are too few.
    """

    checkpoint: str
    reason: str
    difference: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, for metrics.json."""
        return asdict(self)


def choose_checkpoint(
    highest: Path,
    last: Path,
    validate: Callable[[Path], ResamplingUnits | None],
    *,
    ended_early: bool,
    resamples: int,
    seed: int,
) -> CheckpointChoice:
    """Choose between the last checkpoint and the one of the highest validation score.

    The highest of many scores on few places is high by chance as well: it is taken if the bootstrap interval
    of the difference, over the validation places, lies above 0.

    Args:
        highest: the file of the highest score.
        last: the last file.
        validate: predicts the validation scenes with a checkpoint, and returns the units to resample.
        ended_early: whether training ended before its schedule did, so that the last weights are not those
            that the schedule leads to.
        resamples: number of resamples; 0 for no interval.
        seed: seed of the resamples.

    Returns:
        The choice, with its reason.
    """
    if filecmp.cmp(highest, last, shallow=False):
        return CheckpointChoice(LAST, "the last epoch has the highest validation score")
    if ended_early:
        return CheckpointChoice(HIGHEST, "training was stopped early; the highest validation score decides")
    if not resamples:
        return CheckpointChoice(HIGHEST, "evaluation.draws=0; the highest validation score decides")
    units = validate(last)
    difference = difference_interval(units, validate(highest), resamples, seed)
    if units is None or difference is None:
        return CheckpointChoice(LAST, "validation has too few places to tell an earlier epoch is better")
    above = difference[0] > 0
    reason = (
        f"the epoch of the highest validation score is {'better' if above else 'not surely better'} than the "
        f"last one: {difference[0]:+.3f} to {difference[1]:+.3f} mean IoU with {CONFIDENCE_LEVEL:.0%}, of "
        f"{len(units.counts)} {units.unit}"
    )
    return CheckpointChoice(HIGHEST if above else LAST, reason, difference)
