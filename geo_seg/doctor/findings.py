"""Findings of the data doctor: problems, warnings and suggested options."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geo_seg.config.augment import MIN_KEPT, AugmentConfig
from geo_seg.data.few_labels import describe_few_labels
from geo_seg.data.index import CELL
from geo_seg.data.scales import describe_scales
from geo_seg.data.scenes.leakage import describe_leaks
from geo_seg.data.split_areas import split_counts
from geo_seg.data.undeclared_nodata import describe_dark_borders, describe_undeclared_nodata
from geo_seg.doctor.examine import UNSPLIT, DataReport
from geo_seg.raster.validity import IMPLAUSIBLE
from losses.class_weights import class_weights

_MAX_BRIGHTNESS_RATIO = 20.0  # between scenes of one product
_FEW_SCENES = 0.5  # fraction of the scenes
_USUAL_WINDOWS = (128, 256, 512)
_MIN_CLASSES_SEEN = 0.8  # fraction of the classes of a scene that a good window contains
_MIN_PIXELS_KEPT = 0.95  # fraction of each class's training pixels that a suggested window has to keep
_MAX_BALANCED_RATIO = 10.0  # between frequencies of classes that need no weights


def add_findings(report: DataReport) -> None:
    """Add problems and warnings to a report."""
    if report.leaks:
        leakage = describe_leaks(report.leaks, report.scenes, report.config)
        if report.config.allow_leakage:
            report.warnings.append(f"{leakage}; dataset.allow_leakage=true accepts it")
        else:
            report.problems.append(f"{leakage}; see dataset.split")
    scenes, index = zip(*report.pairs, strict=True)
    examined = (scenes, [scene_index.bands for scene_index in index], report.config)
    report.problems += [
        *_label_problems(report),
        *_value_problems(report),
        *describe_scales(scenes),
        *describe_undeclared_nodata(*examined),
    ]
    report.warnings += [
        *_class_warnings(report),
        *_nodata_warnings(report),
        *describe_dark_borders(*examined),
        *_location_warnings(report),
    ]
    counts = {name: report.counts(name).tolist() for name in report.scenes}
    report.warnings += describe_few_labels(counts, report.table.names, report.config)
    scenes_by_note: dict[str, list[str]] = {}
    for scene, _ in report.pairs:
        for note in scene.notes:
            scenes_by_note.setdefault(note, []).append(scene.name)
    report.warnings += [f"{_name_scenes(names)}: {note}" for note, names in scenes_by_note.items()]


def describe_weaker_warps(report: DataReport, augment: AugmentConfig) -> Iterator[str]:
    """Yield a note if windows reach the ends of their scenes, so that warps are weaker; see Augment."""
    window = report.config.window
    reach = window + 2 * augment.border(window)
    scenes = report.scenes[report.training_split]
    small = [s.name for s in scenes if min(s.image.height, s.image.width) < reach]
    if small and reach > window:
        yield (
            f"augment: {len(small)} of {len(scenes)} scenes of {report.training_split} are smaller than the "
            f"{reach} px that a window of {window} px may turn in; where that is nothing, rotation, scale "
            f"and shear are weaker, so that a window keeps {MIN_KEPT:.0%} of what it could hold"
        )


def suggest_config(report: DataReport, loss: str = "") -> list[str]:
    """Return options that fit these data, each with its reason; none that is set already.

    Args:
        report: the examination.
        loss: name of the configured loss.
    """
    counts = report.counts(report.training_split)
    present = counts[counts > 0]
    suggestions = []
    window = suggest_window(report)
    if window is not None and window != report.config.window and _is_better_window(report, window):
        suggestions.append(
            f"dataset.window={window}: such windows show most of the classes that their scene has"
        )
    is_weighted = report.config.sampler == "balanced" or loss == "weighted_cross_entropy"
    if not is_weighted and len(present) > 1 and present.max() / present.min() >= _MAX_BALANCED_RATIO:
        suggestions.append(
            "loss=weighted_cross_entropy or dataset.sampler=balanced (one of the two): the most frequent "
            f"class has {present.max() / present.min():.0f} times the pixels of the rarest; weights by "
            f"inverse frequency are {listed_weights(report)}"
        )
    return suggestions


def _is_better_window(report: DataReport, window: int) -> bool:
    """Return whether windows of this side contain more classes, and lose few training pixels of any class."""
    name = report.training_split
    scenes = report.scenes[name]
    config = replace(report.config, window=window)
    new_index = split_counts(
        scenes, [report.full_index[scene.name] for scene in scenes], report.table, config
    )
    new_counts = sum(
        (index.class_counts.classes for index in new_index), np.zeros(len(report.table.names), np.int64)
    )
    current_cells = max(report.config.window // CELL, 1)
    fractions = [
        [
            fraction
            for scene_index in index
            if (fraction := _classes_seen(scene_index.cells, side)) is not None
        ]
        for index, side in ((report.index[name], current_cells), (new_index, window // CELL))
    ]
    contains_more = all(fractions) and np.mean(fractions[1]) > np.mean(fractions[0])
    return bool(contains_more and (new_counts >= _MIN_PIXELS_KEPT * report.counts(name)).all())


def listed_weights(report: DataReport) -> str:
    """List class weights by inverse frequency, with the names of the classes."""
    weights = class_weights(report.counts(report.training_split).tolist())
    return ", ".join(f"{name} {w:.3g}" for name, w in zip(report.table.names, weights, strict=True))


def suggest_window(report: DataReport) -> int | None:
    """Return the smallest usual side of windows that contain most of the classes of their scene."""
    pairs = list(zip(report.scenes[report.training_split], report.index[report.training_split], strict=True))
    sides = [min(scene.image.height, scene.image.width) for scene, _ in pairs]
    candidates = [side for side in _USUAL_WINDOWS if side <= np.quantile(sides, 0.1)] or [min(_USUAL_WINDOWS)]
    for side in candidates:
        fractions = [
            fraction
            for _, index in pairs
            if (fraction := _classes_seen(index.cells, side // CELL)) is not None
        ]
        if not fractions:
            return None
        if np.mean(fractions) >= _MIN_CLASSES_SEEN:
            return side
    return candidates[-1]


def _classes_seen(cells: NDArray[np.uint16], side: int) -> float | None:
    """Return the mean fraction of a scene's classes that its windows contain; `side` counts cells."""
    present = cells > 0
    classes = present.any(axis=(0, 1)).sum()
    if not classes:
        return None
    rows, cols = (-(-size // side) for size in present.shape[:2])
    padded = np.zeros((rows * side, cols * side, present.shape[2]), bool)
    padded[: present.shape[0], : present.shape[1]] = present
    windows = np.any(padded.reshape(rows, side, cols, side, -1), axis=(1, 3))
    labelled = windows[windows.any(axis=2)]
    return float(labelled.sum(axis=-1).mean() / classes)


def _label_problems(report: DataReport) -> Iterator[str]:
    pairs = report.pairs
    unlabelled = [scene.name for scene, index in pairs if not index.cells.any()]
    if len(unlabelled) > _FEW_SCENES * len(pairs):
        yield (
            f"{_name_scenes(unlabelled)}: {len(unlabelled)} of {len(pairs)} scenes have no pixel of any "
            "class; compare the values of the masks with dataset.classes and dataset.ignore_values"
        )
    for name in (*report.scenes,):
        if not report.counts(name).any():
            reason = "" if report.config.split.by != "blocks" else ", or too near to blocks of val and test"
            yield f"no pixel of {name} has a class: all are nodata or ignored{reason}; see dataset.split"


def _value_problems(report: DataReport) -> Iterator[str]:
    """Report values that contradict the data type of the images."""
    pairs = [(scene, index) for scene, index in report.pairs if index.bands.pixels]
    if not pairs:
        return
    highest = np.array([index.bands.high.max() for _, index in pairs])
    dtype = np.dtype(pairs[0][0].image.dtype)
    if dtype.itemsize == 1 and highest.max() <= len(report.table.names):
        yield (f"images: {dtype.name} with no value above {highest.max():g}, as of masks; see dataset.images")
    elif dtype.kind in "iu" and dtype.itemsize > 1 and highest.max() <= 255:
        yield (
            f"images: {dtype.name} with no value above 255: 8-bit values in a wider type, probably scaled by "
            "mistake; convert them again, or to uint8"
        )
    bright = np.array([np.median(np.abs(index.bands.quantiles[:, -4])) for _, index in pairs])
    median = np.median(bright)
    odd = [
        scene.name
        for (scene, _), value in zip(pairs, bright, strict=True)
        if median > 0 and not 1 / _MAX_BRIGHTNESS_RATIO <= value / median <= _MAX_BRIGHTNESS_RATIO
    ]
    if odd:
        yield (
            f"{_name_scenes(odd)}: bright values are more than {_MAX_BRIGHTNESS_RATIO:g} times larger or "
            "smaller than in the other scenes, as of another type or scale; bring all images to one scale"
        )


def _class_warnings(report: DataReport) -> Iterator[str]:
    names = report.table.names
    for split in report.scenes:
        absent = [name for name, n in zip(names, report.counts(split), strict=True) if not n]
        if absent and len(absent) < len(names):
            yield f"no pixel of {split} has class {', '.join(absent)}; see dataset.split"
    train = report.index[report.training_split]
    for number, name in enumerate(names):
        without = sum(not index.cells[..., number].any() for index in train)
        if _FEW_SCENES * len(train) < without < len(train):
            yield (
                f"class {name}: {without} of {len(train)} scenes of {report.training_split} have none of it; "
                "dataset.sampler=balanced draws all classes equally often"
            )


def _nodata_warnings(report: DataReport) -> Iterator[str]:
    empty = [
        scene.name
        for scene, index in report.pairs
        if index.bands.pixels < _FEW_SCENES * scene.image.height * scene.image.width
    ]
    if empty:
        yield f"{_name_scenes(empty)}: more than half of the image is nodata"
    for scene, index in report.pairs:
        if index.implausible:
            yield f"{scene.name}: {index.implausible} px {IMPLAUSIBLE}"


def _location_warnings(report: DataReport) -> Iterator[str]:
    crs_names = {scene.image.crs for scene, _ in report.pairs}
    if None in crs_names and len(crs_names) > 1:
        without_crs = [scene.name for scene, _ in report.pairs if scene.image.crs is None]
        yield f"{_name_scenes(without_crs)}: no CRS, while other images have one"
    side = report.config.window
    small_scenes = [s.name for s, _ in report.pairs if min(s.image.height, s.image.width) < side]
    if small_scenes:
        yield (
            f"{_name_scenes(small_scenes)}: smaller than dataset.window={side}, so that windows are padded "
            "with ignored pixels; take a smaller window"
        )
    if list(report.scenes) == [UNSPLIT]:
        yield "the scenes were examined without a split"


def _name_scenes(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
