"""Figures of the report, each with a description in words."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from geo_seg.metrics.scores import CalibrationScores
from geo_seg.report.tables import number, percent

_SPLIT_COLORS = {"train": "#4c78a8", "val": "#f58518", "test": "#54a24b"}
_MAP_COLORS = {**_SPLIT_COLORS, "buffer": "#c8c8c8"}
_LOSS_KEYS = ("train/loss", "val/loss")
_SCORE_KEYS = ("val/miou", "val/boundary_iou", "val/accuracy")
_WIDTH_INCHES = 5.4  # two figures stand side by side, one fits a narrow window


class RenderedFigure(NamedTuple):
    """A figure as a file.

    Attributes:
        name: name of the file, without suffix.
        png: the file's content.
        alt: what the figure shows, for readers who don't see it.
    """

    name: str
    png: bytes
    alt: str


def training_curves(rows: Sequence[Mapping[str, float]]) -> list[RenderedFigure]:
    """Draw losses and validation scores by epoch, if there are any."""
    rendered = []
    for name, keys, title in (("loss", _LOSS_KEYS, "Loss"), ("curves", _SCORE_KEYS, "Validation scores")):
        logged_keys = [key for key in keys if any(key in row for row in rows)]
        if not logged_keys:
            continue
        figure, axes = _figure(3.4)
        changes = []
        for key in logged_keys:
            points = [(row["epoch"] + 1, row[key]) for row in rows if key in row]
            axes.plot(*zip(*points, strict=True), marker=".", label=key)
            changes.append(f"{key} from {points[0][1]:.3f} to {points[-1][1]:.3f}")
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.xaxis.set_major_locator(
            MaxNLocator(integer=True, min_n_ticks=1)
        )  # a single epoch would get fractional ticks
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
        if name == "curves":
            axes.set_ylim(0, 1)
        rendered.append(
            RenderedFigure(name, _png(figure), f"{title} over {len(rows)} epochs: {'; '.join(changes)}")
        )
    return rendered


def confusion_matrix(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> RenderedFigure:
    """Draw a confusion matrix: fractions of the labelled pixels of each class, and counts."""
    counts = np.array(matrix, float)
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(2.2 + 0.55 * len(names), 14)
    figure, axes = _figure(side, side + 1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    if len(names) <= 24:
        for row, col in np.ndindex(*fractions.shape):
            color = "white" if fractions[row, col] > 0.5 else "black"
            cell = f"{fractions[row, col]:.2f}\n{_short(float(counts[row, col]))}"
            axes.text(col, row, cell, ha="center", va="center", color=color, fontsize=8)
    descriptions = []
    for label, name in enumerate(names):
        if counts[label].any():
            off_diagonal = fractions[label].copy()
            off_diagonal[label] = -1
            confused = int(off_diagonal.argmax())
            confusion = (
                f", {percent(off_diagonal[confused])} taken for {names[confused]}"
                if off_diagonal[confused] > 0
                else ""
            )
            descriptions.append(f"{name} {percent(fractions[label, label])} right{confusion}")
    return RenderedFigure("confusion", _png(figure), f"Confusion matrix by label: {'; '.join(descriptions)}")


def reliability_diagram(calibration: CalibrationScores) -> RenderedFigure:
    """Draw accuracy by confidence, before and after temperature scaling; the diagonal is ideal."""
    figure, axes = _figure(3.8)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=":")
    descriptions = []
    for bins, label, color in (
        (calibration.raw, "before", "#9ecae1"),
        (calibration.scaled, "after", "#08519c"),
    ):
        points = [(c, a) for c, a in zip(bins.confidence, bins.accuracy, strict=True) if c is not None]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                marker="o",
                color=color,
                label=f"{label}: ECE {number(bins.ece)}",
            )
        descriptions.append(f"expected calibration error {number(bins.ece)} {label}")
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_title(f"Reliability, temperature {calibration.temperature:.2f}")
    axes.legend(frameon=False, loc="upper left")
    axes.grid(alpha=0.3)
    return RenderedFigure(
        "reliability", _png(figure), f"Reliability diagram: {', '.join(descriptions)} the temperature"
    )


def class_balance(fractions: Mapping[str, Sequence[float]], names: Sequence[str]) -> RenderedFigure:
    """Draw the fractions of the classes in each split."""
    figure, axes = _figure(1.2 + 0.3 * len(names) * len(fractions) ** 0.5)
    positions = np.arange(len(names))
    height = 0.8 / len(fractions)
    for index, (split, values) in enumerate(fractions.items()):
        axes.barh(positions + index * height, values, height, color=_SPLIT_COLORS[split], label=split)
    axes.set_yticks(positions + 0.4 - height / 2, names)
    axes.invert_yaxis()
    axes.set_xlabel("fraction of the labelled pixels")
    axes.legend(frameon=False)
    description = "; ".join(
        f"{split}: " + ", ".join(f"{n} {percent(v)}" for n, v in zip(names, values, strict=True))
        for split, values in fractions.items()
    )
    return RenderedFigure("balance", _png(figure), f"Class balance. {description}")


def split_map(outlines: Mapping[str, Sequence[np.ndarray]], axis_labels: tuple[str, str]) -> RenderedFigure:
    """Draw where the scenes of each split lie.

    Args:
        outlines: rectangles of each split, see `scene_outlines`; later ones are drawn above.
        axis_labels: labels of x and y.
    """
    figure, axes = _figure(4.6)
    handles = []
    for split, rectangles in outlines.items():
        if rectangles:
            color = _MAP_COLORS[split]
            # opaque: a mixture of two colours is in no legend
            axes.add_collection(
                PolyCollection(list(rectangles), facecolor=color, edgecolor=color, linewidth=0.3)
            )
            handles.append(Patch(color=color, label=split))
    axes.autoscale_view()
    axes.set_aspect("equal", adjustable="datalim")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.tick_params(axis="x", rotation=30)
    axes.set_xlabel(axis_labels[0])
    axes.set_ylabel(axis_labels[1])
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    split_names = ", ".join(split for split, rectangles in outlines.items() if rectangles)
    return RenderedFigure("split_map", _png(figure), f"Map of the splits: {split_names}")


def _short(count: float) -> str:
    """Return a count in at most five characters."""
    for power, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= power:
            return f"{count / power:.3g}{unit}"
    return f"{count:.0f}"


def _figure(height: float, width: float = _WIDTH_INCHES) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, dpi=100, format="png")
    return data.getvalue()
