"""What an examination comes to: problems, warnings, and what to put into the YAML."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geo_seg.data.few_labels import describe_few_labels
from geo_seg.data.index import CELL
from geo_seg.data.scales import describe_scales
from geo_seg.data.scenes.leakage import describe_leaks
from geo_seg.data.split_areas import split_counts
from geo_seg.data.undeclared_nodata import describe_dark_borders, describe_undeclared_nodata
from geo_seg.doctor.examine import UNSPLIT, DataReport
from geo_seg.raster.validity import IMPLAUSIBLE
from losses.class_weights import class_weights

_APART = 20.0  # times: brightness of scenes of one kind doesn't differ by that
_FEW = 0.5  # share of the scenes
_WINDOWS = (128, 256, 512)
_SEEN = 0.8  # share of the classes of a scene that a good window shows
_KEPT = 0.95  # share of each class's training pixels that a better window leaves there
_ALIKE = 10.0  # times: classes that differ less need no weights


def add_findings(found: DataReport) -> None:
    """Adds problems and warnings to an examination."""
    if found.leaks:
        line = describe_leaks(found.leaks, found.scenes, found.config)
        if found.config.allow_leakage:
            found.warnings.append(f"{line}; dataset.allow_leakage=true lets it be")
        else:
            found.problems.append(f"{line}; see dataset.split")
    scenes, index = zip(*found.pairs, strict=True)
    seen = (scenes, [each.bands for each in index], found.config)
    found.problems += [
        *_labels(found),
        *_values(found),
        *describe_scales(scenes),
        *describe_undeclared_nodata(*seen),
    ]
    found.warnings += [*_classes(found), *_nodata(found), *describe_dark_borders(*seen), *_places(found)]
    counts = {name: found.counts(name).tolist() for name in found.scenes}
    found.warnings += describe_few_labels(counts, found.table.names, found.config)
    noted: dict[str, list[str]] = {}
    for scene, _ in found.pairs:
        for note in scene.notes:
            noted.setdefault(note, []).append(scene.name)
    found.warnings += [f"{_some(names)}: {note}" for note, names in noted.items()]


def suggest_config(found: DataReport, loss: str = "") -> list[str]:
    """Return options that fit these data, each with its reason; each was tried, and none is there already.

    Args:
        found: what there is.
        loss: name of the loss that is chosen now.
    """
    counts = found.counts(found.training)
    present = counts[counts > 0]
    made = []
    window = suggest_window(found)
    if window is not None and window != found.config.window and _helpful_window(found, window):
        made.append(f"dataset.window={window}: such windows show most of the classes that their scene has")
    ways = ["loss=weighted_cross_entropy"] if found.config.mode == "multiclass" else []
    ways.append("dataset.sampler=balanced")
    done = found.config.sampler == "balanced" or loss == "weighted_cross_entropy"
    if not done and len(present) > 1 and present.max() / present.min() >= _ALIKE:
        made.append(
            f"{' or '.join(ways)}{' (one of the two)' if ways[1:] else ''}: the most frequent "
            f"class has {present.max() / present.min():.0f} times the pixels of the rarest; weights by "
            f"inverse frequency are {listed_weights(found)}"
        )
    return made


def _helpful_window(found: DataReport, window: int) -> bool:
    """Whether windows of another side show more classes, and leave training about all that it has of each."""
    name = found.training
    scenes = found.scenes[name]
    config = replace(found.config, window=window)
    tried = split_counts(scenes, [found.whole[scene.name] for scene in scenes], found.table, config)
    after = sum((index.class_counts.classes for index in tried), np.zeros(len(found.table.names), np.int64))
    now = max(found.config.window // CELL, 1)
    shares = [
        [share for one in index if (share := _shown(one.cells, side)) is not None]
        for index, side in ((found.index[name], now), (tried, window // CELL))
    ]
    better = all(shares) and np.mean(shares[1]) > np.mean(shares[0])
    return bool(better and (after >= _KEPT * found.counts(name)).all())


def listed_weights(found: DataReport) -> str:
    """Class weights by inverse frequency, with the names of the classes."""
    weights = class_weights(found.counts(found.training).tolist())
    return ", ".join(f"{name} {w:.3g}" for name, w in zip(found.table.names, weights, strict=True))


def suggest_window(found: DataReport) -> int | None:
    """The smallest usual side of windows that show most of the classes of their scene."""
    pairs = list(zip(found.scenes[found.training], found.index[found.training], strict=True))
    sides = [min(scene.image.height, scene.image.width) for scene, _ in pairs]
    fitting = [side for side in _WINDOWS if side <= np.quantile(sides, 0.1)] or [min(_WINDOWS)]
    for side in fitting:
        seen = [share for _, index in pairs if (share := _shown(index.cells, side // CELL)) is not None]
        if not seen:
            return None
        if np.mean(seen) >= _SEEN:
            return side
    return fitting[-1]


def _shown(cells: NDArray[np.uint16], side: int) -> float | None:
    """The mean share of a scene's classes that its windows of some cells show."""
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


def _labels(found: DataReport) -> Iterator[str]:
    pairs = found.pairs
    bare = [scene.name for scene, index in pairs if not index.cells.any()]
    if len(bare) > _FEW * len(pairs):
        yield (
            f"{_some(bare)}: {len(bare)} of {len(pairs)} scenes have no pixel of any class; compare the "
            "values of the masks with dataset.classes and dataset.ignore_values"
        )
    for name in (*found.scenes,):
        if not found.counts(name).any():
            near = "" if found.config.split.by != "blocks" else ", or too near to blocks of val and test"
            yield f"no pixel of {name} has a class: all are nodata or ignored{near}; see dataset.split"


def _values(found: DataReport) -> Iterator[str]:
    """Values that don't look like what the type of the images says."""
    pairs = [(scene, index) for scene, index in found.pairs if index.bands.pixels]
    if not pairs:
        return
    highest = np.array([index.bands.high.max() for _, index in pairs])
    kind = np.dtype(pairs[0][0].image.dtype)
    if kind.itemsize == 1 and highest.max() <= len(found.table.names):
        yield (
            f"images: {kind.name} with no value above {highest.max():g}: these look like masks; see "
            "dataset.images"
        )
    elif kind.kind in "iu" and kind.itemsize > 1 and highest.max() <= 255:
        yield (
            f"images: {kind.name} with no value above 255: 8-bit values in a wider type, probably scaled by "
            "mistake; convert them anew, or to uint8"
        )
    typical = np.array([np.median(np.abs(index.bands.quantiles[:, -4])) for _, index in pairs])
    usual = np.median(typical)
    odd = [
        scene.name
        for (scene, _), value in zip(pairs, typical, strict=True)
        if usual > 0 and not 1 / _APART <= value / usual <= _APART
    ]
    if odd:
        yield (
            f"{_some(odd)}: bright values are more than {_APART:g} times larger or smaller than in the other "
            "scenes, as of another type or scale; bring all images to one scale"
        )


def _classes(found: DataReport) -> Iterator[str]:
    names = found.table.names
    for split in found.scenes:
        absent = [name for name, n in zip(names, found.counts(split), strict=True) if not n]
        if absent and len(absent) < len(names):
            yield f"no pixel of {split} has class {', '.join(absent)}; see dataset.split"
    train = found.index[found.training]
    for number, name in enumerate(names):
        without = sum(not index.cells[..., number].any() for index in train)
        if _FEW * len(train) < without < len(train):
            yield (
                f"class {name}: {without} of {len(train)} scenes of {found.training} have none of it; "
                "dataset.sampler=balanced draws all classes alike"
            )


def _nodata(found: DataReport) -> Iterator[str]:
    empty = [
        scene.name
        for scene, index in found.pairs
        if index.bands.pixels < _FEW * scene.image.height * scene.image.width
    ]
    if empty:
        yield f"{_some(empty)}: more than half of the image is nodata"
    for scene, index in found.pairs:
        if index.implausible:
            yield f"{scene.name}: {index.implausible} px {IMPLAUSIBLE}"


def _places(found: DataReport) -> Iterator[str]:
    systems = {scene.image.crs for scene, _ in found.pairs}
    if None in systems and len(systems) > 1:
        bare = [scene.name for scene, _ in found.pairs if scene.image.crs is None]
        yield f"{_some(bare)}: no CRS, while other images have one"
    side = found.config.window
    small = [s.name for s, _ in found.pairs if min(s.image.height, s.image.width) < side]
    if small:
        yield (
            f"{_some(small)}: smaller than dataset.window={side}, so that windows are padded with ignored "
            "pixels; take a smaller window"
        )
    if list(found.scenes) == [UNSPLIT]:
        yield "the scenes were looked at without a split"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
