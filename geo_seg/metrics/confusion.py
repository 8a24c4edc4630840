"""Confusion matrices and weighted means, counted in a stream of batches; valid pixels only."""

import torch
from torch import Tensor
from torchmetrics import Metric


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
        if scenes is None:
            predicted, labels = predicted.unsqueeze(0), labels.unsqueeze(0)
        found = _matrices(predicted, labels, c, self.ignore_index)
        if scenes is None:
            self.counts += found[0]
        else:
            self.counts.index_add_(0, scenes, found)

    def compute(self) -> Tensor:
        """The matrix, (classes, classes) with labels in rows, or (scenes, classes, classes)."""
        return self.counts


class WindowClassCounts(Metric):
    """Pixels of every window of a grid, by class: right ones, labelled ones, predicted ones.

    What scores, their intervals and the choice of windows to show need of a window, and less than a matrix.

    Args:
        num_windows: of the grid.
        num_classes: classes.
        ignore_index: label of pixels that aren't counted.
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
        """Counts a batch.

        Args:
            predicted: (N, H, W) class ids.
            labels: (N, H, W) class ids or ignore_index.
            numbers: (N,) of the windows in the grid.
        """
        found = _matrices(predicted, labels, self.num_classes, self.ignore_index)
        parts = (found.diagonal(dim1=1, dim2=2), found.sum(2), found.sum(1))
        self.counts.index_add_(0, numbers, torch.stack(parts, 1).int())

    def compute(self) -> Tensor:
        """(windows, 3, classes)."""
        return self.counts


class WeightedMean(Metric):
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


def _matrices(predicted: Tensor, labels: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Confusion matrices of samples.

    Args:
        predicted: (N, ...) class ids.
        labels: (N, ...) class ids or ignore_index.
        classes: how many.
        ignore_index: label of pixels that aren't counted.

    Returns:
        (N, classes, classes), labels in rows.
    """
    n, size = len(labels), classes * classes
    cell = labels.long() * classes + predicted.long()
    # ignored pixels go to a bin of their own: no boolean index, so a GPU doesn't wait
    cell = torch.where(labels == ignore_index, size, cell).flatten(1)
    cell += torch.arange(n, device=cell.device)[:, None] * (size + 1)
    found = torch.bincount(cell.flatten(), minlength=n * (size + 1)).view(n, size + 1)
    return found[:, :size].reshape(n, classes, classes)
