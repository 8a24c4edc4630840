"""Scores of a segmentation: IoU, F1, precision, recall, accuracy and their means, from counts of pixels."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Scores = dict[str, Any]


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
    """

    name: str
    iou: float | None
    f1: float | None
    precision: float | None
    recall: float | None
    support: int


def segmentation_scores(confusion: Tensor, names: Sequence[str]) -> Scores:
    """Return all scores of a confusion matrix.

    Args:
        confusion: (classes, classes) counts, labels in rows.
        names: of the classes.

    Returns:
        miou (mean over the classes that the labels have), accuracy (share of the pixels that are true
        positives), pixels, classes (a list of ClassScore as dicts) and confusion (the matrix as lists);
        plain numbers, None where there is no pixel.
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
    return {
        "miou": mean_over_present(iou, support.tolist()),
        "accuracy": float(true_positive.sum() / pixels) if pixels else None,
        "pixels": int(pixels),
        "classes": [asdict(ClassScore(*row)) for row in columns],
        "confusion": confusion.cpu().long().tolist(),
    }


def mean_over_present(values: Sequence[float | None], support: Sequence[float]) -> float | None:
    """Return the mean over the classes that have any support and a value; None if there is none."""
    present = [value for value, count in zip(values, support, strict=True) if count and value is not None]
    return sum(present) / len(present) if present else None


def safe_divide(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `part / whole`, and NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def nan_to_none(values: NDArray[np.float64]) -> list[float | None]:
    """Return (n,) values as plain numbers, None in place of NaN."""
    return [None if np.isnan(value) else value for value in values.tolist()]
