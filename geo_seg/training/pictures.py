"""Pictures for the report: predictions beside images and labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geo_seg.checkpoints.checkpoint import CheckpointMetadata
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.windows.sampler import RandomWindowSampler
from geo_seg.metrics.scores import mean_iou
from geo_seg.prediction.scene_predictor import ScenePredictor
from geo_seg.raster.georeference import ground_pixel_size
from geo_seg.report.locations import describe_location
from geo_seg.report.pictures import (
    ReportWindow,
    ScaleBar,
    draw_panels,
    draw_picture,
    encode_panels,
    scale_bar,
)
from geo_seg.tiling import Window
from geo_seg.training.evaluation import EvaluationResult

_MAX_SIDE = 768  # pixels of a picture: a forward pass that fits into the memory of any machine
_MAX_SCENES_SHOWN = 6
_WINDOWS_PER_RANK = 2  # best, median and worst
_NUM_SAMPLES = 4
_MIN_LABELLED = 0.25  # of a ranked window, as a fraction of the most labelled window's labels


def picture_scenes(
    predictor: ScenePredictor, data: SceneDataModule, split: str, folder: Path
) -> list[ReportWindow]:
    """Predict the centre of some scenes, also drawing image, label, prediction and errors into PNGs.

    Args:
        predictor: predictor with the trained model.
        data: data module with the scenes.
        split: "val" or "test".
        folder: folder of the PNGs.

    Returns:
        A window per scene, evenly chosen among the scenes of the split.
    """
    scenes = data.scenes[split]
    metadata = predictor.checkpoint.metadata
    indices = np.unique(
        np.linspace(0, len(scenes) - 1, min(_MAX_SCENES_SHOWN, len(scenes))).round().astype(int)
    )
    folder.mkdir(parents=True, exist_ok=True)
    painter = _WindowPainter(data, split, metadata)
    pictures = []
    for index in indices.tolist():
        top, left, height, width = _largest_block(scenes[index])
        rows, cols = min(height, _MAX_SIDE), min(width, _MAX_SIDE)
        window = Window(top + (height - rows) // 2, left + (width - cols) // 2, rows, cols)
        predicted = predictor.classes(scenes[index], window)
        name = scenes[index].name
        painter.draw(folder / f"{split}_{index + 1}.png", index, window, predicted)
        pictures.append(painter.show(name, index, window, predicted))
    return pictures


def picture_windows(
    predictor: ScenePredictor, data: SceneDataModule, split: str, result: EvaluationResult
) -> list[ReportWindow]:
    """Predict the best, median and worst windows of a split again.

    Args:
        predictor: predictor with the trained model.
        data: data module with the scenes.
        split: "val" or "test".
        result: evaluation of the split.
    """
    painter = _WindowPainter(data, split, predictor.checkpoint.metadata)
    ious = mean_iou(result.window_counts)
    pictures = []
    for label, number in ranked(ious, result.window_counts[:, 1].sum(1)):
        index, window = result.scene_windows[number]
        scene = data.scenes[split][index]
        title = f"{label}: mean IoU {ious[number]:.3f} in {scene.name}"
        pictures.append(painter.show(title, index, window, predictor.classes(scene, window)))
    return pictures


def picture_samples(metadata: CheckpointMetadata, data: SceneDataModule) -> list[ReportWindow]:
    """Return the first training windows as they are read; none if a test has no training scenes."""
    config = data.config
    scenes = data.scenes["train"]
    if not scenes:
        return []
    windows = RandomWindowSampler(
        scenes, data.index["train"], config.sampler, config.window, _NUM_SAMPLES, data.seed
    )
    painter = _WindowPainter(data, "train", metadata)
    return [painter.show(scenes[index].name, index, window, None) for index, window in windows.epoch(0)]


class _WindowPainter:
    """Draws windows of a split; those of one scene share one contrast stretch.

    Args:
        data: data module with the scenes.
        split: name of the split.
        metadata: names and colours of bands and classes.
    """

    def __init__(self, data: SceneDataModule, split: str, metadata: CheckpointMetadata) -> None:
        self._scenes, self._index = data.scenes[split], data.index[split]
        self._reader = data.reader(split)
        self._metadata = metadata

    def show(
        self, title: str, index: int, window: Window, predicted: NDArray[np.int64] | None
    ) -> ReportWindow:
        """Return a window of a scene for the page."""
        image, labels, valid = self._reader.read((index, window))
        panels = draw_panels(image, labels, predicted, valid, self._metadata, self._stretch(index))
        encoded = encode_panels(panels, self._bar(index, window))
        return ReportWindow(title, describe_location(self._scenes[index], window), encoded)

    def draw(self, file: Path, index: int, window: Window, predicted: NDArray[np.int64]) -> None:
        """Draw a window of a scene into a PNG."""
        image, labels, valid = self._reader.read((index, window))
        title, stretch, bar = self._scenes[index].name, self._stretch(index), self._bar(index, window)
        draw_picture(file, image, labels, predicted, valid, self._metadata, title, stretch, bar)

    def _stretch(self, index: int) -> NDArray[np.float64]:
        """Return values (2, bands) of a scene that become black and white: its 2nd and 98th percentile."""
        return self._index[index].bands.percentiles((0.02, 0.98))

    def _bar(self, index: int, window: Window) -> ScaleBar:
        sides = ground_pixel_size(self._scenes[index].image)
        return scale_bar(window.width, None if sides is None else sides[0])


def ranked(ious: NDArray[np.float64], support: NDArray[np.int64]) -> list[tuple[str, int]]:
    """Return the best, median and worst windows, each at most once; windows with few labels are left out.

    Args:
        ious: mean IoU of each window.
        support: labelled pixels of each window.

    Returns:
        "best", "median" or "worst", and the index of the window.
    """
    candidates = np.flatnonzero((support > 0) & (support >= _MIN_LABELLED * support.max(initial=0)))
    order = candidates[np.argsort(-ious[candidates], kind="stable")]
    median_start = max((len(order) - _WINDOWS_PER_RANK) // 2, 0)
    ranges: Sequence[tuple[str, range]] = (
        ("best", range(_WINDOWS_PER_RANK)),
        ("worst", range(len(order) - _WINDOWS_PER_RANK, len(order))),
        ("median", range(median_start, median_start + _WINDOWS_PER_RANK)),
    )
    labels: dict[int, str] = {}
    for label, positions in ranges:
        for position in positions:
            if 0 <= position < len(order):
                labels.setdefault(position, label)
    return [(labels[position], int(order[position])) for position in sorted(labels)]


def _largest_block(scene: Scene) -> Window:
    full = Window(0, 0, scene.image.height, scene.image.width)
    return max(scene.blocks or (full,), key=lambda block: block.height * block.width)
