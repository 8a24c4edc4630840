"""Compares the runs of a sweep: which choices differ, and which differences are real."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_seg.metrics.scores import class_counts, mean_iou
from geo_seg.runtime.redaction import strip_paths
from geo_seg.sweeps.outcomes import Outcome, read_curve, read_outcome, run_folders

_DRAWS = 4000
_FEWEST_SCENES = 5  # with fewer, resampling scenes says little
_LEVEL = 0.05
_REPEATS = "seed"  # runs that differ in it alone are repetitions of each other

Matrices = NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """A run of a sweep with what it left.

    Attributes:
        name: of its folder in the sweep.
        outcome: how it ended.
        folder: where its files lie.
        choices: what the command line and the sweeper said, by key.
    """

    name: str
    outcome: Outcome
    folder: Path
    choices: dict[str, str]

    @property
    def error(self) -> str:
        """What it failed of, without the folders of the paths in it: leaderboards are handed on."""
        return strip_paths(self.outcome.error)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json, empty where there is none."""
        return _json(self.folder / "metrics.json")

    @cached_property
    def scenes(self) -> dict[str, Matrices]:
        """Per validation scene its confusion matrix, labels in rows."""
        found = _json(self.folder / "scenes.json").get("val", [])
        return {scene["name"]: np.array(scene["confusion"], np.int64) for scene in found}

    @cached_property
    def curve(self) -> list[tuple[int, float]]:
        """Epoch, from 1, and mean IoU on the validation scenes."""
        return read_curve(self.folder)


@dataclass(frozen=True)
class Difference:
    """How far a group of runs is behind the best one.

    Attributes:
        value: difference of the mean IoU, negative when behind.
        low: lower end of its interval.
        high: upper end of its interval.
    """

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Group:
    """Finished runs with the same choices, the seed apart.

    Attributes:
        choices: what tells it from the other groups.
        runs: its runs.
        difference: to the best group, None for that one and where the scenes don't tell.
    """

    choices: dict[str, str]
    runs: tuple[Run, ...]
    difference: Difference | None = None

    @property
    def values(self) -> list[float]:
        """Best mean IoU of each run on the validation scenes."""
        return [run.outcome.value for run in self.runs if run.outcome.value is not None]

    @property
    def mean(self) -> float:
        """Mean over the runs."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float | None:
        """Standard deviation over the runs, None for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def score(self) -> str:
        """Mean and spread as text."""
        return f"{self.mean:.4f}" + ("" if self.spread is None else f" ± {self.spread:.4f}")

    @property
    def verdict(self) -> str:
        """What the difference to the best says, as text; "" where there is none."""
        found = self.difference
        if found is None:
            return ""
        said = "real" if found.significant else "may be chance"
        return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}] {said}"


def read_runs(sweep: Path) -> list[Run]:
    """The runs of a sweep, by number."""
    runs = []
    for folder in run_folders(sweep):
        outcome = read_outcome(folder)
        pairs = (override.lstrip("+").partition("=") for override in outcome.overrides)
        runs.append(Run(folder.name, outcome, outcome.place(folder), {key: value for key, _, value in pairs}))
    return runs


def swept_keys(runs: Sequence[Run]) -> list[str]:
    """The keys of which the runs have different values."""
    keys = dict.fromkeys(key for run in runs for key in run.choices)
    return [key for key in keys if len({run.choices.get(key) for run in runs}) > 1]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Finished runs by their choices, the best first, each compared with the best.

    The comparison draws the validation scenes (and the repetitions of a group) with replacement, the same
    scenes for all groups, and looks at the difference of the mean IoU. Its intervals hold together for all
    comparisons with 95 % (Bonferroni).
    """
    keys = [key for key in swept_keys(runs) if key != _REPEATS]
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if run.outcome.value is not None and run.outcome.status in {"done", "reused"}:
            found.setdefault(tuple(run.choices.get(key, "") for key in keys), []).append(run)
    groups = [Group(dict(zip(keys, names, strict=True)), tuple(own)) for names, own in found.items()]
    groups.sort(key=lambda group: group.mean, reverse=True)
    if len(groups) < 2:
        return groups
    differences = compare([[run.scenes for run in group.runs] for group in groups])
    return [Group(g.choices, g.runs, d) for g, d in zip(groups, differences, strict=True)]


def compare(groups: Sequence[Sequence[dict[str, Matrices]]]) -> list[Difference | None]:
    """Bootstraps the difference between each group of runs and the first one.

    Args:
        groups: per group and run, the confusion matrix of each scene.

    Returns:
        Per group the difference; None for the first, and for all where there are too few scenes in common.
    """
    shared = set.intersection(*(_known(run) for group in groups for run in group))
    if len(shared) < _FEWEST_SCENES:
        return [None] * len(groups)
    names = sorted(name for name, _ in shared)
    draw = np.random.default_rng(0)
    weights = draw.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_DRAWS)
    weights = np.concatenate([np.ones((1, len(names)), np.int64), weights])  # the first row: as they are
    drawn = [_drawn([np.stack([run[n] for n in names]) for run in group], weights, draw) for group in groups]
    tail = 100 * _LEVEL / 2 / max(len(groups) - 1, 1)
    found: list[Difference | None] = [None]
    for values in drawn[1:]:
        difference = values - drawn[0]
        low, high = np.percentile(difference[1:], (tail, 100 - tail))
        found.append(Difference(float(difference[0]), float(low), float(high)))
    return found


def _known(run: dict[str, Matrices]) -> set[tuple[str, tuple[int, ...]]]:
    """Scenes by name and labels: those of other data sets may have the same names."""
    return {(name, tuple(matrix.sum(1).tolist())) for name, matrix in run.items()}


def mean_iou_from_confusion(matrices: NDArray[Any]) -> NDArray[np.float64]:
    """Mean IoU over the classes that the labels have.

    Args:
        matrices: (..., classes, classes) counts, labels in rows.

    Returns:
        (...) values, 0 where there is no label at all.
    """
    return mean_iou(class_counts(matrices))


def _drawn(
    runs: Sequence[Matrices], weights: NDArray[np.int64], draw: np.random.Generator
) -> NDArray[np.float64]:
    """Mean IoU of a group for each draw of scenes; its runs are drawn as well, but for the first row."""
    values = np.stack(
        [mean_iou_from_confusion(np.tensordot(weights, run, 1)) for run in runs]
    )  # (runs, draws)
    chosen = draw.integers(0, len(runs), values.shape)
    found: NDArray[np.float64] = np.take_along_axis(values, chosen, 0).mean(0)
    found[0] = values[:, 0].mean()
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
