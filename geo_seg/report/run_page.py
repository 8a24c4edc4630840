"""The page that a run leaves: report.html, in one file that opens offline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from geo_seg.checkpoints.checkpoint import CheckpointMetadata
from geo_seg.config.run_config import ABSENT
from geo_seg.report import figures
from geo_seg.report import html_page as markup
from geo_seg.report.figures import RenderedFigure
from geo_seg.report.locations import Outlines
from geo_seg.report.pictures import ERROR_LEGEND, ReportWindow
from geo_seg.report.tables import class_score_table, count_noun, interval, number, percent, scene_table
from geo_seg.runtime.files import atomic_write

_MOST = 50  # scenes in the table; scenes.csv has all of them
_EPOCHS = 10  # of which the speed is shown


@dataclass(frozen=True)
class DataSummary:
    """What a data set consists of.

    Attributes:
        rows: lines of name and value.
        splits: per split the number of scenes, megapixels, and labelled pixels of each class.
        outlines: see geo_seg.report.locations; None without georeference.
        samples: training windows.
    """

    rows: Sequence[tuple[str, str]]
    splits: Mapping[str, tuple[int, float, Sequence[int]]]
    outlines: tuple[Outlines, tuple[str, str]] | None
    samples: Sequence[ReportWindow]


@dataclass(frozen=True)
class ReportContent:
    """All that the page shows.

    Attributes:
        title: of the page.
        found: the content of metrics.json.
        metadata: of the checkpoint.
        rows: the lines of metrics.csv.
        data: the data set.
        scenes: predictions in the middle of scenes.
        windows: the best, median and worst windows.
        config: the configuration of the run.
        changes: key, default and value of what differs from the default configuration.
        machine: lines of name and value.
        timing: lines of what and how long.
        speed: per epoch what was measured, by name; the same names in each.
    """

    title: str
    found: Mapping[str, Any]
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
    """Writes report.html, and the PNGs of its figures into figures/.

    Args:
        folder: of the run.
        content: what is shown.
    """
    drawings = folder / "figures"
    drawings.mkdir(exist_ok=True)
    found, facts, split = content.found, content.metadata, content.found["split"]
    scores = found[split]
    drawn = {
        "Curves": figures.training_curves(content.rows),
        "Confusion": [figures.confusion_matrix(scores, facts.class_names)],
        "Calibration": [figures.reliability_diagram(scores["calibration"])],
        "Data": _data_figures(content.data, facts.class_names),
    }
    for one in (one for several in drawn.values() for one in several):
        atomic_write(drawings / f"{one.name}.png", one.png)
    sections = [
        ("Scores", _scores(content)),
        ("Scenes", _scenes(scores, facts, split)),
        ("Curves", _drawn(drawn["Curves"])),
        ("Confusion", _drawn(drawn["Confusion"])),
        ("Calibration", _drawn(drawn["Calibration"]) + _calibration(scores["calibration"], facts, split)),
        ("Windows", _shown("Best, median and worst windows by mean IoU.", content.windows, facts)),
        ("Predictions", _shown(f"The middle of {split} scenes.", content.scenes, facts)),
        ("Data", _data(content.data, facts, drawn["Data"])),
        ("Configuration", _configuration(content)),
        (
            "Timing",
            markup.table("How long it took", ["what", "time"], content.timing) + _speed(content.speed),
        ),
        ("Environment", markup.table("Programs and machine", ["what", "which"], content.machine, words=True)),
    ]
    atomic_write(folder / "report.html", markup.render_page(content.title, _lead(found), sections))


def _lead(found: Mapping[str, Any]) -> str:
    scores = found[found["split"]]
    sure = scores["intervals"]
    between = f" ({interval(sure['miou'])} with {sure['level']:.0%})" if sure else ""
    said = (
        f"Mean IoU {number(scores['miou'])}{between} and accuracy {number(scores['accuracy'])} on "
        f"{scores['pixels']:,} labelled pixels of the {found['split']} scenes"
    )
    if "epochs" in found:
        said += (
            f"; best mean IoU on the validation scenes {number(found['best_val_miou'])}; "
            f"{count_noun(found['epochs'], 'epoch')}, {count_noun(found['steps'], 'step')}."
        )
    else:
        said += f" with {found['checkpoint']}."
    lead = markup.paragraph(said)
    if found["unreadable"]:
        listed = ", ".join(f"{name} ({count})" for name, count in found["unreadable"].items())
        lead += markup.paragraph(f"Windows that could not be read and were ignored: {listed}.")
    return lead


def _scores(content: ReportContent) -> str:
    tables = []
    for split in ("test", "val"):
        if split in content.found:
            scores = content.found[split]
            sure = scores["intervals"]
            caption = f"Scores of the {split} scenes"
            if sure:
                caption += f"; 95 % intervals from {sure['draws']} draws of {sure['units']} {sure['unit']}"
            else:
                caption += "; no intervals: fewer than 5 scenes and windows, or evaluation.draws=0"
            tables.append(class_score_table(scores, content.metadata, caption))
    return "".join(tables)


def _scenes(scores: Mapping[str, Any], facts: CheckpointMetadata, split: str) -> str:
    count = len(scores["scenes"])
    caption = f"Scores of the {split} scenes, the worst first"
    if count > _MOST:
        caption += f"; {_MOST} of {count}, scenes.csv has all"
    return scene_table(dict(scores), facts.class_names, caption, _MOST)


def _calibration(found: Mapping[str, Any], facts: CheckpointMetadata, split: str) -> str:
    rows = [
        [name, number(found["raw"][key]), number(found["scaled"][key])]
        for key, name in (("ece", "expected calibration error"), ("nll", "negative log-likelihood"))
    ]
    said = f"The temperature, {found['temperature']:.3f}, was fitted to the validation scenes"
    if facts.mode == "binary":
        said += f", and so was the threshold, {found['threshold']:.3f}"
    said += "; prediction uses what was fitted."
    head = ["", "before the temperature", "after it"]
    return markup.paragraph(said) + markup.table(f"Calibration on the {split} scenes", head, rows)


def _data_figures(data: DataSummary, names: Sequence[str]) -> list[RenderedFigure]:
    shares = {
        split: [count / max(sum(counts), 1) for count in counts]
        for split, (_, _, counts) in data.splits.items()
    }
    drawn = [figures.class_balance(shares, names)]
    if data.outlines:
        drawn.append(figures.split_map(*data.outlines))
    return drawn


def _data(data: DataSummary, facts: CheckpointMetadata, drawn: Sequence[RenderedFigure]) -> str:
    rows = []
    for split, (scenes, size, counts) in data.splits.items():
        total = max(sum(counts), 1)
        rows.append([split, scenes, f"{size:.3g}", f"{sum(counts):,}", *(percent(n / total) for n in counts)])
    head = ["split", "scenes", "megapixels", "labelled pixels", *facts.class_names]
    parts = [
        markup.table("The data set", ["what", "which"], data.rows, words=True),
        markup.table("Splits, and shares of the classes in the labelled pixels", head, rows),
        _drawn(drawn),
    ]
    if not data.outlines:
        parts.append(markup.paragraph("The scenes have no georeference, so there is no map of them."))
    return "".join(parts) + _shown("Windows that training sees, before augmentation.", data.samples, facts)


def _configuration(content: ReportContent) -> str:
    rows = [[key, _value(default), _value(value)] for key, default, value in content.changes]
    head = ["key", "default", "this run"]
    table = (
        markup.table("What differs from the default configuration", head, rows, words=True) if rows else ""
    )
    whole = yaml.safe_dump(dict(content.config), sort_keys=False, allow_unicode=True)
    return table + markup.details("The whole configuration", whole)


def _speed(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    caption = "What the machine did in the last epochs" if len(rows) > _EPOCHS else "What the machine did"
    names = [name.replace("_", " ") for name in rows[0]]
    return markup.table(caption, names, [list(row.values()) for row in rows[-_EPOCHS:]])


def _value(value: object) -> str:
    if value == ABSENT:
        return ABSENT
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def _drawn(several: Sequence[RenderedFigure]) -> str:
    if not several:
        return ""
    return markup.row(markup.image(one.png, one.alt) for one in several)


def _shown(title: str, several: Sequence[ReportWindow], facts: CheckpointMetadata) -> str:
    if not several:
        return ""
    parts = [markup.paragraph(title), markup.legend(facts.class_colors, facts.class_names)]
    if any(name == "errors" for name, _ in several[0].panels):
        parts.append(markup.legend([color for _, color in ERROR_LEGEND], [name for name, _ in ERROR_LEGEND]))
    for one in several:
        parts.append(f"<h3>{markup.text(one.title)}</h3>{markup.paragraph(one.place)}")
        panes = (markup.image(png, f"{name} of {one.title}", name, "pane") for name, png in one.panels)
        parts.append(markup.row(panes))
    return "".join(parts)
