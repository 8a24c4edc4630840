"""What follows training, and what a test is: scores of whole splits, tables, pictures, the report."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console

from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.metrics.bootstrap import bootstrap_intervals, resampling_units
from geo_seg.metrics.scores import segmentation_scores
from geo_seg.prediction.scene_predictor import ScenePredictor
from geo_seg.report.tables import score_table
from geo_seg.runtime.files import atomic_write
from geo_seg.training.evaluation import EvaluationResult, SceneEvaluation
from geo_seg.training.report import FinishedRun, write_report
from geo_seg.training.resume import SCORES


def evaluated_splits(data: SceneDataModule) -> list[str]:
    """The splits that are evaluated; the last one is that of the report."""
    return ["val", "test"] if data.scenes["test"] else ["val"]


def evaluate_splits(
    trainer: pl.Trainer,
    predictor: ScenePredictor,
    data: SceneDataModule,
    splits: Sequence[str],
    config: TrainConfig,
) -> dict[str, EvaluationResult]:
    """Count every valid pixel of some splits once, predicted as in a map; every process has to ask.

    Args:
        trainer: shares the scenes among the processes.
        predictor: the model.
        data: the scenes.
        splits: "val", "test".
        config: says how intervals are made.

    Returns:
        Per split what was counted; the scores have intervals, see metrics.bootstrap, and scenes: the name,
        pixels, miou, accuracy and iou (per class) of each.
    """
    found = {}
    for split in splits:
        evaluation = SceneEvaluation(predictor, data, split, config.evaluation.boundary)
        trainer.test(evaluation, verbose=False)
        found[split] = counted = evaluation.counted
        numbers = [scene for scene, _ in counted.places]
        places = resampling_units(counted.windows, numbers)
        counted.scores["intervals"] = bootstrap_intervals(places, config.evaluation.draws, config.seed)
        counted.scores["scenes"] = [
            _scene(
                scene.name,
                segmentation_scores(torch.from_numpy(matrix), predictor.checkpoint.metadata.class_names),
            )
            for scene, matrix in zip(data.scenes[split], counted.scenes, strict=False)
        ]
    return found


def write_results(run: FinishedRun, console: Console, closing: Callable[[FinishedRun, bool], str]) -> None:
    """Writes what evaluate has found: tables, pictures and report, and metrics.json in the end.

    Args:
        run: that has ended.
        console: where the scores are printed.
        closing: gives what is printed in the end; for True as it stands in summary.txt, which others may
            read: paths start from the run folder and from dataset.root.
    """
    results, path = run.results, run.path
    found = {"split": run.split, **{name: counted.scores for name, counted in results.items()}, **run.facts}
    found["unreadable"] = run.data.unreadable
    matrices = {
        name: [
            {"name": scene.name, "confusion": matrix.tolist()}
            for scene, matrix in zip(run.data.scenes[name], counted.scenes, strict=False)
        ]
        for name, counted in results.items()
    }
    path.mkdir(parents=True, exist_ok=True)
    atomic_write(path / "scenes.json", json.dumps(matrices))
    atomic_write(
        path / "scenes.csv", _table(_scene_rows(results, run.predictor.checkpoint.metadata.class_names))
    )
    atomic_write(path / "classes.csv", _table(_class_rows(results)))
    write_report(run, found)
    table = score_table(results[run.split].scores, f"{run.split} scenes")
    console.print(table)
    console.print(closing(run, False), soft_wrap=True, markup=False)
    text = io.StringIO()
    Console(file=text, width=100).print(table, closing(run, True), soft_wrap=True, markup=False)
    atomic_write(path / "summary.txt", text.getvalue())
    atomic_write(path / SCORES, json.dumps(found, indent=2))


def _scene(name: str, found: dict[str, Any]) -> dict[str, Any]:
    kept = {key: found[key] for key in ("pixels", "miou", "accuracy")}
    return {"name": name, **kept, "iou": [row["iou"] for row in found["classes"]]}


def _scene_rows(results: Mapping[str, EvaluationResult], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "split": split,
            "scene": scene["name"],
            **{key: scene[key] for key in ("pixels", "miou", "accuracy")},
            **{f"iou_{name}": value for name, value in zip(names, scene["iou"], strict=True)},
        }
        for split, counted in results.items()
        for scene in counted.scores["scenes"]
    ]


def _class_rows(results: Mapping[str, EvaluationResult]) -> list[dict[str, Any]]:
    rows = []
    for split, counted in results.items():
        found = counted.scores["intervals"]
        for number, score in enumerate(counted.scores["classes"]):
            low, high = (found and found["classes"][number]) or (None, None)
            rows.append({"split": split, **score, "iou_low": low, "iou_high": high})
    return rows


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; what is not defined is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
