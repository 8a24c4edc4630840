"""The page of a run: report.html, one file that opens offline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from geo_seg.checkpoints.checkpoint import CheckpointMetadata
from geo_seg.config.run_config import ABSENT
from geo_seg.metrics.scores import SegmentationScores
from geo_seg.report import figures, html_page
from geo_seg.report.figures import RenderedFigure
from geo_seg.report.locations import Outlines
from geo_seg.report.pictures import ERROR_LEGEND, ReportWindow
from geo_seg.report.tables import class_score_table, count_noun, interval, number, percent, scene_table
from geo_seg.runtime.files import atomic_write

_MAX_SCENES_SHOWN = 50  # in the table; scenes.csv has all of them
_MAX_SPEED_EPOCHS = 10  # in the table of speed


@dataclass(frozen=True)
class DataSummary:
    """Content of the section on the data set.

    Attributes:
        rows: names and values of its properties.
        splits: number of scenes, megapixels, and labelled pixels of each class, for each split.
        outlines: see `scene_outlines`; None without georeference.
        samples: some training windows.
    """

    rows: Sequence[tuple[str, str]]
    splits: Mapping[str, tuple[int, float, Sequence[int]]]
    outlines: tuple[Outlines, tuple[str, str]] | None
    samples: Sequence[ReportWindow]


@dataclass(frozen=True)
class ReportContent:
    """Content of the page.

    Attributes:
        title: title of the page.
        split: the split that the page is about.
        scores: scores of each evaluated split.
        summary: entries of metrics.json beside the scores.
        unreadable: windows that could not be read, by the file's name.
        metadata: metadata of the checkpoint.
        rows: rows of metrics.csv.
        data: section on the data set.
        scenes: windows in the centre of scenes, with predictions.
        windows: the best, median and worst windows.
        config: configuration of the run.
        changes: key, default and value of each option that differs from the default configuration.
        machine: names and values of the environment.
        timing: phases and their durations.
        speed: measurements of each epoch, by name; the same names in each.
    """

    title: str
    split: str
    scores: Mapping[str, SegmentationScores]
    summary: Mapping[str, Any]
    unreadable: Mapping[str, int]
    metadata: CheckpointMetadata
    rows: Sequence[Mapping[str, float]]
    data: DataSummary
    scenes: Sequence[ReportWindow]
    windows: Sequence[ReportWindow]
    config: Mapping[str, Any]
    changes: Sequence[tuple[str, object, object]]
    machine: Sequence[tuple[str, str]]
    timing: Sequence[tuple[str, str]]
    speed: Sequence[Mapping[str, str]]


def write_report_page(folder: Path, content: ReportContent) -> None:
    """Write report.html, and the PNGs of its figures into figures/.

    Args:
        folder: the run folder.
        content: content of the page.
    """
    figure_folder = folder / "figures"
    figure_folder.mkdir(exist_ok=True)
    metadata, split = content.metadata, content.split
    scores = content.scores[split]
    rendered = {
        "Curves": figures.training_curves(content.rows),
        "Confusion": [figures.confusion_matrix(scores.confusion, metadata.class_names)],
        "Calibration": [figures.reliability_diagram(scores.calibration)] if scores.calibration else [],
        "Data": _data_figures(content.data, metadata.class_names),
    }
    for figure in (figure for section in rendered.values() for figure in section):
        atomic_write(figure_folder / f"{figure.name}.png", figure.png)
    sections = [
        ("Scores", _scores(content)),
        ("Scenes", _scenes(scores, metadata, split)),
        ("Curves", _figure_row(rendered["Curves"])),
        ("Confusion", _figure_row(rendered["Confusion"])),
        (
            "Calibration",
            _figure_row(rendered["Calibration"]) + _calibration(scores, metadata, split),
        ),
        ("Windows", _window_rows("Best, median and worst windows by mean IoU.", content.windows, metadata)),
        ("Predictions", _window_rows(f"The middle of {split} scenes.", content.scenes, metadata)),
        ("Data", _data(content.data, metadata, rendered["Data"])),
        ("Configuration", _configuration(content)),
        (
            "Timing",
            html_page.table("How long it took", ["what", "time"], content.timing) + _speed(content.speed),
        ),
        (
            "Environment",
            html_page.table("Programs and machine", ["what", "which"], content.machine, words=True),
        ),
    ]
    atomic_write(folder / "report.html", html_page.render_page(content.title, _lead(content), sections))


def _lead(content: ReportContent) -> str:
    scores, summary = content.scores[content.split], content.summary
    intervals = scores.intervals
    interval_text = f" ({interval(intervals.miou)} with {intervals.level:.0%})" if intervals else ""
    text = (
        f"Mean IoU {number(scores.miou)}{interval_text} and accuracy {number(scores.accuracy)} on "
        f"{scores.pixels:,} labelled pixels of the {content.split} scenes"
    )
    if "epochs" in summary:
        text += (
            f"; best mean IoU on the validation scenes {number(summary['best_val_miou'])}; "
            f"{count_noun(summary['epochs'], 'epoch')}, {count_noun(summary['steps'], 'step')}. "
            f"{_chosen(summary['predicted_with'])}"
        )
    else:
        text += f" with {summary['checkpoint']}."
    lead = html_page.paragraph(text)
    if content.unreadable:
        counts = ", ".join(f"{name} ({count})" for name, count in content.unreadable.items())
        lead += html_page.paragraph(f"Windows that could not be read and were ignored: {counts}.")
    return lead


def _chosen(choice: Mapping[str, Any]) -> str:
    """Return which weights predicted, and why."""
    which = {"last": "the last epoch", "highest": "the epoch of the highest validation score"}
    return f"Predicted with the weights of {which[choice['checkpoint']]}: {choice['reason']}."


def _scores(content: ReportContent) -> str:
    tables = []
    for split in ("test", "val"):
        if split in content.scores:
            scores = content.scores[split]
            intervals = scores.intervals
            caption = f"Scores of the {split} scenes"
            if intervals:
                units = f"{intervals.units} {intervals.unit}"
                caption += f"; 95 % intervals from {intervals.draws} draws of {units}"
            else:
                caption += "; no intervals: fewer than 5 scenes and windows, or evaluation.draws=0"
            tables.append(class_score_table(scores, content.metadata, caption))
    return "".join(tables)


def _scenes(scores: SegmentationScores, metadata: CheckpointMetadata, split: str) -> str:
    scenes = scores.scenes or ()
    count = len(scenes)
    caption = f"Scores of the {split} scenes, the worst first"
    if count > _MAX_SCENES_SHOWN:
        caption += f"; {_MAX_SCENES_SHOWN} of {count}, scenes.csv has all"
    return scene_table(scenes, metadata.class_names, caption, _MAX_SCENES_SHOWN)


def _calibration(scores: SegmentationScores, metadata: CheckpointMetadata, split: str) -> str:
    calibration = scores.calibration
    if calibration is None:
        return ""
    raw, scaled = calibration.raw, calibration.scaled
    rows = [
        ["expected calibration error", number(raw.ece), number(scaled.ece)],
        ["negative log-likelihood", number(raw.nll), number(scaled.nll)],
    ]
    text = f"The temperature, {calibration.temperature:.3f}, was fitted to the validation scenes"
    if metadata.mode == "binary":
        text += f", and so was the threshold, {calibration.threshold:.3f}"
    text += "; prediction uses the fitted values."
    head = ["", "before the temperature", "after it"]
    return html_page.paragraph(text) + html_page.table(f"Calibration on the {split} scenes", head, rows)


def _data_figures(data: DataSummary, names: Sequence[str]) -> list[RenderedFigure]:
    fractions = {
        split: [count / max(sum(counts), 1) for count in counts]
        for split, (_, _, counts) in data.splits.items()
    }
    rendered = [figures.class_balance(fractions, names)]
    if data.outlines:
        rendered.append(figures.split_map(*data.outlines))
    return rendered


def _data(data: DataSummary, metadata: CheckpointMetadata, rendered: Sequence[RenderedFigure]) -> str:
    rows = []
    for split, (scenes, size, counts) in data.splits.items():
        total = max(sum(counts), 1)
        rows.append([split, scenes, f"{size:.3g}", f"{sum(counts):,}", *(percent(n / total) for n in counts)])
    head = ["split", "scenes", "megapixels", "labelled pixels", *metadata.class_names]
    parts = [
        html_page.table("The data set", ["what", "which"], data.rows, words=True),
        html_page.table("Splits, and shares of the classes in the labelled pixels", head, rows),
        _figure_row(rendered),
    ]
    if not data.outlines:
        parts.append(html_page.paragraph("The scenes have no georeference, so there is no map of them."))
    return "".join(parts) + _window_rows(
        "Windows that training sees, before augmentation.", data.samples, metadata
    )


def _configuration(content: ReportContent) -> str:
    rows = [[key, _value(default), _value(value)] for key, default, value in content.changes]
    head = ["key", "default", "this run"]
    table = (
        html_page.table("What differs from the default configuration", head, rows, words=True) if rows else ""
    )
    full_config = yaml.safe_dump(dict(content.config), sort_keys=False, allow_unicode=True)
    return table + html_page.details("The whole configuration", full_config)


def _speed(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    caption = (
        "What the machine did in the last epochs" if len(rows) > _MAX_SPEED_EPOCHS else "What the machine did"
    )
    names = [name.replace("_", " ") for name in rows[0]]
    return html_page.table(caption, names, [list(row.values()) for row in rows[-_MAX_SPEED_EPOCHS:]])


def _value(value: object) -> str:
    if value == ABSENT:
        return ABSENT
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def _figure_row(rendered: Sequence[RenderedFigure]) -> str:
    return html_page.row(html_page.image(figure.png, figure.alt) for figure in rendered) if rendered else ""


def _window_rows(title: str, windows: Sequence[ReportWindow], metadata: CheckpointMetadata) -> str:
    if not windows:
        return ""
    parts = [html_page.paragraph(title), html_page.legend(metadata.class_colors, metadata.class_names)]
    if any(name == "errors" for name, _ in windows[0].panels):
        parts.append(
            html_page.legend([color for _, color in ERROR_LEGEND], [name for name, _ in ERROR_LEGEND])
        )
    for window in windows:
        parts.append(f"<h3>{html_page.text(window.title)}</h3>{html_page.paragraph(window.location)}")
        panes = (
            html_page.image(png, f"{name} of {window.title}", name, "pane") for name, png in window.panels
        )
        parts.append(html_page.row(panes))
    return "".join(parts)
