"""The contact sheet: images and labels side by side, and a check for misregistered labels."""

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

_SAMPLE_SIDE = 512  # pixels of a sample
_MAX_SCENES_SHOWN = 12
_PAIRS_PER_ROW = 3


class Sample(NamedTuple):
    """A window of a scene.

    Attributes:
        split: name of the scene's split.
        scene: the scene.
        pixels: image, labels and validity; pixels outside the split are ignored and not valid.
    """

    split: str
    scene: Scene
    pixels: WindowArrays


def draw_samples(report: DataReport) -> list[Sample]:
    """Read a window around the labels of some scenes of each split; add read errors to the problems."""
    samples: list[Sample] = []
    counts = {
        name: max(round(_MAX_SCENES_SHOWN * len(s) / len(report.pairs)), 1)
        for name, s in report.scenes.items()
    }
    for split, scenes in report.scenes.items():
        reader = WindowReader(scenes, report.index[split], report.table, report.config)
        count = min(counts[split], len(scenes))
        for index in np.unique(np.linspace(0, len(scenes) - 1, count).round().astype(int)).tolist():
            if any(scenes[index] == sample.scene for sample in samples):
                continue  # val and test may be the same scenes
            window = _window(scenes[index], report.index[split][index])
            try:
                pixels = reader.read((index, window))
            except DataError as error:
                report.problems.append(str(error))
                continue
            outside = ~inside_rectangles(split_rectangles(scenes[index], report.config.window), window)
            pixels.labels[outside] = report.table.ignore_index  # belongs to another split, or to none
            pixels.valid[outside] = False
            samples.append(Sample(split, scenes[index], pixels))
    return samples


def check_misregistration(report: DataReport, samples: list[Sample]) -> None:
    """Warn of labels that are shifted against the image, in single scenes and in all together."""
    ignore_index = report.table.ignore_index
    correlations = [
        edge_correlation(s.pixels.image, s.pixels.labels, s.pixels.labels != ignore_index) for s in samples
    ]
    overall = shift_of(np.sum(correlations, axis=0)) if correlations else None
    if overall is not None:
        report.warnings.append(
            f"labels lie {_describe_shift(overall)} of the edges in the images, over all scenes examined"
        )
    for sample, correlation in zip(samples, correlations, strict=True):
        shift = shift_of(correlation)
        if shift is not None and not _is_similar(shift, overall):
            report.warnings.append(
                f"{sample.scene.name}: its labels lie {_describe_shift(shift)} of the edges in the image"
            )


def sample_pictures(report: DataReport, sample: Sample) -> list[tuple[str, NDArray[np.uint8]]]:
    """Return image and label of a sample for display, each (H, W, 3)."""
    scene, pixels = sample.scene, sample.pixels
    names = dict(zip(scene.image.bands, scene.image.names, strict=True))
    image = true_color(pixels.image, pixels.valid, [names.get(band, "") for band in scene.bands])
    labelled = pixels.labels != report.table.ignore_index
    return [("image", image), ("label", colorize(pixels.labels, report.table.colors, labelled))]


def draw_sheet(report: DataReport, samples: list[Sample], file: Path) -> None:
    """Draw image and label of every sample, and the colours of the classes."""
    rows = -(-len(samples) // _PAIRS_PER_ROW)
    figure = Figure(figsize=(16, 3.1 * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, 2 * _PAIRS_PER_ROW, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for number, sample in enumerate(samples):
        left, right = grid[number // _PAIRS_PER_ROW, 2 * (number % _PAIRS_PER_ROW) :][:2]
        (_, image), (_, label) = sample_pictures(report, sample)
        left.imshow(image)
        right.imshow(label, interpolation="nearest")
        left.set_title(f"{sample.split}: {_short(sample.scene.name)}", fontsize=8, loc="left")
    handles = [
        Patch(facecolor=hex_color(color), edgecolor="#888888", label=name)
        for name, color in zip(report.table.names, report.table.colors, strict=True)
    ]
    has_blocks = any(scene.blocks or scene.excluded for _, scene, _ in samples)
    white_label = "ignored, or not of the split" if has_blocks else "ignored"
    handles.append(Patch(facecolor="white", edgecolor="#888888", label=white_label))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8), frameon=False)
    figure.savefig(file, dpi=90)


def _window(scene: Scene, index: SceneIndex) -> Window:
    """Return the window around the middle one of the cells with labels, inside a block if there are any."""
    rows, cols = np.nonzero(np.any(index.cells, axis=2))
    blocks = scene.blocks or (Window(0, 0, scene.image.height, scene.image.width),)
    block = max(blocks, key=lambda candidate: candidate.height * candidate.width)
    centre = (block.row + block.height // 2, block.col + block.width // 2)
    if len(rows):
        middle = len(rows) // 2
        centre = (int(rows[middle]) * CELL + CELL // 2, int(cols[middle]) * CELL + CELL // 2)
        block = next((candidate for candidate in blocks if _contains(candidate, centre)), block)
    height, width = min(block.height, _SAMPLE_SIDE), min(block.width, _SAMPLE_SIDE)
    top = min(max(centre[0] - height // 2, block.row), block.row + block.height - height)
    left = min(max(centre[1] - width // 2, block.col), block.col + block.width - width)
    return Window(top, left, height, width)


def _contains(window: Window, point: tuple[int, int]) -> bool:
    row, col = point
    return 0 <= row - window.row < window.height and 0 <= col - window.col < window.width


def _is_similar(shift: tuple[int, int], reference: tuple[int, int] | None) -> bool:
    return reference is not None and max(abs(a - b) for a, b in zip(shift, reference, strict=True)) <= 1


def _describe_shift(shift: tuple[int, int]) -> str:
    parts = [
        f"{abs(pixels)} px {words[pixels < 0]}"
        for pixels, words in zip(shift, (("below", "above"), ("right", "left")), strict=True)
        if pixels
    ]
    return " and ".join(parts)


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"...{name[-37:]}"
