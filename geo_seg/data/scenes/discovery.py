"""Discovery of scenes, and their split into train, val and test."""

import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.data.class_table import build_class_table
from geo_seg.data.headers import HeaderCache
from geo_seg.data.index import index_scenes
from geo_seg.data.labels.prepare import LabelPreparer, first_unused_option
from geo_seg.data.scenes.band_order import reorder_bands
from geo_seg.data.scenes.file_pairs import SceneFiles, find_scene_files, is_vector
from geo_seg.data.scenes.listing import list_positions, read_list
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.scenes.spatial_blocks import split_by_blocks
from geo_seg.errors import ConfigError, DataError, OnError, raise_error
from geo_seg.raster.open_image import open_image
from geo_seg.raster.reader import RasterInfo
from geo_seg.runtime.cache_dir import cache_dir

SPLITS = ("train", "val", "test")
REQUIRED_SPLITS = ("train", "val")
"""Splits that training requires."""
_MAX_NAMED = 5  # scenes in a message


def find_scenes(
    config: DatasetConfig,
    seed: int,
    needed: Collection[str] = REQUIRED_SPLITS,
    names: Sequence[str] | None = None,
) -> dict[str, list[Scene]]:
    """Find images and labels, check them, and split them.

    Args:
        config: the data set.
        seed: of a split by fraction or blocks.
        needed: splits that must not be empty.
        names: band names of a trained model; see reorder_bands.

    Returns:
        The scenes of train, val and test; splits that are not needed may be empty.

    Raises:
        DataError: there are no images, an image has no mask, a mask has another grid or an unsuitable type, a
            band doesn't exist, scenes differ in number of bands or data type, their band names contradict
            each other, or a split is empty.
        ConfigError: the options of the split don't suit the data set.
    """
    scenes = open_scenes(config, raise_error, names)
    return split_scenes(scenes, config, seed, lambda: labelled_cells(scenes, config), needed)


def open_scenes(
    config: DatasetConfig, on_error: OnError = raise_error, names: Sequence[str] | None = None
) -> list[Scene]:
    """Find images and labels, and check them.

    Args:
        config: the data set.
        on_error: called with each error of a single scene, which is then left out.
        names: band names of a trained model; see reorder_bands.

    Raises:
        DataError: the folder doesn't exist, or has no images.
        ConfigError: an option for vector labels is set, and no label is a vector file.
    """
    sources = find_scene_files(config, on_error)
    headers = HeaderCache(config)
    labels = LabelPreparer(config, build_class_table(config), headers.get)
    unused = first_unused_option(config)
    if unused and not any(is_vector(source.mask) for source in sources):
        raise ConfigError(f"dataset.label.{unused}: is for polygons, and no mask is a vector file")

    def try_open(source: SceneFiles) -> Scene | DataError:
        try:
            return _open_scene(source, config, labels, headers)
        except DataError as error:
            return error

    scenes = []
    with ThreadPoolExecutor(config.num_threads) as pool:
        for result in pool.map(try_open, sources):
            if isinstance(result, DataError):
                on_error(result)
            else:
                scenes.append(result)
    headers.save()
    _check_compatible(scenes, on_error)
    return reorder_bands(scenes, config.bands, names, on_error)


def labelled_cells(scenes: Sequence[Scene], config: DatasetConfig) -> list[NDArray[np.uint16]]:
    """Return the class counts in cells of each scene; see SceneIndex.cells."""
    return [index.cells for index in index_scenes(scenes, build_class_table(config), config)]


def split_scenes(
    scenes: Sequence[Scene],
    config: DatasetConfig,
    seed: int,
    cells: Callable[[], Sequence[NDArray[np.uint16]]],
    needed: Collection[str] = REQUIRED_SPLITS,
) -> dict[str, list[Scene]]:
    """Divide scenes into train, val and test; without blocks, each scene is in one split at most.

    Args:
        scenes: all scenes.
        config: the data set.
        seed: of a split by fraction or blocks.
        cells: returns the class counts of each scene, see SceneIndex.cells; called if blocks are drawn by
            labels.
        needed: splits that must not be empty.

    Raises:
        ConfigError: the kind of split contradicts the manifest.
        DataError: a list or table can't be read or doesn't match the scenes, a scene is in two splits, or a
            needed split is empty.
    """
    if config.split.by == "blocks" and not any(scene.split for scene in scenes):
        class_cells = cells() if config.split.balance else ()
        splits = split_by_blocks(scenes, config.split, seed, config.window, class_cells)
    else:
        splits = _split(scenes, config.split, Path(config.root), seed, needed)
    for name in SPLITS:
        if name in needed and not splits[name]:
            raise DataError(f"no scene is left for {name}: {len(scenes)} in all; see dataset.split")
    return splits


def unused_scenes(scenes: Sequence[Scene], parts: Mapping[str, Sequence[Scene]]) -> str:
    """Return a warning about scenes that are in no split, or "" if there are none.

    Args:
        scenes: all scenes.
        parts: scenes of each split.
    """
    used = {scene.name for part in parts.values() for scene in part}
    unused = [scene.name for scene in scenes if scene.name not in used]
    if not unused:
        return ""
    more = f" and {len(unused) - _MAX_NAMED} more" if unused[_MAX_NAMED:] else ""
    return (
        f"{len(unused)} of {len(scenes)} scenes are in no split and are left out: "
        f"{', '.join(unused[:_MAX_NAMED])}{more}; see dataset.split"
    )


def _split(
    scenes: Sequence[Scene], config: SplitConfig, root: Path, seed: int, needed: Collection[str]
) -> dict[str, list[Scene]]:
    assigned = [scene for scene in scenes if scene.split]
    if config.by == "manifest":
        return _by_manifest(scenes)
    if assigned:
        raise ConfigError(
            f"dataset.split.by={config.by}: the manifest has a column split; use manifest, or leave it out"
        )
    if config.by == "fraction":
        return _by_fraction(scenes, config, root, seed)
    partial = not {*REQUIRED_SPLITS} <= {*needed}  # a test may lack the scenes of other splits
    splits = {}
    for name in SPLITS:
        choice, required = getattr(config, name), name in needed or not partial
        splits[name] = (
            _by_list(scenes, choice, root, name, required)
            if config.by == "list"
            else _by_pattern(scenes, choice, name, required)
        )
    if config.train is None:
        held_out = {scene.name for name in ("val", "test") for scene in splits[name]}
        splits["train"] = [scene for scene in scenes if scene.name not in held_out]
    overlap = {s.name for s in splits["train"]} & {s.name for name in ("val", "test") for s in splits[name]}
    if overlap:
        raise DataError(f"{min(overlap)} is in train and in val or test; see dataset.split")
    return splits


def _open_scene(
    source: SceneFiles, config: DatasetConfig, labels: LabelPreparer, headers: HeaderCache
) -> Scene:
    root = None if config.allow_outside else Path(config.root)
    header, bands = open_image(source.images, config.bands, cache_dir(config.cache_dir), headers.get, root)
    mask, notes = labels.prepare(source, header)
    if config.bands is None and header.alpha and header.alpha != header.bands:
        notes.append(_alpha_note(header))
    return Scene(source.name, header, mask, bands, source.split, tuple(notes))


def _alpha_note(header: RasterInfo) -> str:
    bands = ",".join(map(str, sorted((*header.bands, *header.alpha))))
    return (
        f"band {header.alpha[0]} is marked as alpha and used as validity mask; if it holds near "
        f"infrared, as in many aerial images, set dataset.bands=[{bands}]"
    )


def _check_compatible(scenes: Sequence[Scene], on_error: OnError) -> None:
    """Report scenes whose number of bands or data type differs from those of the first scene."""
    for scene in scenes:
        first = scenes[0]
        if len(scene.bands) != len(first.bands):
            fewer, more = sorted((first, scene), key=lambda scene: len(scene.bands))
            on_error(
                DataError(
                    f"{fewer.name} has {len(fewer.bands)} bands, {more.name} has {len(more.bands)}; select "
                    "some with dataset.bands=[1,2,3]"
                )
            )
        if scene.image.dtype != first.image.dtype:
            on_error(
                DataError(
                    f"{first.name} holds {first.image.dtype}, {scene.name} holds {scene.image.dtype}; "
                    "convert one so that equal values have the same meaning in all images"
                )
            )


def _by_manifest(scenes: Sequence[Scene]) -> dict[str, list[Scene]]:
    unassigned = [scene.name for scene in scenes if not scene.split]
    if unassigned:
        raise DataError(f"{unassigned[0]}: the manifest assigns no split to it; see dataset.split.by")
    return {name: [scene for scene in scenes if scene.split == name] for name in SPLITS}


def _by_fraction(
    scenes: Sequence[Scene], config: SplitConfig, root: Path, seed: int
) -> dict[str, list[Scene]]:
    group_of = _group_of_scenes(scenes, config, root)
    groups: dict[str, list[Scene]] = {}
    for scene in scenes:
        groups.setdefault(group_of[scene.name], []).append(scene)
    order = sorted(groups)
    random.Random(seed).shuffle(order)  # noqa: S311 - a reproducible split, not a secret
    splits: dict[str, list[Scene]] = {name: [] for name in SPLITS}
    for name in ("val", "test"):
        share = getattr(config, name) or 0
        target = round(share * len(scenes)) or (1 if share > 0 else 0)
        while order and len(splits[name]) < target:
            splits[name] += groups[order.pop()]
    splits["train"] = [scene for group in order for scene in groups[group]]
    return {name: sorted(members, key=lambda scene: scene.name) for name, members in splits.items()}


def _group_of_scenes(scenes: Sequence[Scene], config: SplitConfig, root: Path) -> Mapping[str, str]:
    if config.table:
        return list_positions(root / config.table, config.column, [scene.name for scene in scenes])
    if config.group:
        matches = {scene.name: re.search(config.group, scene.name) for scene in scenes}
        unmatched = [name for name, match in matches.items() if match is None]
        if unmatched:
            raise DataError(f"dataset.split.group={config.group} doesn't match {unmatched[0]}")
        return {name: (match.groups() or (match[0],))[0] for name, match in matches.items() if match}
    return {scene.name: scene.name for scene in scenes}


def _by_pattern(
    scenes: Sequence[Scene], patterns: str | list[str] | None, name: str, required: bool
) -> list[Scene]:
    if patterns is None:
        return []
    globs = [patterns] if isinstance(patterns, str) else patterns
    matching = [scene for scene in scenes if any(fnmatch(scene.name, pattern) for pattern in globs)]
    if required and not matching:
        raise DataError(f"dataset.split.{name}: no image matches {globs}, for example {scenes[0].name}")
    return matching


def _by_list(scenes: Sequence[Scene], file: object, root: Path, name: str, required: bool) -> list[Scene]:
    if file is None:
        return []
    path = root / str(file)
    if not required and not path.is_file():
        return []
    by_name = {scene.name: scene for scene in scenes}
    return [by_name[listed] for listed in read_list(path, name, list(by_name), required)]
