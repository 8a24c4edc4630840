"""Table and plot of the which-loss study, from the results that are there."""

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

Results = dict[str, dict[str, list[dict[str, Any]]]]
TITLES = {"dubai": "Dubai (aerial RGB, scene of its own)", "hls": "HLS (Sentinel-2 and Landsat, 7 bands)"}
SCORES = (("miou", "#2a6f97", "mean IoU"), ("boundary_iou", "#c1666b", "boundary IoU"))


def write(folder: Path, docs: Path) -> None:
    """Write docs/which_loss.md and docs/which_loss.png.

    Args:
        folder: holds the result.json files, at any depth.
        docs: is made if it isn't there.
    """
    found: Results = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.rglob("result.json")):
        result = json.loads(path.read_text())
        found[result["data"]][result["loss"]].append(result)
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "which_loss.md").write_text(_text(found), encoding="utf-8")
    _plot(found, docs / "which_loss.png")


def _ranked(losses: dict[str, list[dict[str, Any]]]) -> list[tuple[str, list[dict[str, Any]]]]:
    return sorted(losses.items(), key=lambda item: -fmean(run["miou"] for run in item[1]))


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{fmean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}"


def _text(found: Results) -> str:
    some = next(iter(next(iter(found.values())).values()))[0]
    lines = [
        "# Which loss, on real data",
        "",
        f"A short training each: U-Net with {some['encoder']}, weights `{some['weights']}`, {some['steps']} "
        f"steps of 8 windows of {some['window']} px, the same for every loss; scores of scenes at places "
        "that training never saw. Mean over the seeds ± half their range. With so short a budget, "
        "differences below the spread mean nothing; the table shows what a loss does early, and for thin "
        "and rare ones. "
        "Boundary IoU: of the bands of 2 pixels inside the outlines. Tversky: alpha 0.3, beta 0.7; boundary "
        "and duo: the sides of their two windows.",
        "",
        "Made by `python benchmarks/which_loss.py`.",
        "",
        "![Mean IoU and boundary IoU of every loss](which_loss.png)",
    ]
    for data, losses in sorted(found.items()):
        names = list(next(iter(losses.values()))[0]["classes"])
        lines += ["", f"## {TITLES[data]}", ""]
        lines.append(f"| loss | seeds | mean IoU | boundary IoU | accuracy | {' | '.join(names)} |")
        lines.append("|---" * (5 + len(names)) + "|")
        for loss, runs in _ranked(losses):
            ious = (fmean(run["classes"][name] or 0.0 for run in runs) for name in names)
            cells = [_spread([run[key] for run in runs]) for key in ("miou", "boundary_iou", "accuracy")]
            lines.append(
                f"| {loss} | {len(runs)} | {' | '.join(cells)} "
                f"| {' | '.join(format(iou, '.2f') for iou in ious)} |"
            )
    return "\n".join(lines) + "\n"


def _plot(found: Results, path: Path) -> None:
    rows = max(len(losses) for losses in found.values())
    figure, axes = plt.subplots(
        1, len(found), figsize=(6.5 * len(found), 1.2 + 0.28 * rows), squeeze=False, layout="constrained"
    )
    for axis, (data, losses) in zip(axes[0], sorted(found.items()), strict=True):
        ranked = _ranked(losses)[::-1]
        for key, colour, label in SCORES:
            for place, (_, runs) in enumerate(ranked):
                values = [run[key] for run in runs]
                axis.plot([min(values), max(values)], [place, place], color=colour, linewidth=1)
                axis.plot(
                    fmean(values), place, "o", color=colour, markersize=5, label=label if place == 0 else None
                )
        axis.set_yticks(range(len(ranked)), [loss for loss, _ in ranked], fontsize=8)
        axis.set_title(TITLES[data], fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
