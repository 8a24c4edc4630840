"""Scores as tables, for the terminal and for the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from geo_seg.checkpoints.checkpoint import CheckpointMetadata
from geo_seg.metrics.scores import Scores
from geo_seg.report import html_page as markup

_COLUMNS = {"f1": "F1", "precision": "precision", "recall": "recall"}


def score_table(found: Scores, title: str) -> Table:
    """Scores for the terminal; what neither labels nor predictions hold is shown as a dash."""
    sure = (found.get("intervals") or {}).get("miou")
    table = Table(
        title=f"{title}: mean IoU {_with_interval(found['miou'], sure)}, accuracy {number(found['accuracy'])}"
    )
    table.add_column("class")
    edges = "boundary_iou" in found
    for column in ("IoU", *(["boundary IoU"] if edges else []), *_COLUMNS.values(), "pixels"):
        table.add_column(column, justify="right")
    for row in found["classes"]:
        cells = [number(row["iou"]), *([_boundary(row)] if edges else [])]
        table.add_row(row["name"], *cells, *(number(row[key]) for key in _COLUMNS), f"{row['support']:,}")
    return table


def class_score_table(found: Scores, facts: CheckpointMetadata, caption: str) -> str:
    """Scores of every class with intervals, and the mean."""
    sure = found["intervals"]
    edges = "boundary_iou" in found
    head = ["class", "IoU", *(["95 %"] if sure else []), *(["boundary IoU"] if edges else [])]
    head += [*_COLUMNS.values(), "pixels"]
    rows: list[list[object]] = []
    for place, (row, color) in enumerate(zip(found["classes"], facts.class_colors, strict=True)):
        rows.append(
            [
                markup.legend_entry(color, row["name"]),
                number(row["iou"]),
                *([interval(sure["classes"][place])] if sure else []),
                *([_boundary(row)] if edges else []),
                *(number(row[key]) for key in _COLUMNS),
                f"{row['support']:,}",
            ]
        )
    rows.append(
        [
            "mean",
            number(found["miou"]),
            *([interval(sure["miou"])] if sure else []),
            *([number(found["boundary_iou"])] if edges else []),
            *("" for _ in _COLUMNS),
            f"{found['pixels']:,}",
        ]
    )
    return markup.table(caption, head, rows)


def scene_table(found: Scores, names: Sequence[str], caption: str, most: int) -> str:
    """Scores of the scenes, the worst first, at most so many."""
    scenes = sorted(found["scenes"], key=lambda scene: 2.0 if scene["miou"] is None else scene["miou"])
    rows = [
        [
            scene["name"],
            *map(number, (scene["miou"], scene["accuracy"], *scene["iou"])),
            f"{scene['pixels']:,}",
        ]
        for scene in scenes[:most]
    ]
    head = ["scene", "mean IoU", "accuracy", *(f"IoU {name}" for name in names), "pixels"]
    return markup.table(caption, head, rows)


def number(value: float | None) -> str:
    """Three digits, or a dash for what is not defined."""
    return "–" if value is None else f"{value:.3f}"


def percent(share: float) -> str:
    """A share in per cent, with a digit where it is small."""
    return f"{100 * share:.{0 if share >= 0.1 or share == 0 else 1}f}\u00a0%"


def interval(found: Sequence[float] | None) -> str:
    """Lower to upper end."""
    return "–" if found is None else f"{found[0]:.3f} to {found[1]:.3f}"


def count_noun(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless there is one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _boundary(row: Mapping[str, Any]) -> str:
    """Boundary IoU of a class; a dash and the pixels of its boundary where they are too few for one."""
    if row["boundary_iou"] is None and row.get("boundary_pixels"):
        return f"– ({row['boundary_pixels']} px)"
    return number(row["boundary_iou"])


def _with_interval(value: Any, found: Sequence[float] | None) -> str:
    return number(value) + (f" ({interval(found)})" if found else "")
