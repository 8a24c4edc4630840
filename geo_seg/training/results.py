"""Results of a run or test: scores of whole splits, tables, pictures, the report."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from rich.console import Console

from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.metrics.bootstrap import bootstrap_intervals
from geo_seg.metrics.scores import SceneScore, segmentation_scores
from geo_seg.prediction.scene_predictor import ScenePredictor
from geo_seg.report.tables import score_table
from geo_seg.runtime.files import atomic_write, write_csv
from geo_seg.training.evaluation import EvaluationResult, SceneEvaluation
from geo_seg.training.report import FinishedRun, write_report
from geo_seg.training.resume import SCORES


def evaluated_splits(data: SceneDataModule) -> list[str]:
    """Return the splits to evaluate; the last one is that of the report."""
    return ["val", "test"] if data.scenes["test"] else ["val"]


def evaluate_splits(
    trainer: pl.Trainer,
    predictor: ScenePredictor,
    data: SceneDataModule,
    splits: Sequence[str],
    config: TrainConfig,
) -> dict[str, EvaluationResult]:
    """Evaluate splits: count every valid pixel once, predicted as in a map; all processes must call it.

    Args:
        trainer: Trainer, which distributes the scenes over the processes.
        predictor: predictor with the trained model.
        data: data module with the scenes.
        splits: names of the splits, of "val" and "test".
        config: configuration; gives the options of the intervals.

    Returns:
        Result of each split; its scores also have intervals and the scores of each scene.
    """
    results = {}
    for split in splits:
        evaluation = SceneEvaluation(predictor, data, split, config.evaluation.boundary)
        trainer.test(evaluation, verbose=False)
        result = evaluation.result
        units = result.resampling_units()
        scores = replace(
            result.scores,
            intervals=bootstrap_intervals(units, config.evaluation.draws, config.seed),
            scenes=tuple(
                _scene_score(scene.name, matrix, predictor.checkpoint.metadata.class_names)
                for scene, matrix in zip(data.scenes[split], result.scene_confusions, strict=False)
            ),
        )
        results[split] = replace(result, scores=scores)
    return results


def write_results(
    run: FinishedRun, console: Console, closing_lines: Callable[[FinishedRun, bool], str]
) -> None:
    """Write tables, pictures and report, and finally metrics.json.

    Args:
        run: the finished run.
        console: console for the scores.
        closing_lines: returns the last lines on the console; with True those of summary.txt, which may be
            shared: paths are relative to the run folder and dataset.root.
    """
    results, path = run.results, run.path
    scores = {name: result.scores.to_json() for name, result in results.items()}
    metrics = {"split": run.split, **scores, **run.summary, "unreadable": run.data.unreadable}
    confusions = {
        name: [
            {"name": scene.name, "confusion": matrix.tolist()}
            for scene, matrix in zip(run.data.scenes[name], result.scene_confusions, strict=False)
        ]
        for name, result in results.items()
    }
    path.mkdir(parents=True, exist_ok=True)
    atomic_write(path / "scenes.json", json.dumps(confusions))
    write_csv(path / "scenes.csv", _scene_rows(results, run.predictor.checkpoint.metadata.class_names))
    write_csv(path / "classes.csv", _class_rows(results))
    write_report(run)
    table = score_table(results[run.split].scores, f"{run.split} scenes")
    console.print(table)
    console.print(closing_lines(run, False), soft_wrap=True, markup=False)
    text = io.StringIO()
    Console(file=text, width=100).print(table, closing_lines(run, True), soft_wrap=True, markup=False)
    atomic_write(path / "summary.txt", text.getvalue())
    atomic_write(path / SCORES, json.dumps(metrics, indent=2))


def _scene_score(name: str, confusion: NDArray[np.int64], class_names: Sequence[str]) -> SceneScore:
    scores = segmentation_scores(torch.from_numpy(confusion), class_names)
    iou = tuple(score.iou for score in scores.classes)
    return SceneScore(name, scores.pixels, scores.miou, scores.accuracy, iou)


def _scene_rows(results: Mapping[str, EvaluationResult], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "split": split,
            "scene": scene.name,
            "pixels": scene.pixels,
            "miou": scene.miou,
            "accuracy": scene.accuracy,
            **{f"iou_{name}": value for name, value in zip(names, scene.iou, strict=True)},
        }
        for split, result in results.items()
        for scene in result.scores.scenes or ()
    ]


def _class_rows(results: Mapping[str, EvaluationResult]) -> list[dict[str, Any]]:
    rows = []
    for split, result in results.items():
        intervals = result.scores.intervals
        for number, score in enumerate(result.scores.classes):
            low, high = (intervals and intervals.classes[number]) or (None, None)
            rows.append({"split": split, **score.to_json(), "iou_low": low, "iou_high": high})
    return rows
