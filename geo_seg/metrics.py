"""Scores of a whole split from one streaming confusion matrix, valid pixels only."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

Scores = dict[str, Any]


class ConfusionMatrix(Metric):
    """Counts of pixels by label (rows) and prediction (columns), summed over batches and processes.

    Args:
        num_classes: classes.
        ignore_index: label of pixels that aren't counted.
        num_scenes: how many scenes are counted apart; None counts all of them together.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, ignore_index: int, num_scenes: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        shape = (num_classes, num_classes) if num_scenes is None else (num_scenes, num_classes, num_classes)
        self.add_state("counts", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, labels: Tensor, scenes: Tensor | None = None) -> None:
        """Counts a batch.

        Args:
            predicted: class ids of any shape; (N, ...) where scenes are counted apart.
            labels: class ids or ignore_index, of the same shape.
            scenes: (N,) number of each sample's scene; None unless scenes are counted apart.
        """
        c = self.num_classes
        cell = labels.long() * c + predicted.long()
        # ignored pixels go to a bin of their own: no boolean index, so a GPU doesn't wait
        cell = torch.where(labels == self.ignore_index, c * c, cell)
        if scenes is None:
            self.counts += torch.bincount(cell.flatten(), minlength=c * c + 1)[: c * c].view(c, c)
            return
        n = len(scenes)
        sample = torch.arange(n, device=cell.device) * (c * c + 1)
        cell = cell.flatten(1) + sample[:, None]  # (N, pixels), bins of its own for each sample
        found = torch.bincount(cell.flatten(), minlength=n * (c * c + 1)).view(n, c * c + 1)
        self.counts.index_add_(0, scenes, found[:, : c * c].reshape(n, c, c))

    def compute(self) -> Tensor:
        """The matrix, (classes, classes) with labels in rows, or (scenes, classes, classes)."""
        return self.counts


class Mean(Metric):
    """Weighted mean over batches and processes; NaN stays NaN, and no value at all is NaN too."""

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: int) -> None:
        """Adds a value that counts `weight` times."""
        self.total += value.detach().double() * weight
        self.weight += weight

    def compute(self) -> Tensor:
        """The mean."""
        return (self.total / self.weight).float()


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


def scores(matrix: Tensor, names: Sequence[str]) -> Scores:
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
            iou=_ratio(r, t + p - r),
            f1=_ratio(2 * r, t + p),
            precision=_ratio(r, p),
            recall=_ratio(r, t),
            support=int(t),
        )
        for name, r, t, p in zip(names, right.tolist(), labelled.tolist(), predicted.tolist(), strict=True)
    ]
    present = [score.iou for score in table if score.support and score.iou is not None]
    return {
        "miou": sum(present) / len(present) if present else None,
        "accuracy": _ratio(float(right.sum()), float(counts.sum())),
        "pixels": int(counts.sum()),
        "classes": [asdict(score) for score in table],
        "confusion": matrix.cpu().long().tolist(),
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
