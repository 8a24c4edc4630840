"""What the report of a run is made of: the run, its data, the machine."""

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
    """A run that has trained, or tested, and scored.

    Attributes:
        config: of the run.
        data: the scenes.
        predictor: the model.
        results: per split what was counted; the report shows windows of the first one, scenes of the last.
        facts: what metrics.json holds beside the scores.
        rows: of metrics.csv.
        seconds: how long what took, for the report alone; the other files are the same every time.
        path: the run folder.
    """

    config: TrainConfig
    data: SceneDataModule
    predictor: ScenePredictor
    results: Mapping[str, EvaluationResult]
    facts: Mapping[str, Any]
    rows: Sequence[MetricRow]
    seconds: Mapping[str, float]
    path: Path

    @property
    def split(self) -> str:
        """The split of the report."""
        return list(self.results)[-1]


def write_report(run: FinishedRun, found: Mapping[str, Any]) -> None:
    """Writes report.html and its figures.

    Args:
        run: whose report it is.
        found: the content of metrics.json.
    """
    config, data, predictor = run.config, run.data, run.predictor
    facts = predictor.checkpoint.metadata
    windows = next(iter(run.results))
    plain = redact_config(asdict(config))
    name = f"{config.dataset.name}: {config.model['name']} with {config.loss['name']}"
    content = ReportContent(
        title=f"{name}, test" if config.mode == "test" else name,
        metrics=found,
        metadata=facts,
        rows=run.rows,
        data=DataSummary(
            rows=_run_rows(config, data),
            splits={own: _split(data, own) for own in SPLITS if data.scenes[own]},
            outlines=scene_outlines(data.scenes, config.dataset.window),
            samples=picture_samples(facts, data),
        ),
        scenes=picture_scenes(predictor, data, run.split, run.path / "figures"),
        windows=picture_windows(predictor, data, windows, run.results[windows]),
        config=plain,
        changes=diff_configs(plain, default_config()),
        machine=_machine(predictor),
        timing=[(what, _duration(value)) for what, value in run.seconds.items()],
        speed=read_speed(run.path / "system.csv"),
    )
    write_report_page(run.path, content)


def _run_rows(config: TrainConfig, data: SceneDataModule) -> list[tuple[str, str]]:
    first = next(scene for own in data.scenes.values() for scene in own).image
    sizes = [(s.image.width, s.image.height) for own in data.scenes.values() for s in own]
    least, most = min(sizes, key=_area), max(sizes, key=_area)
    size = f"{least[0]} x {least[1]}" + (f" to {most[0]} x {most[1]}" if most != least else "")
    found = [
        ("bands", f"{', '.join(data.band_names)} ({data.dtype})"),
        ("sizes of the scenes", f"{size} pixels"),
        ("windows", f"{config.dataset.window} pixels to learn from, {2 * config.dataset.window} to score"),
        ("normalised", config.dataset.normalize),
        ("fingerprint", data.fingerprint),
    ]
    if first.transform:
        unit = crs_unit(CRS.from_wkt(first.crs)) if first.crs else "map units"
        found.insert(2, ("pixel size", f"{abs(first.transform[0]):g} x {abs(first.transform[4]):g} {unit}"))
    if data.leak:
        found.append(("leakage, allowed", data.leak))
    return found


def _split(data: SceneDataModule, split: str) -> tuple[int, float, list[int]]:
    counts = [0] * len(data.table.names)
    for found in data.index[split]:
        counts = [a + int(b) for a, b in zip(counts, found.class_counts.classes, strict=True)]
    size = sum(found.class_counts.pixels for found in data.index[split]) / 1e6
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
    """The lines of system.csv, numbers as they are read; none in a test, which trains nothing."""
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
