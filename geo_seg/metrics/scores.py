"""Scores from a confusion matrix: IoU, F1, precision, recall, accuracy and their means."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def mean_iou(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Mean IoU over the classes that the labels have.

    Args:
        counts: (..., 3, classes) right, labelled and predicted pixels.

    Returns:
        (...) values, 0 where there is no label at all.
    """
    right, labelled, predicted = (counts[..., row, :].astype(float) for row in range(3))
    iou = right / np.maximum(labelled + predicted - right, 1)
    present = labelled > 0
    found: NDArray[np.float64] = (iou * present).sum(-1) / np.maximum(present.sum(-1), 1)
    return found


Scores = dict[str, Any]


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class; None where the data don't define one.

    Attributes:
        name: of the class.
        iou: intersection over union, 0 to 1; None if neither labels nor predictions have the class.
        f1: harmonic mean of precision and recall.
        precision: share of the predicted pixels that are right; None if none is predicted.
        recall: share of the labelled pixels that are found; None if none is labelled.
        support: labelled pixels.
    """

    name: str
    iou: float | None
    f1: float | None
    precision: float | None
    recall: float | None
    support: int


def segmentation_scores(matrix: Tensor, names: Sequence[str]) -> Scores:
    """Scores out of a confusion matrix.

    Args:
        matrix: (classes, classes) counts, labels in rows.
        names: of the classes.

    Returns:
        miou (mean over the classes that the labels have), accuracy (share of the pixels that are right),
        pixels, classes (a list of ClassScore as dicts) and confusion (the matrix as lists); plain
        numbers, None where there is no pixel.
    """
    counts = matrix.double().cpu()
    right, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    table = [
        ClassScore(
            name=name,
            iou=safe_divide(r, t + p - r),
            f1=safe_divide(2 * r, t + p),
            precision=safe_divide(r, p),
            recall=safe_divide(r, t),
            support=int(t),
        )
        for name, r, t, p in zip(names, right.tolist(), labelled.tolist(), predicted.tolist(), strict=True)
    ]
    return {
        "miou": mean_over_present([score.iou for score in table], labelled.tolist()),
        "accuracy": safe_divide(float(right.sum()), float(counts.sum())),
        "pixels": int(counts.sum()),
        "classes": [asdict(score) for score in table],
        "confusion": matrix.cpu().long().tolist(),
    }


def mean_over_present(values: Sequence[float | None], support: Sequence[float]) -> float | None:
    """Mean over the classes that have any support; None if none has."""
    present = [value for value, count in zip(values, support, strict=True) if count and value is not None]
    return sum(present) / len(present) if present else None


def safe_divide(part: float, whole: float) -> float | None:
    """A share; None of nothing."""
    return part / whole if whole else None
