"""The contact sheet: images and labels side by side, and what their edges say about each other."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from geo_seg.data.index import CELL, SceneIndex
from geo_seg.data.scene_reader import WindowArrays
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.split_areas import inside_rectangles, split_rectangles
from geo_seg.data.windows.reader import WindowReader
from geo_seg.doctor.examine import DataReport
from geo_seg.doctor.misregistration import edge_correlation, shift_of
from geo_seg.errors import DataError
from geo_seg.report.pictures import colorize, hex_color, true_color
from geo_seg.tiling import Window

_SIDE = 512  # pixels of a picture
_MOST = 12  # scenes on the sheet
_ACROSS = 3  # pairs in a row


class Sample(NamedTuple):
    """A part of a scene.

    Attributes:
        split: of the scene.
        scene: which.
        pixels: of the part; those that aren't the split's are ignored and not valid.
    """

    split: str
    scene: Scene
    pixels: WindowArrays


def draw_samples(found: DataReport) -> list[Sample]:
    """Parts of scenes around their labels, of every split; what can't be read becomes a problem."""
    samples: list[Sample] = []
    shares = {name: max(round(_MOST * len(s) / len(found.pairs)), 1) for name, s in found.scenes.items()}
    for split, scenes in found.scenes.items():
        reader = WindowReader(scenes, found.index[split], found.table, found.config)
        count = min(shares[split], len(scenes))
        for number in np.unique(np.linspace(0, len(scenes) - 1, count).round().astype(int)).tolist():
            if any(scenes[number] == sample.scene for sample in samples):
                continue  # val and test may be the same
            window = _window(scenes[number], found.index[split][number])
            try:
                pixels = reader.read((number, window))
            except DataError as error:
                found.problems.append(str(error))
                continue
            beside = ~inside_rectangles(split_rectangles(scenes[number], found.config.window), window)
            pixels.labels[beside] = found.table.ignore_index  # ground of another split, or of none
            pixels.valid[beside] = False
            samples.append(Sample(split, scenes[number], pixels))
    return samples


def check_misregistration(found: DataReport, samples: list[Sample]) -> None:
    """Warns of labels that lie beside what they label, in single scenes and in all of them together."""
    ignored = found.table.ignore_index
    maps = [edge_correlation(s.pixels.image, s.pixels.labels, s.pixels.labels != ignored) for s in samples]
    overall = shift_of(np.sum(maps, axis=0)) if maps else None
    if overall is not None:
        found.warnings.append(
            f"labels lie {_words(overall)} of the edges in the images, over all scenes looked at"
        )
    for sample, correlation in zip(samples, maps, strict=True):
        shift = shift_of(correlation)
        if shift is not None and not _alike(shift, overall):
            found.warnings.append(
                f"{sample.scene.name}: its labels lie {_words(shift)} of the edges in the image"
            )


def sample_pictures(found: DataReport, sample: Sample) -> list[tuple[str, NDArray[np.uint8]]]:
    """Image and label of a sample for the eye, each (H, W, 3)."""
    scene, pixels = sample.scene, sample.pixels
    names = dict(zip(scene.image.bands, scene.image.names, strict=True))
    image = true_color(pixels.image, pixels.valid, [names.get(band, "") for band in scene.bands])
    counted = pixels.labels != found.table.ignore_index
    return [("image", image), ("label", colorize(pixels.labels, found.table.colors, counted))]


def draw_sheet(found: DataReport, samples: list[Sample], file: Path) -> None:
    """Draws image and label of every sample, and the colours of the classes."""
    rows = -(-len(samples) // _ACROSS)
    figure = Figure(figsize=(16, 3.1 * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, 2 * _ACROSS, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for number, sample in enumerate(samples):
        left, right = grid[number // _ACROSS, 2 * (number % _ACROSS) :][:2]
        (_, image), (_, label) = sample_pictures(found, sample)
        left.imshow(image)
        right.imshow(label, interpolation="nearest")
        left.set_title(f"{sample.split}: {_short(sample.scene.name)}", fontsize=8, loc="left")
    keys = [
        Patch(facecolor=hex_color(color), edgecolor="#888888", label=name)
        for name, color in zip(found.table.names, found.table.colors, strict=True)
    ]
    divided = any(scene.blocks or scene.excluded for _, scene, _ in samples)
    white = "ignored, or not of the split" if divided else "ignored"
    keys.append(Patch(facecolor="white", edgecolor="#888888", label=white))
    figure.legend(handles=keys, loc="outside lower center", ncols=min(len(keys), 8), frameon=False)
    figure.savefig(file, dpi=90)


def _window(scene: Scene, index: SceneIndex) -> Window:
    """The part around the middle one of the cells with labels, within its block if there are blocks."""
    rows, cols = np.nonzero(np.any(index.cells, axis=2))
    areas = scene.blocks or (Window(0, 0, scene.image.height, scene.image.width),)
    area = max(areas, key=lambda part: part.height * part.width)
    middle = (area.row + area.height // 2, area.col + area.width // 2)
    if len(rows):
        order = len(rows) // 2
        middle = (int(rows[order]) * CELL + CELL // 2, int(cols[order]) * CELL + CELL // 2)
        area = next((part for part in areas if _holds(part, middle)), area)
    height, width = min(area.height, _SIDE), min(area.width, _SIDE)
    top = min(max(middle[0] - height // 2, area.row), area.row + area.height - height)
    left = min(max(middle[1] - width // 2, area.col), area.col + area.width - width)
    return Window(top, left, height, width)


def _holds(part: Window, point: tuple[int, int]) -> bool:
    row, col = point
    return 0 <= row - part.row < part.height and 0 <= col - part.col < part.width


def _alike(shift: tuple[int, int], other: tuple[int, int] | None) -> bool:
    return other is not None and max(abs(a - b) for a, b in zip(shift, other, strict=True)) <= 1


def _words(shift: tuple[int, int]) -> str:
    parts = [
        f"{abs(pixels)} px {word[pixels < 0]}"
        for pixels, word in zip(shift, (("below", "above"), ("right", "left")), strict=True)
        if pixels
    ]
    return " and ".join(parts)


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"...{name[-37:]}"
