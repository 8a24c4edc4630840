"""What a run leaves to look at: curves, pictures, tables, one HTML page."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from rich.table import Table

from geo_seg.checkpoint import Facts
from geo_seg.config import TrainConfig
from geo_seg.metrics import Scores

_VISIBLE = (("red", "green", "blue"), ("b4", "b3", "b2"), ("b04", "b03", "b02"))
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}
td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}
img{max-width:100%}
pre{background:#f5f5f5;padding:1rem;overflow:auto}
.key{display:inline-block;width:.9em;height:.9em;margin-right:.5em;border:1px solid #888}"""


class Picture(NamedTuple):
    """A drawn PNG.

    Attributes:
        title: what it shows.
        file: where it lies.
    """

    title: str
    file: Path


def write(
    folder: Path,
    config: TrainConfig,
    facts: Facts,
    found: dict[str, Any],
    rows: Sequence[dict[str, float]],
    pictures: Sequence[Picture],
) -> None:
    """Writes figures/curves.png, figures/confusion.png and report.html.

    Args:
        folder: the run folder.
        config: the configuration.
        facts: of the checkpoint.
        found: the content of metrics.json.
        rows: the lines of metrics.csv.
        pictures: predictions to show.
    """
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    split = found["split"]
    shown = [Picture("Confusion", figures / "confusion.png")]
    _confusion(found[split], facts.class_names, shown[0].file)
    if rows:
        shown.insert(0, Picture("Training", figures / "curves.png"))
        _curves(rows, shown[0].file)
    title = f"{config.dataset.name}: {config.model['name']} with {config.loss['name']}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{_summary(found)}</p>{_unreadable(found['unreadable'])}",
        f"<h2>Classes ({split} scenes)</h2>{_class_table(found[split], facts)}",
        "<h2>Predictions</h2>",
        *(_figure(picture) for picture in pictures),
        *(f"<h2>{picture.title}</h2>{_figure(picture)}" for picture in shown),
        f"<h2>Configuration</h2><pre>{html.escape(yaml.safe_dump(facts.config, sort_keys=False))}</pre>",
        f"<h2>Versions</h2><pre>{html.escape(yaml.safe_dump(facts.versions, sort_keys=False))}</pre>",
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style>{''.join(parts)}</html>"
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def score_table(found: Scores, title: str) -> Table:
    """Scores for the terminal; what neither labels nor predictions hold is shown as a dash."""
    table = Table(title=f"{title}: mean IoU {_number(found['miou'])}, accuracy {_number(found['accuracy'])}")
    table.add_column("class")
    for column in ("IoU", "F1", "precision", "recall", "pixels"):
        table.add_column(column, justify="right")
    for row in found["classes"]:
        numbers = (_number(row[key]) for key in ("iou", "f1", "precision", "recall"))
        table.add_row(row["name"], *numbers, f"{row['support']:,}")
    return table


def draw_picture(
    file: Path,
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    valid: NDArray[np.bool_],
    facts: Facts,
    title: str,
) -> None:
    """Draws image, label, prediction and errors side by side.

    Args:
        file: the PNG.
        image: (bands, H, W) raw values.
        labels: (H, W) class ids or ignore_index.
        predicted: (H, W) class ids.
        valid: (H, W), where the image holds a measurement.
        facts: names and colours.
        title: written above.
    """
    counted = labels != facts.ignore_index
    wrong = counted & (labels != predicted)
    errors = np.where(wrong[..., None], (214, 39, 40), (235, 235, 235)).astype(np.uint8)
    errors[~counted] = 255
    panels = (
        ("image", true_color(image, valid, facts.band_names)),
        ("label", colorize(labels, facts, counted)),
        ("prediction", colorize(predicted, facts, valid)),
        ("errors", errors),
    )
    height, width = labels.shape
    figure = Figure(figsize=(16, 4.2 * height / width + 0.9), layout="constrained")
    figure.suptitle(title)
    for axes, (name, pixels) in zip(figure.subplots(1, 4), panels, strict=True):
        axes.imshow(pixels, interpolation="nearest" if name != "image" else "antialiased")
        axes.set_title(name)
        axes.axis("off")
    keys = [
        Patch(color=_hex(color), label=name)
        for name, color in zip(facts.class_names, facts.class_colors, strict=True)
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=min(len(keys), 8), frameon=False)
    figure.savefig(file, dpi=90)


def true_color(image: NDArray[Any], valid: NDArray[np.bool_], names: Sequence[str]) -> NDArray[np.uint8]:
    """An image for the eye: red, green and blue if the bands are named so, else the first three or one.

    Args:
        image: (bands, H, W) raw values.
        valid: (H, W); other pixels become white.
        names: of the bands.

    Returns:
        (H, W, 3), stretched between the 2nd and 98th percentile.
    """
    lower = [name.lower() for name in names]
    chosen = next(
        ([lower.index(n) for n in wanted] for wanted in _VISIBLE if set(wanted) <= set(lower)), None
    )
    if chosen is None:
        chosen = [0, 1, 2] if len(image) >= 3 else [0, 0, 0]
    pixels = image[chosen].astype(np.float32)  # (3, H, W)
    if valid.any():
        low, high = np.percentile(pixels[:, valid], (2, 98), axis=1)[..., None, None]
        pixels = (pixels - low) / np.maximum(high - low, 1e-6)
    shown = (np.clip(pixels, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    shown[~valid] = 255
    return np.ascontiguousarray(shown)


def colorize(classes: NDArray[np.integer[Any]], facts: Facts, shown: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Class ids in their colours, (H, W, 3); white where not shown."""
    colors = np.array([*facts.class_colors, (255, 255, 255)], np.uint8)
    return colors[np.where(shown, classes, len(facts.class_colors))]


def _curves(rows: Sequence[dict[str, float]], file: Path) -> None:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    loss, score = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in rows]
    for axes, keys in ((loss, ("train/loss", "val/loss")), (score, ("val/miou", "val/accuracy"))):
        for key in keys:
            axes.plot(epochs, [row.get(key, np.nan) for row in rows], marker=".", label=key)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    score.set_ylim(0, 1)
    figure.savefig(file, dpi=90)


def _confusion(found: Scores, names: Sequence[str], file: Path) -> None:
    counts = np.array(found["confusion"], float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.2 + 0.55 * len(names)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    for row, col in np.ndindex(*shares.shape):
        color = "white" if shares[row, col] > 0.5 else "black"
        axes.text(col, row, f"{shares[row, col]:.2f}", ha="center", va="center", color=color, fontsize=8)
    figure.savefig(file, dpi=90)


def _summary(found: dict[str, Any]) -> str:
    scores = found[found["split"]]
    return (
        f"Mean IoU <b>{_number(scores['miou'])}</b> and accuracy <b>{_number(scores['accuracy'])}</b> on "
        f"{scores['pixels']:,} labelled pixels of the {found['split']} scenes"
        + (
            f"; best mean IoU on the validation scenes {_number(found['best_val_miou'])}; "
            f"{found['epochs']} epochs, {found['steps']} steps."
            if "epochs" in found
            else f" with {html.escape(found['checkpoint'])}."
        )
    )


def _unreadable(found: dict[str, int]) -> str:
    """The windows that were ignored because a file is corrupt there."""
    listed = ", ".join(f"{html.escape(name)} ({count})" for name, count in found.items())
    return f"<p><b>Windows that could not be read and were ignored:</b> {listed}.</p>" if found else ""


def _class_table(found: Scores, facts: Facts) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("class", "IoU", "F1", "precision", "recall", "pixels"))
    body = ""
    for row, color in zip(found["classes"], facts.class_colors, strict=True):
        numbers = "".join(f"<td>{_number(row[key])}</td>" for key in ("iou", "f1", "precision", "recall"))
        key = f'<span class="key" style="background:{_hex(color)}"></span>'
        body += f"<tr><td>{key}{html.escape(row['name'])}</td>{numbers}<td>{row['support']:,}</td></tr>"
    return f"<table><tr>{head}</tr>{body}</table>"


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.file.read_bytes()).decode()
    return f'<p><img alt="{html.escape(picture.title)}" src="data:image/png;base64,{data}"></p>'


def _hex(color: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
