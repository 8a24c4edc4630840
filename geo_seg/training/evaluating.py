"""What is counted while a model is evaluated, and what is made of it in the end."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geo_seg.boundary import BoundaryIoU, boundary_scores
from geo_seg.calibration import Calibration, Reliability
from geo_seg.checkpoint import Facts
from geo_seg.data.sampling import Place
from geo_seg.data.windows import Batch
from geo_seg.metrics import ConfusionMatrix, Scores, WindowCounts, scores
from losses import Task


@dataclass(frozen=True)
class Counted:
    """What was counted in a split.

    Attributes:
        scores: of the whole split; see geo_seg.metrics.scores. Beside that boundary_iou, of the split and of
            each class, and calibration, see Reliability.
        scenes: (scenes, classes, classes) confusion matrix of each, labels in rows.
        windows: (windows, 3, classes) right, labelled and predicted pixels of each window.
        places: of the windows.
    """

    scores: Scores
    scenes: NDArray[np.int64]
    windows: NDArray[np.int64]
    places: Sequence[Place]


class Evaluation(nn.Module):
    """Counts the windows of a split, on the device and without waiting for it.

    In validation, classes are decoded as the task says, and a temperature and a threshold are fitted. In a
    test, classes are decoded with those, as inference does.

    Args:
        task: mode, classes and ignore_index.
        facts: names of the classes, and ignore_index.
        num_scenes: of the largest split that is evaluated.
        boundary: width of the band of the boundary IoU, see BoundaryIoU; 0 for none.
    """

    def __init__(self, task: Task, facts: Facts, num_scenes: int, boundary: float) -> None:
        super().__init__()
        self.task = task
        self.names = facts.class_names
        classes, ignore = task.num_classes, facts.ignore_index
        self.confusion = ConfusionMatrix(classes, ignore, num_scenes)
        self.boundary = BoundaryIoU(classes, ignore, boundary) if boundary else None
        self.calibration = Calibration(task)
        self.reliability = Reliability(task)
        self.windows = WindowCounts(0, classes, ignore)
        self._places: Sequence[Place] = ()

    def expect(self, places: Sequence[Place], device: torch.device) -> None:
        """Says what the next test sees.

        Args:
            places: all its windows.
            device: where batches are.
        """
        self._places = places
        corners = torch.tensor([(scene, window.row, window.col) for scene, window in places])
        self._keys, self._order = (part.to(device) for part in _keys(corners).sort())
        self.windows = WindowCounts(len(places), self.task.num_classes, self.confusion.ignore_index)
        self.windows.to(device)

    def decode(self, logits: Tensor, facts: Facts) -> Tensor:
        """Class ids (N, H, W) as inference decides on them."""
        return self.task.decode(logits.float() / facts.temperature, facts.threshold)

    def validate(self, logits: Tensor, batch: Batch) -> None:
        """Counts a batch of the validation grid while training."""
        self._count(self.task.decode(logits), batch)
        self.calibration.update(logits, batch["labels"])

    def end_validation(self, facts: Facts) -> tuple[Scores, Facts]:
        """Scores of the validation split, and the facts with temperature and threshold; begins anew."""
        temperature, threshold = self.calibration.fit()
        return self._scores()[0], replace(facts, temperature=temperature, threshold=threshold)

    def test(self, logits: Tensor, batch: Batch, facts: Facts) -> None:
        """Counts a batch of the expected grid."""
        predicted = self.decode(logits, facts)
        self._count(predicted, batch)
        self.reliability.update(logits, batch["labels"], facts.temperature)
        number = self._order[torch.searchsorted(self._keys, _keys(batch["place"]))]
        self.windows.update(predicted, batch["labels"], number)

    def end_test(self, facts: Facts) -> Counted:
        """What was counted; begins anew."""
        found, scenes = self._scores()
        fitted = {"temperature": facts.temperature, "threshold": facts.threshold}
        found["calibration"] = {**fitted, **self.reliability.compute()}
        self.reliability.reset()
        windows = self.windows.compute().long().cpu().numpy()
        return Counted(found, scenes.numpy(), windows, self._places)

    def _count(self, predicted: Tensor, batch: Batch) -> None:
        self.confusion.update(predicted, batch["labels"], batch["place"][:, 0])
        if self.boundary is not None:
            self.boundary.update(predicted, batch["labels"])

    def _scores(self) -> tuple[dict[str, Any], Tensor]:
        scenes = self.confusion.compute().cpu()
        self.confusion.reset()
        found = scores(scenes.sum(0), self.names)
        if self.boundary is not None:
            each, mean = boundary_scores(self.boundary.compute())
            self.boundary.reset()
            found["boundary_iou"] = mean
            for row, value in zip(found["classes"], each, strict=True):
                row["boundary_iou"] = value
        return found, scenes


def _keys(corners: Tensor) -> Tensor:
    """(N,) a number for each scene, row and column (N, 3) that no other has."""
    scene, row, col = corners.T
    return (scene << 48) | (row << 24) | col
