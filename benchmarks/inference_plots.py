"""Figures of docs/inference.md, drawn from what benchmarks/inference.py measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Rows = list[dict[str, Any]]
COLORS = {
    "ours": "#1b6ca8",
    "monai": "#d97925",
    "terratorch": "#5a9e6f",
    "geoai": "#a05195",
    "geo-inference": "#c2a33a",
    "grid loop": "#7a7a7a",
}


def throughput(rows: Rows, file: Path) -> None:
    """CPU seconds for a million pixels beside the model, per tool and size."""
    free = [row for row in rows if row["kind"] == "free"]
    sizes, tools = sorted({r["size"] for r in free}), list(dict.fromkeys(r["tool"] for r in free))
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for number, tool in enumerate(tools):
        found = {r["size"]: r for r in free if r["tool"] == tool}
        places = [i + number * 0.8 / len(tools) for i, size in enumerate(sizes) if size in found]
        costs = [1e6 * (r["cpu"] - r["model_cpu"]) / r["size"] ** 2 for r in found.values()]
        bars = axes.bar(places, costs, 0.75 / len(tools), label=tool, color=COLORS[tool])
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(
        [i + 0.4 * (1 - 1 / len(tools)) for i in range(len(sizes))], [f"{s} x {s}" for s in sizes]
    )
    axes.set_ylabel("CPU s per Mpx beside the model")
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=3)
    _save(figure, file)


def memory(rows: Rows, file: Path) -> None:
    """Peak memory beyond the model, against the pixels of the raster."""
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    styles = (("whole", "ours", "o-"), ("panels", "ours, max_memory=0.5", "s--"), ("monai", "MONAI", "^-"))
    for key, label, style in styles:
        found = [
            (r["width"] * r["height"] / 1e6, r[key]) for r in rows if key in r and r["width"] == r["height"]
        ]
        if found:
            color = COLORS["monai" if key == "monai" else "ours"]
            axes.plot(
                *zip(*sorted(found), strict=True), style, label=f"{label} (square rasters)", color=color
            )
    for row in rows:
        if row["width"] != row["height"]:
            place = (row["width"] * row["height"] / 1e6, row["whole"])
            axes.plot(*place, "kx")
            below = row["height"] > row["width"]  # the same raster lying on its side is near
            axes.annotate(f"{row['width']} wide,\n{row['height']} high", place, fontsize=7,
                          xytext=(5, -16 if below else 4), textcoords="offset points")  # fmt: skip
    axes.set(
        xscale="log", yscale="log", xlabel="pixels of the raster in millions", ylabel="MB beyond the model"
    )
    axes.margins(x=0.25, y=0.15)
    axes.yaxis.set_minor_formatter("")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.legend(frameon=False, fontsize=8)
    _save(figure, file)


def seams(rows: Rows, file: Path) -> None:
    """Classes that differ from one window over all, near the seams and far from them, against the cost."""
    figure, axes = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    names = [f"{row['name']}  ({row['cost']:.2f} px seen per px)" for row in rows]
    places = range(len(rows))
    for shift, key, label in ((-0.2, "near", "near the seams"), (0.2, "far", "far from them")):
        widths = [100 * row[key] for row in rows]
        color = "#1b6ca8" if key == "far" else "#d97925"
        bars = axes.barh([p + shift for p in places], widths, 0.38, label=label, color=color)
        axes.bar_label(bars, fmt="%.3f", fontsize=7, padding=2)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="% of pixels of another class")
    axes.set_xlim(left=5e-4, right=10)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)
    plt.close(figure)


PLOTS: dict[str, Callable[[Rows, Path], None]] = {"throughput": throughput, "memory": memory, "seams": seams}
