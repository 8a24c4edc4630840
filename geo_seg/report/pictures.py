"""Pictures of windows: image, label, prediction and errors."""

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

_RGB_BAND_NAMES = (("red", "green", "blue"), ("b4", "b3", "b2"), ("b04", "b03", "b02"))
_MAX_SIDE = 320  # pixels of a picture on the page: a screen shows no more beside three others
_WRONG_COLOR, _RIGHT_COLOR = (214, 39, 40), (235, 235, 235)
ERROR_LEGEND = (("errors: wrong", _WRONG_COLOR), ("errors: right", _RIGHT_COLOR))
"""Names and colours of the panel of errors; ignored pixels are white."""


class ScaleBar(NamedTuple):
    """A scale bar of a round length.

    Attributes:
        share: length as a fraction of the picture's width.
        text: length in words.
    """

    share: float
    text: str


def scale_bar(width: int, pixel_size: float | None) -> ScaleBar:
    """Return a scale bar with the longest round length up to a third of a picture's width.

    Args:
        width: width of the raster window in pixels.
        pixel_size: width of a pixel in metres; None for a bar in pixels.
    """
    max_length = width * (pixel_size or 1.0) / 3
    power = 10.0 ** math.floor(math.log10(max_length))
    length = next(step * power for step in (5, 2, 1) if step * power <= max_length)
    if pixel_size is None:
        length = max(length, 1.0)
        return ScaleBar(length / width, f"{length:g} px")
    name = (
        f"{length / 1000:g} km"
        if length >= 1000
        else f"{length:g} m"
        if length >= 1
        else f"{length * 100:g} cm"
    )
    return ScaleBar(length / (width * pixel_size), name)


@dataclass(frozen=True)
class ReportWindow:
    """A window of a scene as pictures for the page.

    Attributes:
        title: heading of the window.
        location: where the window lies, in words.
        panels: names, and contents of PNG or JPEG files.
    """

    title: str
    location: str
    panels: Sequence[tuple[str, bytes]]


def draw_panels(
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]] | None,
    valid: NDArray[np.bool_],
    metadata: CheckpointMetadata,
    stretch: NDArray[np.float64] | None = None,
) -> list[tuple[str, NDArray[np.uint8]]]:
    """Draw the panels of a window, each (H, W, 3).

    Args:
        image: (bands, H, W) raw values.
        labels: (H, W) class ids or ignore_index.
        predicted: (H, W) class ids; None where there is no prediction.
        valid: (H, W) bool, False for nodata.
        metadata: names and colours of bands and classes.
        stretch: see `true_color`; the same for all windows of a scene.

    Returns:
        Name and pixels of image and label, and of prediction and errors if there is a prediction.
    """
    labelled = labels != metadata.ignore_index
    panels = [
        ("image", true_color(image, valid, metadata.band_names, stretch)),
        ("label", colorize(labels, metadata.class_colors, labelled)),
    ]
    if predicted is not None:
        errors = np.where((labels != predicted)[..., None], _WRONG_COLOR, _RIGHT_COLOR).astype(np.uint8)
        errors[~labelled] = 255
        panels += [("prediction", colorize(predicted, metadata.class_colors, valid)), ("errors", errors)]
    return panels


def encode_panels(
    panels: Sequence[tuple[str, NDArray[np.uint8]]], bar: ScaleBar | None = None
) -> list[tuple[str, bytes]]:
    """Encode panels as files: the image as JPEG, the others as PNG; large ones are downsampled.

    Args:
        panels: names and pixels.
        bar: scale bar drawn into the image; None for none.
    """
    files = []
    for name, pixels in panels:
        picture = Image.fromarray(pixels)
        if max(picture.size) > _MAX_SIDE:
            scale = _MAX_SIDE / max(picture.size)
            size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
            resampling = Image.Resampling.BOX if name == "image" else Image.Resampling.NEAREST
            picture = picture.resize(size, resampling)
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
    """Draw a scale bar into the lower left of a picture, black on white, to be visible on any background."""
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
    metadata: CheckpointMetadata,
    title: str,
    stretch: NDArray[np.float64] | None = None,
    bar: ScaleBar | None = None,
) -> None:
    """Draw image, label, prediction and errors side by side.

    Args:
        file: path of the PNG.
        image: (bands, H, W) raw values.
        labels: (H, W) class ids or ignore_index.
        predicted: (H, W) class ids.
        valid: (H, W) bool, False for nodata.
        metadata: names and colours.
        title: title of the figure.
        stretch: see `true_color`.
        bar: scale bar drawn below the image; None for none.
    """
    panels = draw_panels(image, labels, predicted, valid, metadata, stretch)
    height, width = labels.shape
    figure = Figure(figsize=(16, 4.2 * height / width + 0.9), layout="constrained")
    figure.suptitle(title)
    for axes, (name, pixels) in zip(figure.subplots(1, 4), panels, strict=True):
        axes.imshow(pixels, interpolation="nearest" if name != "image" else "antialiased")
        axes.set_title(name)
        axes.axis("off")
        if bar and name == "image":
            axes.plot([0, bar.share * width], [height * 1.03] * 2, color="black", lw=2, clip_on=False)
            axes.text(0, height * 1.05, bar.text, va="top", fontsize=9)
    handles = [
        Patch(color=hex_color(color), label=name)
        for name, color in zip(metadata.class_names, metadata.class_colors, strict=True)
    ]
    handles += [Patch(color=hex_color(color), label=name) for name, color in ERROR_LEGEND]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8), frameon=False)
    figure.savefig(file, dpi=90)


def true_color(
    image: NDArray[Any],
    valid: NDArray[np.bool_],
    names: Sequence[str],
    stretch: NDArray[np.float64] | None = None,
) -> NDArray[np.uint8]:
    """Return an RGB image of the bands named red, green and blue, else of the first three or the first.

    Args:
        image: (bands, H, W) raw values.
        valid: (H, W) bool; other pixels become white.
        names: names of the bands.
        stretch: (2, bands) values that become black and white; None for the 2nd and 98th percentile of the
            valid pixels.

    Returns:
        (H, W, 3) uint8.
    """
    lower_names = [name.lower() for name in names]
    rgb_bands = next(
        (
            [lower_names.index(n) for n in rgb_names]
            for rgb_names in _RGB_BAND_NAMES
            if set(rgb_names) <= set(lower_names)
        ),
        None,
    )
    if rgb_bands is None:
        rgb_bands = [0, 1, 2] if len(image) >= 3 else [0, 0, 0]
    pixels = image[rgb_bands].astype(np.float32)  # (3, H, W)
    if valid.any():
        limits = (
            np.percentile(pixels[:, valid], (2, 98), axis=1) if stretch is None else stretch[:, rgb_bands]
        )
        low, high = limits.astype(np.float32)[..., None, None]
        pixels = (pixels - low) / np.maximum(high - low, 1e-6)
    rgb = (np.clip(pixels, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    rgb[~valid] = 255
    return np.ascontiguousarray(rgb)


def colorize(
    classes: NDArray[np.integer[Any]], colors: Sequence[Sequence[int]], visible: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return class ids in their colours, (H, W, 3); white where not shown."""
    palette = np.array([*colors, (255, 255, 255)], np.uint8)
    return palette[np.where(visible, classes, len(colors))]


def hex_color(color: Sequence[int]) -> str:
    """Return a colour as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*color)
