"""Windows to look at: image, label, prediction and errors."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from geo_seg.checkpoints.checkpoint import CheckpointMetadata

_VISIBLE = (("red", "green", "blue"), ("b4", "b3", "b2"), ("b04", "b03", "b02"))
_MAX_SIDE = 320  # pixels of a picture on the page at most: a screen shows no more beside three others
_WRONG, _RIGHT = (214, 39, 40), (235, 235, 235)
ERROR_LEGEND = (("errors: wrong", _WRONG), ("errors: right", _RIGHT))
"""What the colours of the panel of errors mean; pixels that don't count are white."""


class ScaleBar(NamedTuple):
    """A round length in a picture.

    Attributes:
        share: of the picture's width.
        text: how long that is.
    """

    share: float
    text: str


def scale_bar(width: int, side: float | None) -> ScaleBar:
    """Return the longest round length that takes at most a third of a picture.

    Args:
        width: pixels of the raster that the picture shows.
        side: metres of a pixel along a row; None counts in pixels.
    """
    room = width * (side or 1.0) / 3
    power = 10.0 ** math.floor(math.log10(room))
    length = next(step * power for step in (5, 2, 1) if step * power <= room)
    if side is None:
        length = max(length, 1.0)
        return ScaleBar(length / width, f"{length:g} px")
    name = (
        f"{length / 1000:g} km"
        if length >= 1000
        else f"{length:g} m"
        if length >= 1
        else f"{length * 100:g} cm"
    )
    return ScaleBar(length / (width * side), name)


@dataclass(frozen=True)
class ReportWindow:
    """A window on the page.

    Attributes:
        title: what it is.
        place: where it lies.
        panels: names, and pictures as files of PNG or JPEG.
    """

    title: str
    place: str
    panels: Sequence[tuple[str, bytes]]


def draw_panels(
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]] | None,
    valid: NDArray[np.bool_],
    facts: CheckpointMetadata,
    stretch: NDArray[np.float64] | None = None,
) -> list[tuple[str, NDArray[np.uint8]]]:
    """What is shown of a window, each (H, W, 3).

    Args:
        image: (bands, H, W) raw values.
        labels: (H, W) class ids or ignore_index.
        predicted: (H, W) class ids; None where there is no prediction.
        valid: (H, W), where the image holds a measurement.
        facts: names and colours.
        stretch: see true_color; the same for all windows of a scene.

    Returns:
        image and label, and prediction and errors where there is a prediction.
    """
    counted = labels != facts.ignore_index
    found = [
        ("image", true_color(image, valid, facts.band_names, stretch)),
        ("label", colorize(labels, facts.class_colors, counted)),
    ]
    if predicted is not None:
        errors = np.where((labels != predicted)[..., None], _WRONG, _RIGHT).astype(np.uint8)
        errors[~counted] = 255
        found += [("prediction", colorize(predicted, facts.class_colors, valid)), ("errors", errors)]
    return found


def encode_panels(
    found: Sequence[tuple[str, NDArray[np.uint8]]], bar: ScaleBar | None = None
) -> list[tuple[str, bytes]]:
    """Return panels as files for the page: the image as JPEG, the others as PNG; large ones are made smaller.

    Args:
        found: names and pixels.
        bar: drawn into the image; None for none.
    """
    files = []
    for name, pixels in found:
        picture = Image.fromarray(pixels)
        if max(picture.size) > _MAX_SIDE:
            scale = _MAX_SIDE / max(picture.size)
            size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
            way = Image.Resampling.BOX if name == "image" else Image.Resampling.NEAREST
            picture = picture.resize(size, way)
        data = io.BytesIO()
        if name == "image":
            if bar:
                _draw_bar(picture, bar)
            picture.save(data, "JPEG", quality=88)
        else:
            picture.save(data, "PNG", optimize=True)
        files.append((name, data.getvalue()))
    return files


def _draw_bar(picture: Image.Image, bar: ScaleBar) -> None:
    """Draw a scale bar into the lower left of a picture, black on white, so that it shows on any ground."""
    draw = ImageDraw.Draw(picture)
    length, bottom = max(round(bar.share * picture.width), 1), picture.height - 5
    draw.rectangle((3, bottom - 3, 5 + length, bottom + 1), fill="white")
    draw.rectangle((4, bottom - 2, 4 + length, bottom), fill="black")
    draw.text((4, bottom - 5), bar.text, fill="black", stroke_fill="white", stroke_width=2, anchor="lb")


def draw_picture(
    file: Path,
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    valid: NDArray[np.bool_],
    facts: CheckpointMetadata,
    title: str,
    stretch: NDArray[np.float64] | None = None,
    bar: ScaleBar | None = None,
) -> None:
    """Draw image, label, prediction and errors side by side.

    Args:
        file: the PNG.
        image: (bands, H, W) raw values.
        labels: (H, W) class ids or ignore_index.
        predicted: (H, W) class ids.
        valid: (H, W), where the image holds a measurement.
        facts: names and colours.
        title: written above.
        stretch: see true_color.
        bar: a length, drawn below the image; None for none.
    """
    shown = draw_panels(image, labels, predicted, valid, facts, stretch)
    height, width = labels.shape
    figure = Figure(figsize=(16, 4.2 * height / width + 0.9), layout="constrained")
    figure.suptitle(title)
    for axes, (name, pixels) in zip(figure.subplots(1, 4), shown, strict=True):
        axes.imshow(pixels, interpolation="nearest" if name != "image" else "antialiased")
        axes.set_title(name)
        axes.axis("off")
        if bar and name == "image":
            axes.plot([0, bar.share * width], [height * 1.03] * 2, color="black", lw=2, clip_on=False)
            axes.text(0, height * 1.05, bar.text, va="top", fontsize=9)
    keys = [
        Patch(color=hex_color(color), label=name)
        for name, color in zip(facts.class_names, facts.class_colors, strict=True)
    ]
    keys += [Patch(color=hex_color(color), label=name) for name, color in ERROR_LEGEND]
    figure.legend(handles=keys, loc="outside lower center", ncols=min(len(keys), 8), frameon=False)
    figure.savefig(file, dpi=90)


def true_color(
    image: NDArray[Any],
    valid: NDArray[np.bool_],
    names: Sequence[str],
    stretch: NDArray[np.float64] | None = None,
) -> NDArray[np.uint8]:
    """An image for the eye: red, green and blue if the bands are named so, else the first three or one.

    Args:
        image: (bands, H, W) raw values.
        valid: (H, W); other pixels become white.
        names: of the bands.
        stretch: (2, bands) values that become black and white; None takes the 2nd and 98th percentile of
            the valid pixels.

    Returns:
        (H, W, 3)
    """
    lower = [name.lower() for name in names]
    chosen = next(
        ([lower.index(n) for n in wanted] for wanted in _VISIBLE if set(wanted) <= set(lower)), None
    )
    if chosen is None:
        chosen = [0, 1, 2] if len(image) >= 3 else [0, 0, 0]
    pixels = image[chosen].astype(np.float32)  # (3, H, W)
    if valid.any():
        limits = np.percentile(pixels[:, valid], (2, 98), axis=1) if stretch is None else stretch[:, chosen]
        low, high = limits.astype(np.float32)[..., None, None]
        pixels = (pixels - low) / np.maximum(high - low, 1e-6)
    shown = (np.clip(pixels, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    shown[~valid] = 255
    return np.ascontiguousarray(shown)


def colorize(
    classes: NDArray[np.integer[Any]], colors: Sequence[Sequence[int]], shown: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Class ids in their colours, (H, W, 3); white where not shown."""
    listed = np.array([*colors, (255, 255, 255)], np.uint8)
    return listed[np.where(shown, classes, len(colors))]


def hex_color(color: Sequence[int]) -> str:
    """A colour as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*color)
