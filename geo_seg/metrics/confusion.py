"""Confusion matrices and counts per window, accumulated over batches; ignored pixels are left out."""

import torch
from torch import Tensor
from torchmetrics import Metric


class ConfusionMatrix(Metric):
    """Counts of pixels by label (rows) and prediction (columns), summed over batches and processes.

    Args:
        num_classes: number of classes.
        ignore_index: label of pixels that are left out.
        num_scenes: number of scenes to count separately; None counts all of them together.
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
        """Count a batch.

        Args:
            predicted: class ids of any shape; (N, ...) where scenes are counted separately.
            labels: class ids or ignore_index, of the same shape.
            scenes: (N,) number of each sample's scene; None unless scenes are counted separately.
        """
        if scenes is None:
            predicted, labels = predicted.unsqueeze(0), labels.unsqueeze(0)
        matrices = confusion_matrices(predicted, labels, self.num_classes, self.ignore_index)
        if scenes is None:
            self.counts += matrices[0]
        else:
            self.counts.index_add_(0, scenes, matrices)

    def compute(self) -> Tensor:
        """Return the matrix, (classes, classes) with labels in rows, or (scenes, classes, classes)."""
        return self.counts


class WindowClassCounts(Metric):
    """True positives, support and predicted pixels of every window of a grid, by class.

    Scores, their intervals and the choice of windows for the report need these of a window, and no matrix.

    Args:
        num_windows: number of windows in the grid.
        num_classes: number of classes.
        ignore_index: label of pixels that are left out.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_windows: int, num_classes: int, ignore_index: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        shape = (num_windows, 3, num_classes)
        self.add_state("counts", torch.zeros(shape, dtype=torch.int32), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, labels: Tensor, numbers: Tensor) -> None:
        """Count a batch.

        Args:
            predicted: (N, H, W) class ids.
            labels: (N, H, W) class ids or ignore_index.
            numbers: (N,) of the windows in the grid.
        """
        matrices = confusion_matrices(predicted, labels, self.num_classes, self.ignore_index)
        self.counts.index_add_(0, numbers, class_counts_of(matrices).int())

    def compute(self) -> Tensor:
        """Return (windows, 3, classes) true positives, support and predicted pixels."""
        return self.counts


def confusion_matrices(
    predicted: Tensor, labels: Tensor, num_classes: int, ignore_index: int | None
) -> Tensor:
    """Return the confusion matrix of each sample.

    Args:
        predicted: (N, ...) class ids.
        labels: (N, ...) class ids or ignore_index.
        num_classes: number of classes.
        ignore_index: label of pixels that are left out; None for none.

    Returns:
        (N, classes, classes) int64, labels in rows.
    """
    n, size = len(labels), num_classes * num_classes
    cell = labels.long() * num_classes + predicted.long()
    if ignore_index is not None:
        # ignored pixels go to a bin of their own: no boolean index, so a GPU doesn't wait
        cell = torch.where(labels == ignore_index, size, cell)
    cell = cell.flatten(1)
    cell += torch.arange(n, device=cell.device)[:, None] * (size + 1)
    counts = torch.bincount(cell.flatten(), minlength=n * (size + 1)).view(n, size + 1)
    return counts[:, :size].reshape(n, num_classes, num_classes)


def class_counts_of(matrices: Tensor) -> Tensor:
    """Return (N, 3, classes) true positives, support and predicted pixels of confusion matrices."""
    return torch.stack((matrices.diagonal(dim1=1, dim2=2), matrices.sum(2), matrices.sum(1)), 1)
