"""Content of a run's report: the run, its data, the environment."""

import csv
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rasterio.crs import CRS

from geo_seg.config.run_config import default_config, diff_configs
from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.scenes.discovery import SPLITS
from geo_seg.prediction.scene_predictor import ScenePredictor
from geo_seg.report.locations import crs_unit, scene_outlines
from geo_seg.report.run_page import DataSummary, ReportContent, write_report_page
from geo_seg.runtime.redaction import redact_config
from geo_seg.training.callbacks.csv_metrics import MetricRow
from geo_seg.training.evaluation import EvaluationResult
from geo_seg.training.pictures import picture_samples, picture_scenes, picture_windows


@dataclass(frozen=True)
class FinishedRun:
    """A run that is trained (or tested) and evaluated.

    Attributes:
        config: configuration of the run.
        data: data module with the scenes.
        predictor: predictor with the trained model.
        results: evaluation of each split; the report shows windows of the first one, scenes of the last.
        summary: entries of metrics.json beside the scores.
        rows: rows of metrics.csv.
        seconds: durations of phases, for the report alone; the other files are reproducible.
        path: run folder.
    """

    config: TrainConfig
    data: SceneDataModule
    predictor: ScenePredictor
    results: Mapping[str, EvaluationResult]
    summary: Mapping[str, Any]
    rows: Sequence[MetricRow]
    seconds: Mapping[str, float]
    path: Path

    @property
    def split(self) -> str:
        """Name of the split that the report is about."""
        return list(self.results)[-1]


def write_report(run: FinishedRun) -> None:
    """Write report.html and its figures."""
    config, data, predictor = run.config, run.data, run.predictor
    metadata = predictor.checkpoint.metadata
    first_split = next(iter(run.results))
    shareable_config = redact_config(asdict(config))
    name = f"{config.dataset.name}: {config.model['name']} with {config.loss['name']}"
    content = ReportContent(
        title=f"{name}, test" if config.mode == "test" else name,
        split=run.split,
        scores={name: result.scores for name, result in run.results.items()},
        summary=run.summary,
        unreadable=data.unreadable,
        metadata=metadata,
        rows=run.rows,
        data=DataSummary(
            rows=_run_rows(config, data),
            splits={name: _split_summary(data, name) for name in SPLITS if data.scenes[name]},
            outlines=scene_outlines(data.scenes, config.dataset.window),
            samples=picture_samples(metadata, data),
        ),
        scenes=picture_scenes(predictor, data, run.split, run.path / "figures"),
        windows=picture_windows(predictor, data, first_split, run.results[first_split]),
        config=shareable_config,
        changes=diff_configs(shareable_config, default_config()),
        machine=_machine(predictor),
        timing=[(phase, _duration(value)) for phase, value in run.seconds.items()],
        speed=read_speed(run.path / "system.csv"),
    )
    write_report_page(run.path, content)


def _run_rows(config: TrainConfig, data: SceneDataModule) -> list[tuple[str, str]]:
    first = next(scene for scenes in data.scenes.values() for scene in scenes).image
    sizes = [(s.image.width, s.image.height) for scenes in data.scenes.values() for s in scenes]
    smallest, largest = min(sizes, key=_area), max(sizes, key=_area)
    size = f"{smallest[0]} x {smallest[1]}" + (
        f" to {largest[0]} x {largest[1]}" if largest != smallest else ""
    )
    rows = [
        ("bands", f"{', '.join(data.band_names)} ({data.dtype})"),
        ("sizes of the scenes", f"{size} pixels"),
        (
            "windows",
            f"{config.dataset.window} pixels for training, {2 * config.dataset.window} for evaluation",
        ),
        ("normalised", config.dataset.normalize),
        ("fingerprint", data.fingerprint),
    ]
    if first.transform:
        unit = crs_unit(CRS.from_wkt(first.crs)) if first.crs else "map units"
        rows.insert(2, ("pixel size", f"{abs(first.transform[0]):g} x {abs(first.transform[4]):g} {unit}"))
    if data.leak:
        rows.append(("leakage, allowed", data.leak))
    return rows


def _split_summary(data: SceneDataModule, split: str) -> tuple[int, float, list[int]]:
    counts = [0] * len(data.table.names)
    for index in data.index[split]:
        counts = [a + int(b) for a, b in zip(counts, index.class_counts.classes, strict=True)]
    size = sum(index.class_counts.pixels for index in data.index[split]) / 1e6
    return len(data.scenes[split]), size, counts


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _machine(predictor: ScenePredictor) -> list[tuple[str, str]]:
    device = predictor.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    return [
        *predictor.checkpoint.metadata.versions.items(),
        ("system", platform.platform()),
        ("processors", str(os.cpu_count())),
        ("device", f"{device.type}: {name}"),
    ]


def read_speed(file: Path) -> list[dict[str, str]]:
    """Read the rows of system.csv, numbers formatted for display; empty for a test, which trains nothing."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [
        {name: f"{float(value) + (name == 'epoch'):.4g}" if value else "–" for name, value in row.items()}
        for row in rows
    ]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
