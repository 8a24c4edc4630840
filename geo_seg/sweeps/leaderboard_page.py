"""The leaderboard as one page that opens offline: a table to sort, and figures."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from geo_seg.report import html_page as markup
from geo_seg.report.html_page import WIDE
from geo_seg.runtime.files import atomic_write
from geo_seg.sweeps.compare import Group, Run, swept_keys

_MOST = 40  # rows of the heat map
_WIDTH = 4.4  # inches of a figure: two stand side by side, one is readable in a narrow window
_STYLE = f"""{WIDE}
body{{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#222}}
table{{border-collapse:collapse}}
td,th{{padding:.25rem .8rem;text-align:left;border-bottom:1px solid #ddd;white-space:nowrap}}
th button{{all:unset;cursor:pointer;font-weight:bold}}
th button:focus-visible{{outline:2px solid #06c}}
th[aria-sort=ascending] button::after{{content:" ▲"}}
th[aria-sort=descending] button::after{{content:" ▼"}}
td:last-child{{white-space:normal}}
img{{max-width:100%}}
.wide img{{max-width:none;mix-blend-mode:multiply}}"""
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
    """Writes the page.

    Args:
        file: the HTML file; it is never half-written.
        title: of the page.
        runs: all runs.
        groups: the finished ones by their choices, the best first.
    """
    done = [run for group in groups for run in group.runs]
    keys = swept_keys(runs)
    parts = [f"<h1>{html.escape(title)}</h1>", _group_table(groups)]
    if done:
        bars = [key for key in keys if len({run.choices.get(key) for run in done}) > 1]
        if bars:
            drawn_bars = (_image(_bars(done, key), f"mean IoU by {key}") for key in bars)
            parts += ["<h2>Choices</h2>", markup.row(drawn_bars)]
    drawn = [run for run in runs if run.curve]
    if drawn:
        parts += ["<h2>Curves</h2>", _image(_curves(drawn), "validation mean IoU of every run by epoch")]
    scored = [run for run in done if run.metrics.get("val")]
    if scored:
        map_ = _image(_heat_map(scored[:_MOST]), "IoU of every class in every run")
        parts += ["<h2>Classes</h2>", f'<div class="wide">{map_}</div>']
    parts += ["<h2>Runs</h2>", _run_table(runs, keys)]
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><main>{''.join(parts)}</main>"
        f"<script>{_SORT}</script></html>"
    )
    atomic_write(file, page, concurrent=True)


def _group_table(groups: Sequence[Group]) -> str:
    keys = list(groups[0].choices) if groups else []
    rows = [
        [str(place), *group.choices.values(), str(len(group.runs)), group.score, group.verdict]
        for place, group in enumerate(groups, 1)
    ]
    note = (
        "Mean and standard deviation over the runs of each choice. Behind the best: difference of the mean "
        "IoU with an interval that holds for all comparisons together with 95 %, by drawing the validation "
        "scenes and the repetitions again; real means that the interval leaves out 0."
    )
    return _table(["place", *keys, "runs", "validation mean IoU", "behind the best"], rows, note)


def _run_table(runs: Sequence[Run], keys: Sequence[str]) -> str:
    rows = []
    for run in runs:
        scores = [run.metrics.get(split, {}).get("miou") for split in ("val", "test")]
        numbers = ["" if value is None else f"{value:.4f}" for value in (run.outcome.value, *scores)]
        choices = [run.choices.get(key, "") for key in keys]
        rows.append(
            [
                run.name,
                run.outcome.status,
                *choices,
                *numbers,
                f"{run.outcome.seconds:.0f}",
                run.error,
            ]
        )
    head = ["run", "status", *keys, "best val mIoU", "val mIoU", "test mIoU", "seconds", "note"]
    return _table(head, rows, "Click on a heading to sort.")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    cells = "".join(f'<th scope="col"><button>{html.escape(name)}</button></th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    said = html.escape(caption)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{said}">'
        f"<table><caption><span>{said}</span></caption>"
        f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _bars(runs: Sequence[Run], key: str) -> Figure:
    found: dict[str, list[float]] = {}
    for run in runs:
        if run.outcome.value is not None:
            found.setdefault(run.choices.get(key, "–"), []).append(run.outcome.value)
    names = sorted(found, key=_order)
    figure = Figure(figsize=(_WIDTH, 1.1 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), [np.mean(found[name]) for name in names], color="#9ecae1")
    for place, name in enumerate(names):
        axes.plot(found[name], [place] * len(found[name]), "o", color="#08519c", markersize=4)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_title(key, loc="left")
    axes.set_xlabel("val mean IoU")
    return figure


def _curves(runs: Sequence[Run]) -> Figure:
    listed = len(runs) <= 20
    figure = Figure(figsize=(_WIDTH, 3.2 + 0.19 * len(runs) * listed), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        style = "--" if run.outcome.status == "pruned" else "-"
        axes.plot(*zip(*run.curve, strict=True), style, marker=".", label=run.name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("val mean IoU")
    axes.grid(alpha=0.3)
    if listed:
        figure.legend(frameon=False, fontsize=9, loc="outside lower center")
    return figure


def _heat_map(runs: Sequence[Run]) -> Figure:
    found = [{score["name"]: score["iou"] for score in run.metrics["val"]["classes"]} for run in runs]
    names = list(dict.fromkeys(name for of_run in found for name in of_run))  # data sets may be swept, too
    values = np.array([[of_run.get(name) for name in names] for of_run in found], float)  # None becomes NaN
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
    code = base64.b64encode(data.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{code}">'


def _order(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name
