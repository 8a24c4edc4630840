"""Windows to look at: image, label, prediction and errors."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from geo_seg.checkpoint import Facts

_VISIBLE = (("red", "green", "blue"), ("b4", "b3", "b2"), ("b04", "b03", "b02"))
_SIDE = 320  # pixels of a picture on the page at most: a screen shows no more beside three others
_WRONG, _RIGHT = (214, 39, 40), (235, 235, 235)


@dataclass(frozen=True)
class Shown:
    """A window on the page.

    Attributes:
        title: what it is.
        place: where it lies.
        panels: names, and pictures as files of PNG or JPEG.
    """

    title: str
    place: str
    panels: Sequence[tuple[str, bytes]]


def panels(
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]] | None,
    valid: NDArray[np.bool_],
    facts: Facts,
) -> list[tuple[str, NDArray[np.uint8]]]:
    """What is shown of a window, each (H, W, 3).

    Args:
        image: (bands, H, W) raw values.
        labels: (H, W) class ids or ignore_index.
        predicted: (H, W) class ids; None where there is no prediction.
        valid: (H, W), where the image holds a measurement.
        facts: names and colours.

    Returns:
        image and label, and prediction and errors where there is a prediction.
    """
    counted = labels != facts.ignore_index
    found = [
        ("image", true_color(image, valid, facts.band_names)),
        ("label", colorize(labels, facts.class_colors, counted)),
    ]
    if predicted is not None:
        errors = np.where((labels != predicted)[..., None], _WRONG, _RIGHT).astype(np.uint8)
        errors[~counted] = 255
        found += [("prediction", colorize(predicted, facts.class_colors, valid)), ("errors", errors)]
    return found


def encoded(found: Sequence[tuple[str, NDArray[np.uint8]]]) -> list[tuple[str, bytes]]:
    """Panels as files for the page: the image as JPEG, the others as PNG; large ones are made smaller."""
    files = []
    for name, pixels in found:
        picture = Image.fromarray(pixels)
        if max(picture.size) > _SIDE:
            scale = _SIDE / max(picture.size)
            size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
            way = Image.Resampling.BOX if name == "image" else Image.Resampling.NEAREST
            picture = picture.resize(size, way)
        data = io.BytesIO()
        if name == "image":
            picture.save(data, "JPEG", quality=88)
        else:
            picture.save(data, "PNG", optimize=True)
        files.append((name, data.getvalue()))
    return files


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
    shown = panels(image, labels, predicted, valid, facts)
    height, width = labels.shape
    figure = Figure(figsize=(16, 4.2 * height / width + 0.9), layout="constrained")
    figure.suptitle(title)
    for axes, (name, pixels) in zip(figure.subplots(1, 4), shown, strict=True):
        axes.imshow(pixels, interpolation="nearest" if name != "image" else "antialiased")
        axes.set_title(name)
        axes.axis("off")
    keys = [
        Patch(color=hexadecimal(color), label=name)
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


def colorize(
    classes: NDArray[np.integer[Any]], colors: Sequence[Sequence[int]], shown: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Class ids in their colours, (H, W, 3); white where not shown."""
    listed = np.array([*colors, (255, 255, 255)], np.uint8)
    return listed[np.where(shown, classes, len(colors))]


def hexadecimal(color: Sequence[int]) -> str:
    """A colour as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*color)
