"""HTML page of the leaderboard: sortable tables and figures in one self-contained file."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from geo_seg.report import html_page
from geo_seg.runtime.files import atomic_write
from geo_seg.sweeps.compare import Group, Run, swept_keys

_MAX_HEAT_MAP_ROWS = 40
_FIGURE_WIDTH = 4.4  # inches: two figures fit side by side, one is readable in a narrow window
_NOTE = (
    "Mean and standard deviation over the runs of each choice. Behind the best: difference of the mean IoU "
    "with an interval that holds for all comparisons together with 95 %, by resampling the validation scenes "
    "and the repetitions; real means that the interval excludes 0."
)
_SORT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentElement, table = head.closest("table"), body = table.tBodies[0];
  const down = head.getAttribute("aria-sort") !== "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[head.cellIndex].textContent;
  const number = text => text.trim() !== "" && !isNaN(text);
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (number(x) !== number(y)) return number(x) ? -1 : 1;  // what has no number stays below
    const order = number(x) ? x - y : x.localeCompare(y);
    return down ? -order : order;
  });
  body.append(...rows);
};"""


def write_page(file: Path, title: str, runs: Sequence[Run], groups: Sequence[Group]) -> None:
    """Write the page.

    Args:
        file: the HTML file, written atomically.
        title: title of the page.
        runs: all runs.
        groups: finished runs grouped by their choices, best group first.
    """
    done = [run for group in groups for run in group.runs]
    keys = swept_keys(runs)
    bar_keys = [key for key in keys if len({run.choices.get(key) for run in done}) > 1]
    bars = [_image(_bars(done, key), f"mean IoU by {key}") for key in bar_keys]
    with_curve = [run for run in runs if run.curve]
    scored = [run for run in done if "val" in run.scores]
    curves = _image(_curves(with_curve), "validation mean IoU of every run by epoch") if with_curve else ""
    classes = ""
    if scored:
        heat_map = _image(_heat_map(scored[:_MAX_HEAT_MAP_ROWS]), "IoU of every class in every run")
        classes = f'<div class="wide">{heat_map}</div>'
    sections = [
        ("Ranking", _group_table(groups)),
        ("Choices", html_page.row(bars) if bars else ""),
        ("Curves", curves),
        ("Classes", classes),
        ("Runs", f"{_run_table(runs, keys)}<script>{_SORT}</script>"),
    ]
    atomic_write(file, html_page.render_page(title, html_page.paragraph(_NOTE), sections), concurrent=True)


def _group_table(groups: Sequence[Group]) -> str:
    keys = list(groups[0].choices) if groups else []
    rows = [
        [str(position), *group.choices.values(), str(len(group.runs)), group.score, group.verdict]
        for position, group in enumerate(groups, 1)
    ]
    head = ["place", *keys, "runs", "validation mean IoU", "behind the best"]
    return _sortable_table("Runs by their choices. Click on a heading to sort.", head, rows)


def _run_table(runs: Sequence[Run], keys: Sequence[str]) -> str:
    rows = []
    for run in runs:
        scores = [run.scores[split].miou if split in run.scores else None for split in ("val", "test")]
        numbers = ["" if value is None else f"{value:.4f}" for value in (run.outcome.value, *scores)]
        choices = [run.choices.get(key, "") for key in keys]
        note = html_page.Markup(f'<span class="note">{html_page.text(run.error)}</span>') if run.error else ""
        rows.append([run.name, run.outcome.status, *choices, *numbers, f"{run.outcome.seconds:.0f}", note])
    head = ["run", "status", *keys, "best val mIoU", "val mIoU", "test mIoU", "seconds", "note"]
    return _sortable_table("All runs. Click on a heading to sort.", head, rows)


def _sortable_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    buttons = [html_page.Markup(f"<button>{html_page.text(name)}</button>") for name in head]
    return html_page.table(caption, buttons, rows)


def _bars(runs: Sequence[Run], key: str) -> Figure:
    values: dict[str, list[float]] = {}
    for run in runs:
        if run.outcome.value is not None:
            values.setdefault(run.choices.get(key, "–"), []).append(run.outcome.value)
    names = sorted(values, key=_sort_key)
    figure = Figure(figsize=(_FIGURE_WIDTH, 1.1 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), [np.mean(values[name]) for name in names], color="#9ecae1")
    for position, name in enumerate(names):
        axes.plot(values[name], [position] * len(values[name]), "o", color="#08519c", markersize=4)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_title(key, loc="left")
    axes.set_xlabel("val mean IoU")
    return figure


def _curves(runs: Sequence[Run]) -> Figure:
    has_legend = len(runs) <= 20
    figure = Figure(figsize=(_FIGURE_WIDTH, 3.2 + 0.19 * len(runs) * has_legend), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        style = "--" if run.outcome.status == "pruned" else "-"
        axes.plot(*zip(*run.curve, strict=True), style, marker=".", label=run.name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("val mean IoU")
    axes.grid(alpha=0.3)
    if has_legend:
        figure.legend(frameon=False, fontsize=9, loc="outside lower center")
    return figure


def _heat_map(runs: Sequence[Run]) -> Figure:
    class_ious = [{score.name: score.iou for score in run.scores["val"].classes} for run in runs]
    names = list(dict.fromkeys(name for ious in class_ious for name in ious))  # data sets may be swept, too
    values = np.array([[ious.get(name) for name in names] for ious in class_ious], float)  # None becomes NaN
    figure = Figure(figsize=(3 + 0.9 * len(names), 1.2 + 0.35 * len(runs)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(runs)), [run.name for run in runs])
    for row, col in np.ndindex(*values.shape):
        color = "black" if values[row, col] > 0.6 else "white"
        if np.isfinite(values[row, col]):
            axes.text(col, row, f"{values[row, col]:.2f}", ha="center", va="center", color=color, fontsize=8)
    return figure


def _image(figure: Figure, alt: str) -> str:
    data = io.BytesIO()
    figure.savefig(data, dpi=100, format="png")
    return html_page.image(data.getvalue(), alt)


def _sort_key(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name
