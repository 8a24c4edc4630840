"""Scores of a run, the pictures of its report and maps come from one path: they hold the same integers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

import losses
from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.metrics.boundary_iou import BoundaryIoU
from geo_seg.models.layers import Normalize
from geo_seg.prediction.scene_predictor import ScenePredictor
from geo_seg.tiling import Window
from geo_seg.training.evaluation import EvaluationResult, SceneEvaluation
from geo_seg.training.pictures import picture_windows
from losses import Task
from tests.conftest import write_raster
from tests.end_to_end.test_inference import facts, predict, read

HEIGHT, WIDTH = 420, 530
CLASSES = [{"name": "low", "values": [7]}, {"name": "high", "values": [9]}]


class Blurred(nn.Module):
    """Logits out of the mean around a pixel: what it says depends on where a window ends."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = nn.functional.avg_pool2d(image[:, :1], (61, 1), 1, (30, 0))
        mean = nn.functional.avg_pool2d(mean, (1, 61), 1, (0, 30))
        return mean if self.channels == 1 else torch.cat([-mean, mean], 1)


def model(mode: str, dataset: dict[str, Any], **changes: Any) -> Checkpoint:
    known = facts(
        mode=mode, mean=[1000.0, 1000.0], std=[200.0, 200.0], config={"dataset": dataset}, **changes
    )
    task = losses.Task(mode, 2, 255)
    return Checkpoint(Path("x"), known, task, Blurred(task.channels), Normalize(known.mean, known.std))


def scenes(root: Path, names: tuple[str, ...]) -> None:
    """Images whose brightness drifts, with a corner of nodata, and labels with holes that don't quite fit."""
    for seed, name in enumerate(names):
        draw = np.random.default_rng(seed)
        drift = 1000 + 150 * np.sin(np.add.outer(np.arange(HEIGHT) / 37, np.arange(WIDTH) / 29 + seed))
        image = (drift + draw.normal(0, 200, (2, HEIGHT, WIDTH))).astype(np.uint16)
        image[:, :90, :40] = 0
        mask = np.where(drift > 1010, 9, 7).astype(np.uint8)
        mask[300:, 500:] = 0
        write_raster(root / "images" / f"{name}.tif", image, nodata=0)
        write_raster(root / "masks" / f"{name}.tif", mask)


def configured(root: Path, mode: str, split: SplitConfig) -> DatasetConfig:
    return DatasetConfig(
        name="x",
        root=str(root),
        images="images/*.tif",
        masks="masks/*.tif",
        mode=mode,
        classes=CLASSES,
        ignore_values=[0],
        split=split,
        window=64,
        batch_size=2,
        num_threads=1,
        allow_leakage=True,  # the scenes lie on one ground
    )


def count(predictor: ScenePredictor, data: SceneDataModule, split: str) -> EvaluationResult:
    options: Any = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", enable_progress_bar=False, barebones=False, **options)
    evaluation = SceneEvaluation(predictor, data, split, 0.02)
    trainer.test(evaluation, verbose=False)
    return evaluation.result


def confusion(classes: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    seen = classes < 255
    return [[int((seen & (labels == v) & (classes == c)).sum()) for c in (0, 1)] for v in (7, 9)]


SPLITS = {
    "scenes": SplitConfig(by="pattern", train="images/a.tif", val="images/b.tif", test="images/[cd].tif"),
    "blocks": SplitConfig(by="blocks", block=96, buffer=8, val=0.2, test=0.3),
}


@pytest.mark.fault("scores", "scores, pictures and maps come from different windows, seams and precision")
@pytest.mark.parametrize(
    ("mode", "by", "precision", "changes"),
    [
        ("multiclass", "scenes", "fp32", {}),
        ("multiclass", "scenes", "bf16", {}),
        ("multiclass", "scenes", "fp32", {"temperature": 3.0}),
        ("binary", "scenes", "fp32", {"threshold": 0.55}),
        ("multiclass", "blocks", "fp32", {}),
        ("binary", "blocks", "bf16", {"threshold": 0.4, "temperature": 0.5}),
    ],
)
def test_scores_of_a_split_and_its_pictures_are_those_of_the_maps(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    by: str,
    precision: str,
    changes: dict[str, Any],
) -> None:
    monkeypatch.setattr(
        "geo_seg.prediction.planner._WINDOW_SIDES", (256,)
    )  # several windows and seams in a scene
    monkeypatch.setattr("geo_seg.prediction.planner._MIN_PART_ROWS", 200)
    scenes(tmp_path, ("a", "b", "c", "d") if by == "scenes" else ("a",))
    config = configured(tmp_path, mode, SPLITS[by])
    data = SceneDataModule(config, 0)
    found = model(mode, vars(config) | {"split": {}, "label": {}}, **changes)
    predictor = ScenePredictor(found, config, torch.device("cpu"), precision, print)
    counted = count(predictor, data, "test")
    # maps by inference, with its own defaults
    options = {"window": "auto", "margin": None, "overlap": 64, "precision": precision}
    named = [Path(scene.image.path) for scene in data.scenes["test"]]
    predict(
        [str(path) for path in named], tmp_path / "maps", found, labels=str(tmp_path / "masks"), **options
    )
    maps = {path.stem: read(tmp_path / "maps" / f"{path.stem}_classes.tif")[0] for path in named}
    masks = {path.stem: read(tmp_path / "masks" / path.name)[0] for path in named}
    plan = counted.scores.prediction
    assert (plan["window"], plan["margin"], plan["overlap"], plan["precision"]) == (256, 32, 64, precision)
    # every window of the evaluation
    for (scene, (row, col, height, width)), numbers in zip(
        counted.scene_windows, counted.window_counts, strict=True
    ):
        here = np.s_[row : row + height, col : col + width]
        matrix = np.array(confusion(maps[named[scene].stem][here], masks[named[scene].stem][here]))
        np.testing.assert_array_equal(numbers, [matrix.diagonal(), matrix.sum(1), matrix.sum(0)])
    assert counted.scores.pixels > 10000
    scored = json.loads((tmp_path / "maps" / "metrics.json").read_text())
    if by == "scenes":  # else labels= counts the whole raster
        assert counted.scores.confusion == scored["confusion"]
        assert counted.scores.miou == scored["miou"]
        for path, matrix in zip(named, counted.scene_confusions, strict=True):
            assert matrix.tolist() == scored["scenes"][path.stem]["confusion"]
    # the pictures of the report show the very pixels that were counted
    shown: list[np.ndarray] = []
    classes = predictor.classes

    def noted(*window: Any) -> np.ndarray:
        shown.append(classes(*window))
        return shown[-1]

    monkeypatch.setattr(predictor, "classes", noted)
    titles = [one.title for one in picture_windows(predictor, data, "test", counted)]
    assert len(shown) == len(titles) >= 3
    matches = 0
    for picture in shown:
        for scene, window in counted.scene_windows:
            row, col, height, width = window
            there = maps[named[scene].stem][row : row + height, col : col + width]
            matches += picture.shape == there.shape and bool((picture == there)[there < 255].all())
    assert matches >= len(shown)


def test_reliability_of_a_split_equals_a_loop_over_what_maps_say(tmp_path: Path) -> None:
    scenes(tmp_path, ("a", "b", "c"))
    config = configured(tmp_path, "binary", SPLITS["scenes"])
    data = SceneDataModule(config, 0)
    found = model("binary", {}, temperature=2.0)
    predictor = ScenePredictor(found, config, torch.device("cpu"), "fp32", print)
    calibration = count(predictor, data, "test").scores.calibration
    image, mask = read(tmp_path / "images" / "c.tif"), read(tmp_path / "masks" / "c.tif")[0]
    valid = (image != 0).any(0)
    scaled = np.where(valid, (image[:1].astype(np.float32) - 1000) / 200, 0)
    padded = np.pad(scaled, ((0, 0), (0, -HEIGHT % 32), (0, -WIDTH % 32)), mode="reflect").astype(np.float32)
    logits = found.model(torch.from_numpy(padded[None]))[0, 0, :HEIGHT, :WIDTH].double().numpy()
    seen = valid & (mask > 0)
    for name, temperature in (("raw", 1.0), ("scaled", 2.0)):
        foreground = 1 / (1 + np.exp(-logits[seen] / temperature))
        likely = np.where(mask[seen] == 9, foreground, 1 - foreground)
        assert getattr(calibration, name).nll == pytest.approx(-np.log(likely).mean(), rel=1e-5)
        sure = np.maximum(foreground, 1 - foreground)
        assert sum(getattr(calibration, name).pixels) == seen.sum()
        bins = np.minimum((sure * 15).astype(int), 14)
        right = (foreground > 0.5) == (mask[seen] == 9)
        gaps = [abs(sure[bins == b].sum() - right[bins == b].sum()) for b in range(15)]
        assert getattr(calibration, name).ece == pytest.approx(sum(gaps) / seen.sum(), abs=1e-5)


def test_boundary_iou_of_a_split_is_taken_in_its_evaluation_windows(tmp_path: Path) -> None:
    scenes(tmp_path, ("a", "b", "c"))
    config = configured(tmp_path, "multiclass", SPLITS["scenes"])
    data = SceneDataModule(config, 0)
    predictor = ScenePredictor(model("multiclass", {}), config, torch.device("cpu"), "fp32", print)
    counted = count(predictor, data, "test")
    metric = BoundaryIoU(Task("multiclass", 2, 255), 0.02)
    mask = read(tmp_path / "masks" / "c.tif")[0]
    labels = np.where(
        read(tmp_path / "images" / "c.tif").any(0), np.select([mask == 7, mask == 9], [0, 1], 255), 255
    )
    predicted = predictor.classes(data.scenes["test"][0], Window(0, 0, HEIGHT, WIDTH))
    for _, (row, col, height, width) in counted.scene_windows:
        ids, truth = torch.zeros(1, 128, 128, dtype=torch.long), torch.full((1, 128, 128), 255)
        ids[0, :height, :width] = torch.from_numpy(predicted[row : row + height, col : col + width])
        truth[0, :height, :width] = torch.from_numpy(labels[row : row + height, col : col + width])
        metric.update(ids, truth)
    both, truth_, guess = metric.compute().tolist()
    expected = [b / (t + g - b) for b, t, g in zip(both, truth_, guess, strict=True)]
    assert [score.boundary_iou for score in counted.scores.classes] == pytest.approx(expected)


@pytest.mark.fault("scores", "scores, pictures and maps come from different windows, seams and precision")
def test_maps_that_are_scored_are_made_in_the_precision_of_a_runs_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes(tmp_path, ("a",))
    found = model(
        "multiclass", vars(configured(tmp_path, "multiclass", SPLITS["scenes"])) | {"split": {}, "label": {}}
    )
    measured: list[str] = []
    monkeypatch.setattr(
        "geo_seg.prediction.planner.measure_precision", lambda *_: measured.append("x") or "bf16"
    )
    options = {"window": 256, "margin": 32, "precision": "auto"}
    image = tmp_path / "images" / "a.tif"
    predict(image, tmp_path / "plain", found, **options)
    assert measured == ["x"]
    predict(image, tmp_path / "scored", found, labels=str(tmp_path / "masks"), **options)
    predict(image, tmp_path / "full", found, **{**options, "precision": "fp32"})
    assert measured == ["x"]
    name = "a_classes.tif"
    np.testing.assert_array_equal(read(tmp_path / "scored" / name), read(tmp_path / "full" / name))
