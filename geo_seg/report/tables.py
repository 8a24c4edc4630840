"""Tables of scores, for the console and for the report."""

from collections.abc import Sequence

from rich.table import Table

from geo_seg.checkpoints.checkpoint import CheckpointMetadata
from geo_seg.metrics.scores import ClassScore, SceneScore, SegmentationScores
from geo_seg.report import html_page

_SCORE_COLUMNS = ("F1", "precision", "recall")


def score_table(scores: SegmentationScores, title: str) -> Table:
    """Return the scores as a table for the console; undefined scores are shown as a dash."""
    miou = number(scores.miou)
    if scores.intervals and scores.intervals.miou:
        miou += f" ({interval(scores.intervals.miou)})"
    table = Table(title=f"{title}: mean IoU {miou}, accuracy {number(scores.accuracy)}")
    table.add_column("class")
    for column in ("IoU", *(["boundary IoU"] if scores.has_boundary else []), *_SCORE_COLUMNS, "pixels"):
        table.add_column(column, justify="right")
    for score in scores.classes:
        cells = [number(score.iou), *([_boundary(score)] if scores.has_boundary else [])]
        table.add_row(score.name, *cells, *_columns(score), f"{score.support:,}")
    return table


def class_score_table(scores: SegmentationScores, metadata: CheckpointMetadata, caption: str) -> str:
    """Return the scores of each class with intervals, and their mean, as HTML."""
    intervals, has_boundary = scores.intervals, scores.has_boundary
    head = ["class", "IoU", *(["95 %"] if intervals else []), *(["boundary IoU"] if has_boundary else [])]
    head += [*_SCORE_COLUMNS, "pixels"]
    rows: list[list[object]] = []
    for class_id, (score, color) in enumerate(zip(scores.classes, metadata.class_colors, strict=True)):
        rows.append(
            [
                html_page.legend_entry(color, score.name),
                number(score.iou),
                *([interval(intervals.classes[class_id])] if intervals else []),
                *([_boundary(score)] if has_boundary else []),
                *_columns(score),
                f"{score.support:,}",
            ]
        )
    rows.append(
        [
            "mean",
            number(scores.miou),
            *([interval(intervals.miou)] if intervals else []),
            *([number(scores.boundary_iou)] if has_boundary else []),
            *("" for _ in _SCORE_COLUMNS),
            f"{scores.pixels:,}",
        ]
    )
    return html_page.table(caption, head, rows)


def scene_table(scenes: Sequence[SceneScore], names: Sequence[str], caption: str, max_scenes: int) -> str:
    """Return the scores of the scenes as HTML, the worst first, at most `max_scenes` of them."""
    worst_first = sorted(scenes, key=lambda scene: 2.0 if scene.miou is None else scene.miou)
    rows = [
        [scene.name, *map(number, (scene.miou, scene.accuracy, *scene.iou)), f"{scene.pixels:,}"]
        for scene in worst_first[:max_scenes]
    ]
    head = ["scene", "mean IoU", "accuracy", *(f"IoU {name}" for name in names), "pixels"]
    return html_page.table(caption, head, rows)


def number(value: float | None) -> str:
    """Format a number with three decimals, None as a dash."""
    return "–" if value is None else f"{value:.3f}"


def percent(share: float) -> str:
    """Format a fraction as a percentage, with a decimal below 10 %."""
    return f"{100 * share:.{0 if share >= 0.1 or share == 0 else 1}f}\u00a0%"


def interval(bounds: Sequence[float] | None) -> str:
    """Format an interval as "lower to upper", None as a dash."""
    return "–" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def count_noun(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless the count is 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _columns(score: ClassScore) -> list[str]:
    """Format the scores of a class under _SCORE_COLUMNS."""
    return [number(value) for value in (score.f1, score.precision, score.recall)]


def _boundary(score: ClassScore) -> str:
    """Format the boundary IoU of a class; a dash and the boundary pixels if they are too few."""
    if score.boundary_iou is None and score.boundary_pixels:
        return f"– ({score.boundary_pixels} px)"
    return number(score.boundary_iou)
