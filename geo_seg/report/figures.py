"""Figures of the report, each with what it shows in words."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from geo_seg.metrics.scores import Scores
from geo_seg.report.tables import number, percent

_SPLITS = {"train": "#4c78a8", "val": "#f58518", "test": "#54a24b"}
_ON_MAP = {**_SPLITS, "buffer": "#c8c8c8"}
_LOSSES = ("train/loss", "val/loss")
_SCORES = ("val/miou", "val/boundary_iou", "val/accuracy")
_WIDTH = 5.4  # inches of a figure: two stand side by side, one fits a narrow window


class RenderedFigure(NamedTuple):
    """A figure.

    Attributes:
        name: of its file.
        png: the file's content.
        alt: what it shows, in words.
    """

    name: str
    png: bytes
    alt: str


def training_curves(rows: Sequence[Mapping[str, float]]) -> list[RenderedFigure]:
    """Losses and validation scores by epoch, as far as there are any."""
    drawn = []
    for name, keys, title in (("loss", _LOSSES, "Loss"), ("curves", _SCORES, "Validation scores")):
        known = [key for key in keys if any(key in row for row in rows)]
        if not known:
            continue
        figure, axes = _figure(3.4)
        ends = []
        for key in known:
            points = [(row["epoch"] + 1, row[key]) for row in rows if key in row]
            axes.plot(*zip(*points, strict=True), marker=".", label=key)
            ends.append(f"{key} from {points[0][1]:.3f} to {points[-1][1]:.3f}")
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # or one epoch has fractions
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
        if name == "curves":
            axes.set_ylim(0, 1)
        drawn.append(
            RenderedFigure(name, _png(figure), f"{title} over {len(rows)} epochs: {'; '.join(ends)}")
        )
    return drawn


def confusion_matrix(found: Scores, names: Sequence[str]) -> RenderedFigure:
    """Which classes are taken for which: shares of the labelled pixels of each class, and counts."""
    counts = np.array(found["confusion"], float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(2.2 + 0.55 * len(names), 14)
    figure, axes = _figure(side, side + 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    if len(names) <= 24:
        for row, col in np.ndindex(*shares.shape):
            color = "white" if shares[row, col] > 0.5 else "black"
            cell = f"{shares[row, col]:.2f}\n{_short(float(counts[row, col]))}"
            axes.text(col, row, cell, ha="center", va="center", color=color, fontsize=8)
    said = []
    for number_, name in enumerate(names):
        if counts[number_].any():
            others = shares[number_].copy()
            others[number_] = -1
            worst = int(others.argmax())
            taken = f", {percent(others[worst])} taken for {names[worst]}" if others[worst] > 0 else ""
            said.append(f"{name} {percent(shares[number_, number_])} right{taken}")
    return RenderedFigure("confusion", _png(figure), f"Confusion matrix by label: {'; '.join(said)}")


def reliability_diagram(found: Mapping[str, Any]) -> RenderedFigure:
    """Accuracy by confidence, before and after the temperature; the diagonal is what is wished for."""
    figure, axes = _figure(3.8)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=":")
    said = []
    for name, label, color in (("raw", "before", "#9ecae1"), ("scaled", "after", "#08519c")):
        part = found[name]
        known = [(c, a) for c, a in zip(part["confidence"], part["accuracy"], strict=True) if c is not None]
        if known:
            axes.plot(
                *zip(*known, strict=True),
                marker="o",
                color=color,
                label=f"{label}: ECE {number(part['ece'])}",
            )
        said.append(f"expected calibration error {number(part['ece'])} {label}")
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_title(f"Reliability, temperature {found['temperature']:.2f}")
    axes.legend(frameon=False, loc="upper left")
    axes.grid(alpha=0.3)
    return RenderedFigure(
        "reliability", _png(figure), f"Reliability diagram: {', '.join(said)} the temperature"
    )


def class_balance(shares: Mapping[str, Sequence[float]], names: Sequence[str]) -> RenderedFigure:
    """Shares of the classes in every split."""
    figure, axes = _figure(1.2 + 0.3 * len(names) * len(shares) ** 0.5)
    place = np.arange(len(names))
    height = 0.8 / len(shares)
    for rank, (split, values) in enumerate(shares.items()):
        axes.barh(place + rank * height, values, height, color=_SPLITS[split], label=split)
    axes.set_yticks(place + 0.4 - height / 2, names)
    axes.invert_yaxis()
    axes.set_xlabel("share of the labelled pixels")
    axes.legend(frameon=False)
    said = "; ".join(
        f"{split}: " + ", ".join(f"{n} {percent(v)}" for n, v in zip(names, values, strict=True))
        for split, values in shares.items()
    )
    return RenderedFigure("balance", _png(figure), f"Class balance. {said}")


def split_map(outlines: Mapping[str, Sequence[np.ndarray]], axis: tuple[str, str]) -> RenderedFigure:
    """Where the scenes of every split lie.

    Args:
        outlines: see geo_seg.report.locations; what comes later lies above.
        axis: what x and y are called.
    """
    figure, axes = _figure(4.6)
    keys = []
    for split, shapes in outlines.items():
        if shapes:
            color = _ON_MAP[split]
            # opaque, one above the other: a colour that shows through another is in no legend
            axes.add_collection(PolyCollection(list(shapes), facecolor=color, edgecolor=color, linewidth=0.3))
            keys.append(Patch(color=color, label=split))
    axes.autoscale_view()
    axes.set_aspect("equal", adjustable="datalim")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.tick_params(axis="x", rotation=30)
    axes.set_xlabel(axis[0])
    axes.set_ylabel(axis[1])
    figure.legend(handles=keys, loc="outside upper center", ncols=4, frameon=False)
    there = ", ".join(split for split, shapes in outlines.items() if shapes)
    return RenderedFigure("split_map", _png(figure), f"Map of the places of the splits: {there}")


def _short(count: float) -> str:
    """Return a count in at most five characters."""
    for power, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= power:
            return f"{count / power:.3g}{unit}"
    return f"{count:.0f}"


def _figure(height: float, width: float = _WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, dpi=100, format="png")
    return data.getvalue()
