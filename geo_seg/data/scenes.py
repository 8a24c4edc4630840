"""Which files belong together, and which of them train, validate and test."""

import csv
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from geo_seg.config import DatasetConfig, SplitConfig
from geo_seg.errors import ConfigError, DataError, nearest
from geo_seg.raster import RasterInfo, inspect, resolve_bands

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Scene:
    """One place: an image and its mask on the same grid.

    Attributes:
        name: the image's path below root.
        image: header of the image.
        mask: header of the mask.
        bands: numbers of the image's bands, in the order that the model sees them.
    """

    name: str
    image: RasterInfo
    mask: RasterInfo
    bands: tuple[int, ...]


def find_scenes(config: DatasetConfig, seed: int) -> dict[str, list[Scene]]:
    """Pairs images and masks, checks that they fit, and splits them.

    Args:
        config: the data set.
        seed: of a split by fraction.

    Returns:
        The scenes of train, val and test; test may be empty.

    Raises:
        DataError: no images, an image without a mask, a mask of another size or type, a band that isn't
            there, scenes whose numbers of bands differ, or an empty split.
        ConfigError: the split can't be made.
    """
    root = Path(config.root)
    scenes = [_scene(root, image, mask, config) for image, mask in _pairs(root, config.images, config.masks)]
    counts = {len(scene.bands): scene for scene in scenes}
    if len(counts) > 1:
        (few, a), (many, b), *_ = sorted(counts.items(), key=lambda item: item[0])
        raise DataError(
            f"{a.name} has {few} bands, {b.name} has {many}; choose some with dataset.bands=[1,2,3]"
        )
    splits = split(scenes, config.split, root, seed)
    for name in ("train", "val"):
        if not splits[name]:
            raise DataError(f"no scene is left for {name}: {len(scenes)} in all; see dataset.split")
    return splits


def split(scenes: Sequence[Scene], config: SplitConfig, root: Path, seed: int) -> dict[str, list[Scene]]:
    """Divides scenes into train, val and test; a scene is in one of them at most.

    Raises:
        ConfigError: the choice doesn't fit how the split is made.
        DataError: a list or table can't be read or doesn't fit the scenes, or a scene is in two splits.
    """
    if config.by == "fraction":
        return _by_fraction(scenes, config, root, seed)
    chosen = {
        name: _by_list(scenes, getattr(config, name), root, name)
        if config.by == "list"
        else _by_pattern(scenes, getattr(config, name), name)
        for name in SPLITS
    }
    if config.train is None:
        others = {scene.name for name in ("val", "test") for scene in chosen[name]}
        chosen["train"] = [scene for scene in scenes if scene.name not in others]
    both = {s.name for s in chosen["train"]} & {s.name for name in ("val", "test") for s in chosen[name]}
    if both:
        raise DataError(f"{min(both)} is in train and in val or test; see dataset.split")
    return chosen


def _pairs(root: Path, images: str, masks: str) -> list[tuple[Path, Path]]:
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; set dataset.root=, or GEO_SEG_DATA for the data sets that use it"
        )
    found = {key: path for path, key in _matches(root, images)}
    if not found:
        raise DataError(f"no images match {root / images}; see dataset.root and dataset.images")
    labels = {key: path for path, key in _matches(root, masks)}
    bare = [path for key, path in found.items() if key not in labels]
    if bare:
        raise DataError(
            f"{bare[0]}: no mask for this image ({len(bare)} of {len(found)} images have none); it would "
            f"match {root / masks} with the same text for the wildcards"
        )
    return [(path, labels[key]) for key, path in sorted(found.items())]


def _matches(root: Path, pattern: str) -> list[tuple[Path, tuple[str, ...]]]:
    """Files that match a glob, each with the text that its wildcards stand for."""
    regex = re.compile(
        "".join(
            {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "([^/])"}.get(part, re.escape(part))
            for part in re.split(r"(\*\*/|\*|\?)", pattern)
        )
    )
    found = []
    for path in sorted(root.glob(pattern)):
        match = regex.fullmatch(path.relative_to(root).as_posix())
        if match and path.is_file():
            found.append((path, match.groups()))
    return found


def _scene(root: Path, image: Path, mask: Path, config: DatasetConfig) -> Scene:
    header, label = inspect(image), inspect(mask)
    if (label.height, label.width) != (header.height, header.width):
        raise DataError(
            f"{mask}: the mask has {label.height} rows x {label.width} columns, its image {image} has "
            f"{header.height} x {header.width}; they must lie on the same grid"
        )
    if len(label.bands) != 1:
        raise DataError(f"{mask}: the mask has {len(label.bands)} bands, expected one band of class values")
    if not label.dtype.startswith(("int", "uint")):
        raise DataError(f"{mask}: the mask holds {label.dtype}, expected integers (class values); convert it")
    return Scene(image.relative_to(root).as_posix(), header, label, resolve_bands(header, config.bands))


def _by_fraction(
    scenes: Sequence[Scene], config: SplitConfig, root: Path, seed: int
) -> dict[str, list[Scene]]:
    places = _places(scenes, config, root)
    groups: dict[str, list[Scene]] = {}
    for scene in scenes:
        groups.setdefault(places[scene.name], []).append(scene)
    order = sorted(groups)
    random.Random(seed).shuffle(order)  # noqa: S311 - a reproducible split, not a secret
    result: dict[str, list[Scene]] = {name: [] for name in SPLITS}
    for name in ("val", "test"):
        share = getattr(config, name) or 0.0
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise ConfigError(f"dataset.split.{name}={share!r}: expected a share of the scenes, 0 to below 1")
        wanted = round(share * len(scenes)) or (1 if share > 0 else 0)
        while order and len(result[name]) < wanted:
            result[name] += groups[order.pop()]
    result["train"] = [scene for place in order for scene in groups[place]]
    return {name: sorted(found, key=lambda scene: scene.name) for name, found in result.items()}


def _places(scenes: Sequence[Scene], config: SplitConfig, root: Path) -> Mapping[str, str]:
    if config.table:
        rows = _table(root / config.table, config.column)
        missing = [scene.name for scene in scenes if Path(scene.name).stem not in rows]
        if missing:
            raise DataError(
                f"{root / config.table}: no row for {missing[0]} (its first column holds the names)"
            )
        return {scene.name: rows[Path(scene.name).stem] for scene in scenes}
    if config.group:
        found = {scene.name: re.search(config.group, scene.name) for scene in scenes}
        bare = [name for name, match in found.items() if match is None]
        if bare:
            raise DataError(f"dataset.split.group={config.group} finds nothing in {bare[0]}")
        return {name: (match.groups() or (match[0],))[0] for name, match in found.items() if match}
    return {scene.name: scene.name for scene in scenes}


def _table(path: Path, column: str | None) -> dict[str, str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; see dataset.split.table")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or [])
        if column not in names:
            raise DataError(f"{path}: no column {column!r}; {nearest(str(column), names)}")
        return {row[names[0]]: row[str(column)] for row in reader}


def _by_pattern(scenes: Sequence[Scene], patterns: object, name: str) -> list[Scene]:
    if patterns is None:
        return []
    wanted = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(wanted, list) or not all(isinstance(pattern, str) for pattern in wanted):
        raise ConfigError(f"dataset.split.{name}={patterns!r}: expected a glob or a list of globs")
    found = [scene for scene in scenes if any(fnmatch(scene.name, pattern) for pattern in wanted)]
    if not found:
        raise DataError(f"dataset.split.{name}: no image matches {wanted}, for example {scenes[0].name}")
    return found


def _by_list(scenes: Sequence[Scene], file: object, root: Path, name: str) -> list[Scene]:
    if file is None:
        return []
    path = root / str(file)
    if not path.is_file():
        raise DataError(f"{path}: no such file; see dataset.split.{name}")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    known = {
        key: scene for scene in scenes for key in (scene.name, Path(scene.name).name, Path(scene.name).stem)
    }
    for line in lines:
        if line not in known:
            raise DataError(
                f"{path}: {line!r} is none of the {len(scenes)} images; {nearest(line, known)[:80]}"
            )
    return [known[line] for line in lines]
