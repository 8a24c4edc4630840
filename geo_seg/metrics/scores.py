"""Scores of a segmentation: IoU, F1, precision, recall, accuracy and their means, from counts of pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class; None where the data don't define one.

    Attributes:
        name: of the class.
        iou: intersection over union, 0 to 1; None if neither labels nor predictions have the class.
        f1: harmonic mean of precision and recall.
        precision: share of the predicted pixels that are true positives; None if none is predicted.
        recall: share of the labelled pixels that are true positives; None if none is labelled.
        support: labelled pixels.
        boundary_iou: IoU of the pixels at its boundary; None also if these are too few.
        boundary_pixels: labelled pixels at its boundary; None if boundary IoU isn't measured.
        other: values of other registered metrics, by name.
    """

    name: str
    iou: float | None
    f1: float | None = None
    precision: float | None = None
    recall: float | None = None
    support: int = 0
    boundary_iou: float | None = None
    boundary_pixels: int | None = None
    other: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the attributes, without those of the boundary if it isn't measured."""
        row = asdict(self)
        other = row.pop("other")
        if self.boundary_pixels is None:
            del row["boundary_iou"], row["boundary_pixels"]
        return {**row, **other}

    def with_metric(self, values: Mapping[str, Any]) -> Self:
        """Return the scores with values of a registered metric, by name."""
        boundary = {key: values[key] for key in values.keys() & {"boundary_iou", "boundary_pixels"}}
        other = {key: value for key, value in values.items() if key not in boundary}
        return replace(self, **boundary, other={**self.other, **other})


@dataclass(frozen=True)
class SceneScore:
    """Scores of one scene; None where it has no labelled pixel, or no pixel of a class.

    Attributes:
        name: of the scene.
        pixels: labelled pixels.
        miou: mean IoU.
        accuracy: share of the pixels that are true positives.
        iou: of each class.
    """

    name: str
    pixels: int
    miou: float | None
    accuracy: float | None
    iou: Sequence[float | None]


@dataclass(frozen=True)
class ScoreIntervals:
    """Bootstrap intervals of scores; None where no resample defines a score.

    Attributes:
        level: share of the resamples whose score lies in an interval.
        draws: number of resamples.
        unit: what is resampled, "scenes" or "windows".
        units: how many of them there are.
        miou: interval of the mean IoU.
        accuracy: interval of the accuracy.
        classes: interval of the IoU of each class.
    """

    level: float
    draws: int
    unit: str
    units: int
    miou: Interval | None
    accuracy: Interval | None
    classes: Sequence[Interval | None]


@dataclass(frozen=True)
class Reliability:
    """How far confidence is from accuracy; None where there is no pixel.

    Attributes:
        ece: expected calibration error, the mean difference of confidence and accuracy, 0 to 1.
        nll: mean negative log-likelihood.
        pixels: in each bin of confidence.
        confidence: mean of each bin.
        accuracy: of each bin.
    """

    ece: float | None
    nll: float | None
    pixels: Sequence[int]
    confidence: Sequence[float | None]
    accuracy: Sequence[float | None]


@dataclass(frozen=True)
class CalibrationScores:
    """Calibration of a model.

    Attributes:
        temperature: that logits are divided by.
        threshold: of the foreground probability; 0.5 for multiclass.
        raw: reliability before temperature scaling.
        scaled: reliability after it.
    """

    temperature: float
    threshold: float
    raw: Reliability
    scaled: Reliability


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of a segmentation: plain numbers, None where there is no pixel.

    Attributes:
        miou: mean IoU over the classes that the labels have.
        accuracy: share of the pixels that are true positives.
        pixels: labelled pixels.
        classes: scores of each class.
        confusion: (classes, classes) pixels, labels in rows.
        boundary_iou: mean boundary IoU over the classes that have one; None also if it isn't measured.
        calibration: of the model; this and the following are those of a whole split, and else None.
        prediction: how the scenes were predicted.
        intervals: of the scores; None also if there are too few scenes and windows.
        scenes: scores of each scene.
        other: values of other registered metrics, by name.
    """

    miou: float | None
    accuracy: float | None
    pixels: int
    classes: Sequence[ClassScore]
    confusion: Sequence[Sequence[int]]
    boundary_iou: float | None = None
    calibration: CalibrationScores | None = None
    prediction: Mapping[str, Any] | None = None
    intervals: ScoreIntervals | None = None
    scenes: Sequence[SceneScore] | None = None
    other: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_boundary(self) -> bool:
        """Whether boundary IoU is measured."""
        return any(score.boundary_pixels is not None for score in self.classes)

    def to_json(self) -> dict[str, Any]:
        """Return the content of metrics.json: what isn't measured is left out."""
        content = asdict(self) | {"classes": [score.to_json() for score in self.classes]}
        left_out = {"other"} if self.has_boundary else {"other", "boundary_iou"}
        if self.scenes is None:
            left_out |= {"calibration", "prediction", "intervals", "scenes"}
        return {key: value for key, value in content.items() if key not in left_out} | dict(self.other)

    def with_metric(self, values: Mapping[str, Any]) -> Self:
        """Return the scores with values of a registered metric, see SegmentationMetric.scores."""
        own = {key: value for key, value in values.items() if key not in {"classes", "boundary_iou"}}
        rows = values.get("classes") or [{}] * len(self.classes)
        return replace(
            self,
            classes=tuple(score.with_metric(row) for score, row in zip(self.classes, rows, strict=True)),
            boundary_iou=values.get("boundary_iou", self.boundary_iou),
            other={**self.other, **own},
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read scores that this or another version has written; what isn't there is None or empty.

        Calibration, prediction, intervals and scenes are left out.
        """
        known = {item.name for item in fields(ClassScore)} - {"other"}
        rows = content.get("classes", ())
        return cls(
            content.get("miou"),
            content.get("accuracy"),
            content.get("pixels", 0),
            tuple(ClassScore(**{key: row[key] for key in row.keys() & known}) for row in rows),
            content.get("confusion", ()),
            content.get("boundary_iou"),
        )


def class_counts(confusion: NDArray[Any]) -> NDArray[Any]:
    """Return true positives, support and predicted pixels per class.

    Args:
        confusion: (..., classes, classes) confusion matrices, labels in rows.

    Returns:
        (..., 3, classes).
    """
    true_positive = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.stack([true_positive, confusion.sum(-1), confusion.sum(-2)], -2)


def class_iou(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the intersection over union of each class.

    Args:
        counts: (..., 3, classes) true positives, support and predicted pixels.

    Returns:
        (..., classes) from 0 to 1; NaN where neither labels nor predictions have the class.
    """
    true_positive, support, predicted = (counts[..., row, :].astype(float) for row in range(3))
    return safe_divide(true_positive, support + predicted - true_positive)


def mean_iou(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean IoU over the classes that the labels have.

    Args:
        counts: (..., 3, classes) true positives, support and predicted pixels.

    Returns:
        (...) values from 0 to 1; 0 where there is no label at all.
    """
    return mean_over_labelled(class_iou(counts), counts[..., 1, :])


def mean_over_labelled(values: NDArray[np.float64], support: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean over the classes that have any support.

    Args:
        values: (..., classes); those of classes without support don't matter and may be NaN.
        support: (..., classes) labelled pixels.

    Returns:
        (...) values; 0 where no class has support.
    """
    present = support > 0
    mean: NDArray[np.float64] = np.where(present, values, 0.0).sum(-1) / np.maximum(present.sum(-1), 1)
    return mean


def segmentation_scores(confusion: Tensor, names: Sequence[str]) -> SegmentationScores:
    """Return all scores of a confusion matrix.

    Args:
        confusion: (classes, classes) counts, labels in rows.
        names: of the classes.
    """
    counts = class_counts(confusion.double().cpu().numpy())
    true_positive, support, predicted = counts
    pixels = support.sum()
    iou = nan_to_none(class_iou(counts))
    columns = zip(
        names,
        iou,
        nan_to_none(safe_divide(2 * true_positive, support + predicted)),
        nan_to_none(safe_divide(true_positive, predicted)),
        nan_to_none(safe_divide(true_positive, support)),
        map(int, support),
        strict=True,
    )
    return SegmentationScores(
        miou=mean_over_present(iou, support.tolist()),
        accuracy=float(true_positive.sum() / pixels) if pixels else None,
        pixels=int(pixels),
        classes=tuple(ClassScore(*row) for row in columns),
        confusion=confusion.cpu().long().tolist(),
    )


def mean_over_present(values: Sequence[float | None], support: Sequence[float]) -> float | None:
    """Return the mean over the classes with support and a value; None if there is none."""
    present = [value for value, count in zip(values, support, strict=True) if count and value is not None]
    return sum(present) / len(present) if present else None


def safe_divide(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `part / whole`, and NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def nan_to_none(values: NDArray[np.float64]) -> list[float | None]:
    """Return (n,) values as plain numbers, None in place of NaN."""
    return [None if np.isnan(value) else value for value in values.tolist()]
