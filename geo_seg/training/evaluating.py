"""Validation while training: scores, temperature and threshold from the windows of the validation scenes."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from geo_seg.boundary import BoundaryIoU, boundary_scores
from geo_seg.calibration import Calibration
from geo_seg.checkpoint import Facts
from geo_seg.data.windows import Batch
from geo_seg.metrics import ConfusionMatrix, Scores, scores
from losses import Task


class SplitCounts(nn.Module):
    """Confusion matrices per scene, and boundary IoU, of the windows of a split.

    Args:
        task: classes and ignore_index.
        facts: names of the classes, and ignore_index.
        num_scenes: of the split.
        boundary: width of the band of the boundary IoU, see BoundaryIoU; 0 for none.
    """

    def __init__(self, task: Task, facts: Facts, num_scenes: int, boundary: float) -> None:
        super().__init__()
        self.names = facts.class_names
        classes, ignore = task.num_classes, facts.ignore_index
        self.confusion = ConfusionMatrix(classes, ignore, num_scenes)
        self.boundary = BoundaryIoU(classes, ignore, boundary) if boundary else None

    def update(self, predicted: Tensor, labels: Tensor, scenes: Tensor) -> None:
        """Count windows.

        Args:
            predicted: (N, H, W) class ids.
            labels: (N, H, W) class ids or ignore_index.
            scenes: (N,) number of each window's scene.
        """
        self.confusion.update(predicted, labels, scenes)
        if self.boundary is not None:
            self.boundary.update(predicted, labels)

    def compute(self) -> tuple[Scores, Tensor]:
        """Return the scores of the split, and the confusion matrix of each scene; reset the counts."""
        scenes = self.confusion.compute().cpu()
        self.confusion.reset()
        found: dict[str, Any] = scores(scenes.sum(0), self.names)
        if self.boundary is not None:
            counts = self.boundary.compute()
            each, mean = boundary_scores(counts)
            found["boundary_iou"] = mean
            for row, value, pixels in zip(found["classes"], each, counts[1].tolist(), strict=True):
                row["boundary_iou"], row["boundary_pixels"] = value, pixels
            self.boundary.reset()
        return found, scenes


class Validation(nn.Module):
    """Counts the windows of the validation scenes, on the device and without waiting for it.

    Classes are decoded as the task says, and a temperature and a threshold are fitted.

    Args:
        task: mode, classes and ignore_index.
        facts: names of the classes, and ignore_index.
        num_scenes: of the validation split.
        boundary: see SplitCounts.
    """

    def __init__(self, task: Task, facts: Facts, num_scenes: int, boundary: float) -> None:
        super().__init__()
        self.task = task
        self.counts = SplitCounts(task, facts, num_scenes, boundary)
        self.calibration = Calibration(task)

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Count a batch of the validation grid."""
        self.counts.update(self.task.decode(logits), batch["labels"], batch["place"][:, 0])
        self.calibration.update(logits, batch["labels"])

    def finish(self, facts: Facts) -> tuple[Scores, Facts]:
        """Return the scores, and the facts with temperature and threshold; reset the counts."""
        temperature, threshold = self.calibration.fit()
        return self.counts.compute()[0], replace(facts, temperature=temperature, threshold=threshold)
