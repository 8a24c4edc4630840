"""Predictions beside images and labels, for the report."""

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

_SIDE = 768  # pixels of a picture: a forward pass that any machine can hold
_MOST = 6  # scenes in a report
_EACH = 2  # windows of each kind
_SAMPLES = 4
_LABELLED = 0.25  # share of the most labelled window that a window to be shown has at least


def picture_scenes(
    predictor: ScenePredictor, data: SceneDataModule, split: str, folder: Path
) -> list[ReportWindow]:
    """Predict the middle of some scenes; also draw image, label, prediction and errors into PNGs.

    Args:
        predictor: the trained model.
        data: where the scenes are.
        split: "val" or "test".
        folder: where the PNGs go.

    Returns:
        A window per scene, evenly chosen among the scenes of the split.
    """
    scenes = data.scenes[split]
    facts = predictor.checkpoint.metadata
    chosen = np.unique(np.linspace(0, len(scenes) - 1, min(_MOST, len(scenes))).round().astype(int))
    folder.mkdir(parents=True, exist_ok=True)
    read = _Pictures(data, split, facts)
    shown = []
    for index in chosen.tolist():
        top, left, height, width = _largest_part(scenes[index])
        rows, cols = min(height, _SIDE), min(width, _SIDE)
        window = Window(top + (height - rows) // 2, left + (width - cols) // 2, rows, cols)
        predicted = predictor.classes(scenes[index], window)
        name = scenes[index].name
        read.draw(folder / f"{split}_{index + 1}.png", index, window, predicted)
        shown.append(read.show(name, index, window, predicted))
    return shown


def picture_windows(
    predictor: ScenePredictor, data: SceneDataModule, split: str, counted: EvaluationResult
) -> list[ReportWindow]:
    """Predict the best, median and worst windows of a split anew.

    Args:
        predictor: the trained model.
        data: where the scenes are.
        split: "val" or "test".
        counted: what was counted in it.
    """
    read = _Pictures(data, split, predictor.checkpoint.metadata)
    ious = mean_iou(counted.windows)
    shown = []
    for kind, number in ranked(ious, counted.windows[:, 1].sum(1)):
        index, window = counted.places[number]
        scene = data.scenes[split][index]
        title = f"{kind}: mean IoU {ious[number]:.3f} in {scene.name}"
        shown.append(read.show(title, index, window, predictor.classes(scene, window)))
    return shown


def picture_samples(facts: CheckpointMetadata, data: SceneDataModule) -> list[ReportWindow]:
    """Return the first windows of training as they are read; none where a test has no training scenes."""
    config = data.config
    scenes = data.scenes["train"]
    if not scenes:
        return []
    windows = RandomWindowSampler(
        scenes, data.index["train"], config.sampler, config.window, _SAMPLES, data.seed
    )
    read = _Pictures(data, "train", facts)
    return [read.show(scenes[index].name, index, window, None) for index, window in windows.epoch(0)]


class _Pictures:
    """Windows of a split as pictures: those of one scene share one stretch.

    Args:
        data: where the scenes are.
        split: which of them.
        facts: names and colours.
    """

    def __init__(self, data: SceneDataModule, split: str, facts: CheckpointMetadata) -> None:
        self._scenes, self._index = data.scenes[split], data.index[split]
        self._reader = data.reader(split)
        self._facts = facts

    def show(
        self, title: str, number: int, window: Window, predicted: NDArray[np.int64] | None
    ) -> ReportWindow:
        """Return a window of a scene for the page."""
        image, labels, valid = self._reader.read((number, window))
        shown = draw_panels(image, labels, predicted, valid, self._facts, self._stretch(number))
        files = encode_panels(shown, self._bar(number, window))
        return ReportWindow(title, describe_location(self._scenes[number], window), files)

    def draw(self, file: Path, number: int, window: Window, predicted: NDArray[np.int64]) -> None:
        """Draw a window of a scene into a PNG."""
        image, labels, valid = self._reader.read((number, window))
        title, stretch, bar = self._scenes[number].name, self._stretch(number), self._bar(number, window)
        draw_picture(file, image, labels, predicted, valid, self._facts, title, stretch, bar)

    def _stretch(self, number: int) -> NDArray[np.float64]:
        """Values (2, bands) of a scene that are shown as black and white: its 2nd and 98th percentile."""
        return self._index[number].bands.percentiles((0.02, 0.98))

    def _bar(self, number: int, window: Window) -> ScaleBar:
        sides = ground_pixel_size(self._scenes[number].image)
        return scale_bar(window.width, None if sides is None else sides[0])


def ranked(ious: NDArray[np.float64], labelled: NDArray[np.int64]) -> list[tuple[str, int]]:
    """The best, median and worst windows, none of them twice; those with few labels are left out.

    Args:
        ious: of each window.
        labelled: pixels of each window.

    Returns:
        "best", "median" or "worst", and the number of the window.
    """
    known = np.flatnonzero((labelled > 0) & (labelled >= _LABELLED * labelled.max(initial=0)))
    order = known[np.argsort(-ious[known], kind="stable")]
    middle = max((len(order) - _EACH) // 2, 0)
    places: Sequence[tuple[str, range]] = (
        ("best", range(_EACH)),
        ("worst", range(len(order) - _EACH, len(order))),
        ("median", range(middle, middle + _EACH)),
    )
    found: dict[int, str] = {}
    for kind, positions in places:
        for position in positions:
            if 0 <= position < len(order):
                found.setdefault(position, kind)
    return [(found[position], int(order[position])) for position in sorted(found)]


def _largest_part(scene: Scene) -> Window:
    whole = Window(0, 0, scene.image.height, scene.image.width)
    return max(scene.blocks or (whole,), key=lambda part: part.height * part.width)
