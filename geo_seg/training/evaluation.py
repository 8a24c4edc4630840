"""Evaluation of splits: of windows during training, of whole scenes, predicted as maps are, at the end."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
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
from geo_seg.metrics.bootstrap import ResamplingUnits, resampling_units
from geo_seg.metrics.calibration import Calibration, CalibrationError
from geo_seg.metrics.confusion import ConfusionMatrix, WindowClassCounts
from geo_seg.metrics.registry import SegmentationMetric, requested_metrics
from geo_seg.metrics.scores import SegmentationScores, segmentation_scores
from geo_seg.prediction.scene_predictor import ScenePredictor
from geo_seg.tiling import Window
from losses import Task


class SplitCounts(nn.Module):
    """Confusion matrices of the scenes of a split, and the registered metrics, counted window by window.

    Args:
        task: classes and ignore_index.
        metadata: names of the classes, and ignore_index.
        num_scenes: number of scenes of the split.
        boundary: width of the band of the boundary IoU, see BoundaryIoU; 0 for none.
    """

    def __init__(self, task: Task, metadata: CheckpointMetadata, num_scenes: int, boundary: float) -> None:
        super().__init__()
        self.class_names = metadata.class_names
        num_classes, ignore_index = task.num_classes, metadata.ignore_index
        self.confusion = ConfusionMatrix(num_classes, ignore_index, num_scenes)
        self.metrics: Iterable[SegmentationMetric] = nn.ModuleList(requested_metrics(task, boundary))  # type: ignore[assignment]

    def update(self, predicted: Tensor, labels: Tensor, scenes: Tensor) -> None:
        """Count windows.

        Args:
            predicted: (N, H, W) class ids.
            labels: (N, H, W) class ids or ignore_index.
            scenes: (N,) index of each window's scene.
        """
        self.confusion.update(predicted, labels, scenes)
        for metric in self.metrics:
            metric.update(predicted, labels)

    def compute(self) -> tuple[SegmentationScores, Tensor]:
        """Return the scores of the split and the confusion matrix of each scene; reset the counts."""
        confusions = self.confusion.compute().cpu()
        self.confusion.reset()
        scores = segmentation_scores(confusions.sum(0), self.class_names)
        for metric in self.metrics:
            scores = scores.with_metric(metric.scores())
            metric.reset()
        return scores, confusions


class Validation(nn.Module):
    """Validation metrics, counted on the device without synchronising with it.

    Classes are decoded by the task; temperature and threshold are fitted.

    Args:
        task: mode, classes and ignore_index.
        metadata: names of the classes, and ignore_index.
        num_scenes: number of validation scenes.
        boundary: see SplitCounts.
    """

    def __init__(self, task: Task, metadata: CheckpointMetadata, num_scenes: int, boundary: float) -> None:
        super().__init__()
        self.task = task
        self.counts = SplitCounts(task, metadata, num_scenes, boundary)
        self.calibration = Calibration(task)

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Count a batch of the validation grid."""
        self.counts.update(self.task.decode(logits), batch["labels"], batch["place"][:, 0])
        self.calibration.update(logits, batch["labels"])

    def finish(self, metadata: CheckpointMetadata) -> tuple[SegmentationScores, CheckpointMetadata]:
        """Return the scores, and the metadata with temperature and threshold; reset the counts."""
        temperature, threshold = self.calibration.fit()
        return self.counts.compute()[0], replace(metadata, temperature=temperature, threshold=threshold)


_WINDOWS_AT_ONCE = 4  # of a scene that are counted together
_NO_SCENE = -1  # for processes with fewer scenes than others: all processes take part in every reduction


@dataclass(frozen=True)
class EvaluationResult:
    """Result of the evaluation of a split.

    Attributes:
        scores: scores of the whole split.
        scene_confusions: (scenes, classes, classes) confusion matrices, labels in rows.
        window_counts: (windows, 3, classes) true positives, support and predicted pixels.
        scene_windows: scene and pixels of each window.
    """

    scores: SegmentationScores
    scene_confusions: NDArray[np.int64]
    window_counts: NDArray[np.int64]
    scene_windows: Sequence[SceneWindow]

    def resampling_units(self) -> ResamplingUnits | None:
        """Return the units that intervals resample."""
        return resampling_units(self.window_counts, [scene for scene, _ in self.scene_windows])


class SceneEvaluation(pl.LightningModule):
    """Module for Lightning's test loop that evaluates one scene per step.

    Each process evaluates other scenes; the counts are summed at the end.

    Args:
        predictor: predictor with the trained model.
        data: data module with the scenes.
        split: "val" or "test".
        boundary: see SplitCounts.

    Attributes:
        result: what was counted, after the test loop.
    """

    def __init__(self, predictor: ScenePredictor, data: SceneDataModule, split: str, boundary: float) -> None:
        super().__init__()
        trained = predictor.checkpoint
        self._predictor = predictor
        self._scenes = data.scenes[split]
        self._reader: WindowReader = data.reader(split)
        self._side = data.evaluation_side
        self._ignore_index = data.table.ignore_index
        self._scene_windows = data.evaluation_windows(split)
        self._windows_of_scene = {
            scene: [index for index, _ in group]
            for scene, group in groupby(enumerate(self._scene_windows), lambda pair: pair[1][0])
        }
        self.counts = SplitCounts(trained.task, trained.metadata, len(self._scenes), boundary)
        self._calibration = CalibrationError(trained.task)
        self._window_counts = WindowClassCounts(
            len(self._scene_windows), trained.task.num_classes, self._ignore_index
        )
        self.result: EvaluationResult

    def test_dataloader(self) -> DataLoader[int]:
        """Return the indices of this process's scenes, as many as every other process has."""
        count, rank, world = len(self._scenes), self.trainer.global_rank, self.trainer.world_size
        indices = [
            number if number < count else _NO_SCENE
            for number in range(rank, -(-count // world) * world, world)
        ]
        return DataLoader([n if n < count else _NO_SCENE for n in indices], batch_size=None)  # type: ignore[arg-type] # a list is a data set

    def transfer_batch_to_device(self, batch: int, device: torch.device, dataloader_idx: int) -> int:
        """Return the scene's index unchanged."""
        return batch

    def test_step(self, batch: int, batch_idx: int) -> None:
        """Predict a scene and count its labelled pixels."""
        if batch == _NO_SCENE:
            return
        scene = self._scenes[batch]
        shape = (scene.image.height, scene.image.width)
        dtype = np.dtype(np.uint8 if len(self.counts.class_names) <= 256 else np.int16)
        with tempfile.TemporaryFile() as predicted_file, tempfile.TemporaryFile() as label_file:
            predicted = np.memmap(predicted_file, dtype, "w+", shape=shape)
            labels = np.memmap(label_file, np.int16, "w+", shape=shape)
            labels[...] = self._ignore_index
            for window, probabilities, valid in self._rows(batch):
                rows = slice(window.row, window.row + window.height)
                cols = slice(window.col, window.col + window.width)
                labels[rows, cols] = self._labels(batch, window, valid)
                predicted[rows, cols] = self._predictor.decode(probabilities).cpu().numpy()
                truth = torch.from_numpy(np.ascontiguousarray(labels[rows, cols])).to(probabilities.device)
                self._calibration.update(
                    probabilities[None], truth[None], self._predictor.checkpoint.metadata.temperature
                )
            self._count(batch, predicted, labels)

    def on_test_epoch_end(self) -> None:
        """Compute the result of the whole split."""
        metadata = self._predictor.checkpoint.metadata
        scores, confusions = self.counts.compute()
        scores = replace(
            scores,
            calibration=self._calibration.scores(metadata.temperature, metadata.threshold),
            prediction=self._predictor.description(self._scenes[0]),
        )
        window_counts = self._window_counts.compute().long().cpu().numpy()
        self.result = EvaluationResult(scores, confusions.numpy(), window_counts, self._scene_windows)

    def _rows(self, scene_index: int) -> Iterator[tuple[Window, Tensor, NDArray[np.bool_]]]:
        scene = self._scenes[scene_index]
        return self._predictor.rows(scene, scene.blocks)

    def _labels(self, scene_index: int, window: Window, valid: NDArray[np.bool_]) -> NDArray[np.int16]:
        """Read the labels (height, width) of a window; ignored outside the prediction and the split."""
        scene = self._scenes[scene_index]
        counted = valid.copy()
        if scene.blocks:
            inside = np.zeros_like(valid)
            for row, col, height, width in scene.blocks:
                top, left = max(row - window.row, 0), max(col - window.col, 0)
                inside[top : max(row + height - window.row, 0), left : max(col + width - window.col, 0)] = (
                    True
                )
            counted &= inside
        labels = self._reader.read_labels((scene_index, window)).astype(np.int16)
        labels[~counted] = self._ignore_index
        return labels

    def _count(self, scene_index: int, predicted: NDArray[Any], labels: NDArray[np.int16]) -> None:
        """Count the evaluation windows of a scene; smaller ones are padded with ignored pixels."""
        windows = self._windows_of_scene[scene_index]
        for first in range(0, len(windows), _WINDOWS_AT_ONCE):
            indices = windows[first : first + _WINDOWS_AT_ONCE]
            shape = (len(indices), self._side, self._side)
            ids, truth = torch.zeros(shape, dtype=torch.long), torch.full(shape, self._ignore_index)
            for slot, (row, col, height, width) in enumerate(self._scene_windows[n][1] for n in indices):
                region = np.s_[row : row + height, col : col + width]
                ids[slot, :height, :width] = torch.from_numpy(predicted[region].astype(np.int64))
                truth[slot, :height, :width] = torch.from_numpy(labels[region].astype(np.int64))
            ids, truth = ids.to(self.device), truth.to(self.device)
            self.counts.update(ids, truth, torch.full((len(indices),), scene_index, device=self.device))
            self._window_counts.update(ids, truth, torch.tensor(indices, device=self.device))
