"""Scores of splits: of windows while training, of whole scenes, predicted as maps are, at its end."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from geo_seg.checkpoints.checkpoint import CheckpointMetadata
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.windows.batch import Batch
from geo_seg.data.windows.reader import WindowReader
from geo_seg.data.windows.sampler import SceneWindow
from geo_seg.metrics.boundary_iou import BoundaryIoU, boundary_iou_scores
from geo_seg.metrics.calibration import Calibration, CalibrationError
from geo_seg.metrics.confusion import ConfusionMatrix, WindowClassCounts
from geo_seg.metrics.scores import Scores, segmentation_scores
from geo_seg.prediction.scene_predictor import ScenePredictor
from geo_seg.tiling import Window
from losses import Task


class SplitCounts(nn.Module):
    """Confusion matrices per scene, and boundary IoU, of the windows of a split.

    Args:
        task: classes and ignore_index.
        facts: names of the classes, and ignore_index.
        num_scenes: of the split.
        boundary: width of the band of the boundary IoU, see BoundaryIoU; 0 for none.
    """

    def __init__(self, task: Task, facts: CheckpointMetadata, num_scenes: int, boundary: float) -> None:
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
        found: dict[str, Any] = segmentation_scores(scenes.sum(0), self.names)
        if self.boundary is not None:
            counts = self.boundary.compute()
            each, mean = boundary_iou_scores(counts)
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

    def __init__(self, task: Task, facts: CheckpointMetadata, num_scenes: int, boundary: float) -> None:
        super().__init__()
        self.task = task
        self.counts = SplitCounts(task, facts, num_scenes, boundary)
        self.calibration = Calibration(task)

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Count a batch of the validation grid."""
        self.counts.update(self.task.decode(logits), batch["labels"], batch["place"][:, 0])
        self.calibration.update(logits, batch["labels"])

    def finish(self, facts: CheckpointMetadata) -> tuple[Scores, CheckpointMetadata]:
        """Return the scores, and the facts with temperature and threshold; reset the counts."""
        temperature, threshold = self.calibration.fit()
        return self.counts.compute()[0], replace(facts, temperature=temperature, threshold=threshold)


_WINDOWS = 4  # of a scene that are counted at once
_NO_SCENE = -1  # of processes that have fewer scenes than others: all of them take part in every sum


@dataclass(frozen=True)
class EvaluationResult:
    """What was counted in a split.

    Attributes:
        scores: of the whole split; see metrics.scores. Beside that boundary_iou, of the split and of
            each class (with boundary_pixels, in the band of its label), calibration, see Reliability, and
            prediction: how scenes were predicted.
        scenes: (scenes, classes, classes) confusion matrix of each, labels in rows.
        windows: (windows, 3, classes) right, labelled and predicted pixels of each window.
        places: of the windows.
    """

    scores: Scores
    scenes: NDArray[np.int64]
    windows: NDArray[np.int64]
    places: Sequence[SceneWindow]


class SceneEvaluation(pl.LightningModule):
    """What Lightning's test loop runs: a scene in a step.

    Every process takes scenes of its own, and the counts are added up in the end.

    Args:
        predictor: the model.
        data: the scenes.
        split: "val" or "test".
        boundary: see SplitCounts.
    """

    def __init__(self, predictor: ScenePredictor, data: SceneDataModule, split: str, boundary: float) -> None:
        super().__init__()
        trained = predictor.checkpoint
        self._predictor = predictor
        self._scenes = data.scenes[split]
        self._reader: WindowReader = data.reader(split)
        self._side = data.evaluation_side
        self._ignore_index = data.table.ignore_index
        self._places = data.evaluation_windows(split)
        self._of_scene = {
            scene: [number for number, _ in numbered]
            for scene, numbered in groupby(enumerate(self._places), lambda pair: pair[1][0])
        }
        self.counts = SplitCounts(trained.task, trained.metadata, len(self._scenes), boundary)
        self.reliability = CalibrationError(trained.task)
        self.windows = WindowClassCounts(len(self._places), trained.task.num_classes, self._ignore_index)
        self.counted: EvaluationResult

    def test_dataloader(self) -> DataLoader[int]:
        """Return the numbers of the scenes that this process takes, as many as every other process."""
        count, rank, world = len(self._scenes), self.trainer.global_rank, self.trainer.world_size
        taken = [
            number if number < count else _NO_SCENE
            for number in range(rank, -(-count // world) * world, world)
        ]
        return DataLoader([n if n < count else _NO_SCENE for n in taken], batch_size=None)  # type: ignore[arg-type] # a list is a data set

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave a number as it is."""
        return batch

    def test_step(self, batch: int, batch_idx: int) -> None:
        """Predict a scene and count its labelled pixels."""
        if batch == _NO_SCENE:
            return
        scene = self._scenes[batch]
        shape = (scene.image.height, scene.image.width)
        dtype = np.dtype(np.uint8 if len(self.counts.names) <= 256 else np.int16)
        with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
            predicted = np.memmap(first, dtype, "w+", shape=shape)
            labels = np.memmap(second, np.int16, "w+", shape=shape)
            labels[...] = self._ignore_index
            for window, probabilities, valid in self._rows(batch):
                rows = slice(window.row, window.row + window.height)
                cols = slice(window.col, window.col + window.width)
                labels[rows, cols] = self._labels(batch, window, valid)
                predicted[rows, cols] = self._predictor.decode(probabilities).cpu().numpy()
                truth = torch.from_numpy(np.ascontiguousarray(labels[rows, cols])).to(probabilities.device)
                self.reliability.update(
                    probabilities[None], truth[None], self._predictor.checkpoint.metadata.temperature
                )
            self._count(batch, predicted, labels)

    def on_test_epoch_end(self) -> None:
        """Keep what was counted in the whole split."""
        facts = self._predictor.checkpoint.metadata
        found, scenes = self.counts.compute()
        fitted = {"temperature": facts.temperature, "threshold": facts.threshold}
        found["calibration"] = {**fitted, **self.reliability.compute()}
        found["prediction"] = self._predictor.description(self._scenes[0])
        windows = self.windows.compute().long().cpu().numpy()
        self.counted = EvaluationResult(found, scenes.numpy(), windows, self._places)

    def _rows(self, number: int) -> Iterator[tuple[Window, Tensor, NDArray[np.bool_]]]:
        scene = self._scenes[number]
        return self._predictor.rows(scene, scene.blocks)

    def _labels(self, number: int, window: Window, valid: NDArray[np.bool_]) -> NDArray[np.int16]:
        """Read the labels (height, width) of a window; ignored where nothing was predicted or asked for."""
        scene = self._scenes[number]
        counted = valid.copy()
        if scene.blocks:
            inside = np.zeros_like(valid)
            for row, col, height, width in scene.blocks:
                top, left = max(row - window.row, 0), max(col - window.col, 0)
                inside[top : max(row + height - window.row, 0), left : max(col + width - window.col, 0)] = (
                    True
                )
            counted &= inside
        found = self._reader.read_labels((number, window)).astype(np.int16)
        found[~counted] = self._ignore_index
        return found

    def _count(self, number: int, predicted: NDArray[Any], labels: NDArray[np.int16]) -> None:
        """Count the evaluation windows of a scene; smaller ones are filled up with ignored pixels."""
        windows = self._of_scene[number]
        for first in range(0, len(windows), _WINDOWS):
            numbers = windows[first : first + _WINDOWS]
            shape = (len(numbers), self._side, self._side)
            ids, truth = torch.zeros(shape, dtype=torch.long), torch.full(shape, self._ignore_index)
            for slot, (row, col, height, width) in enumerate(self._places[n][1] for n in numbers):
                here = np.s_[row : row + height, col : col + width]
                ids[slot, :height, :width] = torch.from_numpy(predicted[here].astype(np.int64))
                truth[slot, :height, :width] = torch.from_numpy(labels[here].astype(np.int64))
            ids, truth = ids.to(self.device), truth.to(self.device)
            self.counts.update(ids, truth, torch.full((len(numbers),), number, device=self.device))
            self.windows.update(ids, truth, torch.tensor(numbers, device=self.device))
