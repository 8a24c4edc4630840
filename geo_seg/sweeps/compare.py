"""Comparison of the runs of a sweep: groups by choices, and significance of their differences."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_seg.metrics.scores import SegmentationScores, class_counts, mean_iou
from geo_seg.runtime.redaction import strip_paths
from geo_seg.sweeps.outcomes import Outcome, read_curve, read_outcome, run_folders

_RESAMPLES = 4000
_MIN_SCENES = 5  # with fewer, a bootstrap over scenes is meaningless
_SIGNIFICANCE_LEVEL = 0.05
_REPEAT_KEY = "seed"  # runs that differ only in this key are repetitions

Matrices = NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """Run of a sweep with its files.

    Attributes:
        name: name of its folder in the sweep.
        outcome: outcome of the run.
        folder: folder with its files.
        choices: values of the overrides by key.
    """

    name: str
    outcome: Outcome
    folder: Path
    choices: dict[str, str]

    @property
    def error(self) -> str:
        """Error message with paths shortened, as leaderboards are passed on."""
        return strip_paths(self.outcome.error)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Content of metrics.json, empty if there is none."""
        return _read_json_or_empty(self.folder / "metrics.json")

    @cached_property
    def scores(self) -> dict[str, SegmentationScores]:
        """Scores of the splits that metrics.json has."""
        splits = [split for split in ("val", "test") if self.metrics.get(split)]
        return {split: SegmentationScores.from_json(self.metrics[split]) for split in splits}

    @cached_property
    def scenes(self) -> dict[str, Matrices]:
        """Confusion matrix of each validation scene by name, labels in rows."""
        scenes = _read_json_or_empty(self.folder / "scenes.json").get("val", [])
        return {scene["name"]: np.array(scene["confusion"], np.int64) for scene in scenes}

    @cached_property
    def curve(self) -> list[tuple[int, float]]:
        """(epoch, validation mean IoU); epochs count from 1."""
        return read_curve(self.folder)


@dataclass(frozen=True)
class Difference:
    """Difference of the mean IoU between a group of runs and the best group.

    Attributes:
        value: the difference, negative if worse than the best.
        low: lower bound of the confidence interval.
        high: upper bound of the confidence interval.
    """

    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Group:
    """Finished runs with the same choices except for the seed.

    Attributes:
        choices: values of the keys that differ between groups.
        runs: its runs.
        difference: to the best group; None for the best group, and if there are too few common scenes.
    """

    choices: dict[str, str]
    runs: tuple[Run, ...]
    difference: Difference | None = None

    @property
    def values(self) -> list[float]:
        """Best validation mean IoU of each run."""
        return [run.outcome.value for run in self.runs if run.outcome.value is not None]

    @property
    def mean(self) -> float:
        """Mean over the runs."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float | None:
        """Standard deviation over the runs, None for a single run."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def score(self) -> str:
        """Mean and spread as text."""
        return f"{self.mean:.4f}" + ("" if self.spread is None else f" ± {self.spread:.4f}")

    @property
    def verdict(self) -> str:
        """Difference to the best group as text, or ""."""
        difference = self.difference
        if difference is None:
            return ""
        verdict = "real" if difference.significant else "may be chance"
        return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] {verdict}"


def read_runs(sweep: Path) -> list[Run]:
    """Return the runs of a sweep, sorted by number."""
    runs = []
    for folder in run_folders(sweep):
        outcome = read_outcome(folder)
        pairs = (override.lstrip("+").partition("=") for override in outcome.overrides)
        runs.append(
            Run(folder.name, outcome, outcome.run_folder(folder), {key: value for key, _, value in pairs})
        )
    return runs


def swept_keys(runs: Sequence[Run]) -> list[str]:
    """Return the keys whose values differ between the runs."""
    keys = dict.fromkeys(key for run in runs for key in run.choices)
    return [key for key in keys if len({run.choices.get(key) for run in runs}) > 1]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group the finished runs by their choices, best group first, each compared with the best.

    The comparison is a paired bootstrap: it resamples the validation scenes, the same for all groups, and
    the repetitions of each group. The intervals of all comparisons hold jointly with 95 % (Bonferroni).
    """
    keys = [key for key in swept_keys(runs) if key != _REPEAT_KEY]
    runs_by_choices: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if run.outcome.value is not None and run.outcome.status in {"done", "reused"}:
            runs_by_choices.setdefault(tuple(run.choices.get(key, "") for key in keys), []).append(run)
    groups = [
        Group(dict(zip(keys, names, strict=True)), tuple(members))
        for names, members in runs_by_choices.items()
    ]
    groups.sort(key=lambda group: group.mean, reverse=True)
    if len(groups) < 2:
        return groups
    differences = compare([[run.scenes for run in group.runs] for group in groups])
    return [Group(g.choices, g.runs, d) for g, d in zip(groups, differences, strict=True)]


def compare(groups: Sequence[Sequence[dict[str, Matrices]]]) -> list[Difference | None]:
    """Bootstrap the difference of the mean IoU between each group of runs and the first one.

    Args:
        groups: per group and run, the confusion matrix of each scene.

    Returns:
        The difference per group; None for the first group, and for all if too few scenes are common.
    """
    common = set.intersection(*(_scene_keys(run) for group in groups for run in group))
    if len(common) < _MIN_SCENES:
        return [None] * len(groups)
    names = sorted(name for name, _ in common)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_RESAMPLES)
    weights = np.concatenate([np.ones((1, len(names)), np.int64), weights])  # row 0: the original sample
    resampled = [
        _resampled_miou([np.stack([run[n] for n in names]) for run in group], weights, rng)
        for group in groups
    ]
    tail = 100 * _SIGNIFICANCE_LEVEL / 2 / max(len(groups) - 1, 1)
    differences: list[Difference | None] = [None]
    for values in resampled[1:]:
        difference = values - resampled[0]
        low, high = np.percentile(difference[1:], (tail, 100 - tail))
        differences.append(Difference(float(difference[0]), float(low), float(high)))
    return differences


def _scene_keys(run: dict[str, Matrices]) -> set[tuple[str, tuple[int, ...]]]:
    """Identify scenes by name and label counts: scenes of other data sets may have the same names."""
    return {(name, tuple(matrix.sum(1).tolist())) for name, matrix in run.items()}


def mean_iou_from_confusion(matrices: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean IoU over the classes that occur in the labels.

    Args:
        matrices: (..., classes, classes) counts, labels in rows.

    Returns:
        (...) values, 0 without any label.
    """
    return mean_iou(class_counts(matrices))


def _resampled_miou(
    runs: Sequence[Matrices], weights: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the mean IoU of a group per resample of scenes; from row 1 on, runs are resampled, too."""
    values = np.stack(
        [mean_iou_from_confusion(np.tensordot(weights, run, 1)) for run in runs]
    )  # (runs, draws)
    run_index = rng.integers(0, len(runs), values.shape)
    means: NDArray[np.float64] = np.take_along_axis(values, run_index, 0).mean(0)
    means[0] = values[:, 0].mean()
    return means


def _read_json_or_empty(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content
