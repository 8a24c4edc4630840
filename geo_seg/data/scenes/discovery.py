"""Which files belong together, and which of them train, validate and test."""

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
"""Splits that training can't do without."""
_NAMED = 5  # scenes that a line names


def find_scenes(
    config: DatasetConfig,
    seed: int,
    needed: Collection[str] = REQUIRED_SPLITS,
    names: Sequence[str] | None = None,
) -> dict[str, list[Scene]]:
    """Finds images and labels, checks that they fit, and splits them.

    Args:
        config: the data set.
        seed: of a split by fraction or blocks.
        needed: the splits that must have scenes.
        names: of the bands of a model that is there already; see reorder_bands.

    Returns:
        The scenes of train, val and test; those that aren't needed may be empty.

    Raises:
        DataError: no images, an image without a mask, a mask on another grid or of another type, a band that
            isn't there, scenes whose numbers of bands or types differ or whose bands contradict each other,
            or an empty split.
        ConfigError: the split can't be made.
    """
    scenes = open_scenes(config, raise_error, names)
    return split_scenes(scenes, config, seed, lambda: labelled_cells(scenes, config), needed)


def open_scenes(
    config: DatasetConfig, on_error: OnError = raise_error, names: Sequence[str] | None = None
) -> list[Scene]:
    """Finds images and labels, and checks that they fit.

    Args:
        config: the data set.
        on_error: is told what is wrong with a scene, which is then left out.
        names: of the bands of a model that is there already; see reorder_bands.

    Raises:
        DataError: no images, or no folder.
        ConfigError: an option has nothing to do.
    """
    sources = find_scene_files(config, on_error)
    headers = HeaderCache(config)
    labels = LabelPreparer(config, build_class_table(config), headers.get)
    idle = first_unused_option(config)
    if idle and not any(is_vector(source.mask) for source in sources):
        raise ConfigError(f"dataset.label.{idle}: is for polygons, and no mask is a vector file")

    def opened(source: SceneFiles) -> Scene | DataError:
        try:
            return _scene(source, config, labels, headers)
        except DataError as error:
            return error

    scenes = []
    with ThreadPoolExecutor(config.num_threads) as pool:
        for found in pool.map(opened, sources):
            if isinstance(found, DataError):
                on_error(found)
            else:
                scenes.append(found)
    headers.save()
    _check_compatible(scenes, on_error)
    return reorder_bands(scenes, config.bands, names, on_error)


def labelled_cells(scenes: Sequence[Scene], config: DatasetConfig) -> list[NDArray[np.uint16]]:
    """Where which class lies in scenes; see SceneIndex."""
    return [found.cells for found in index_scenes(scenes, build_class_table(config), config)]


def split_scenes(
    scenes: Sequence[Scene],
    config: DatasetConfig,
    seed: int,
    cells: Callable[[], Sequence[NDArray[np.uint16]]],
    needed: Collection[str] = REQUIRED_SPLITS,
) -> dict[str, list[Scene]]:
    """Divides scenes into train, val and test; a scene is in one of them at most, but for blocks.

    Args:
        scenes: all of them.
        config: the data set.
        seed: of a split by fraction or blocks.
        cells: gives the cells of each scene, see SceneIndex; asked for where blocks are drawn by labels.
        needed: the splits that must have scenes.

    Raises:
        ConfigError: the choice doesn't fit how the split is made.
        DataError: a list or table can't be read or doesn't fit the scenes, a scene is in two splits, or a
            split that is needed is empty.
    """
    if config.split.by == "blocks" and not any(scene.split for scene in scenes):
        known = cells() if config.split.balance else ()
        found = split_by_blocks(scenes, config.split, seed, config.window, known)
    else:
        found = _split(scenes, config.split, Path(config.root), seed, needed)
    for name in SPLITS:
        if name in needed and not found[name]:
            raise DataError(f"no scene is left for {name}: {len(scenes)} in all; see dataset.split")
    return found


def unused_scenes(scenes: Sequence[Scene], parts: Mapping[str, Sequence[Scene]]) -> str:
    """Return what the user should know of scenes that are in no split; "" if there are none.

    Args:
        scenes: all of them.
        parts: of each split.
    """
    used = {scene.name for part in parts.values() for scene in part}
    unused = [scene.name for scene in scenes if scene.name not in used]
    if not unused:
        return ""
    more = f" and {len(unused) - _NAMED} more" if unused[_NAMED:] else ""
    return (
        f"{len(unused)} of {len(scenes)} scenes are in no split and are left out: "
        f"{', '.join(unused[:_NAMED])}{more}; see dataset.split"
    )


def _split(
    scenes: Sequence[Scene], config: SplitConfig, root: Path, seed: int, needed: Collection[str]
) -> dict[str, list[Scene]]:
    named = [scene for scene in scenes if scene.split]
    if config.by == "manifest":
        return _by_manifest(scenes)
    if named:
        raise ConfigError(
            f"dataset.split.by={config.by}: the manifest has a column split; take manifest, or leave it out"
        )
    if config.by == "fraction":
        return _by_fraction(scenes, config, root, seed)
    lenient = not {*REQUIRED_SPLITS} <= {*needed}  # scenes of the other splits may lie elsewhere
    chosen = {}
    for name in SPLITS:
        said, strict = getattr(config, name), name in needed or not lenient
        chosen[name] = (
            _by_list(scenes, said, root, name, strict)
            if config.by == "list"
            else _by_pattern(scenes, said, name, strict)
        )
    if config.train is None:
        others = {scene.name for name in ("val", "test") for scene in chosen[name]}
        chosen["train"] = [scene for scene in scenes if scene.name not in others]
    both = {s.name for s in chosen["train"]} & {s.name for name in ("val", "test") for s in chosen[name]}
    if both:
        raise DataError(f"{min(both)} is in train and in val or test; see dataset.split")
    return chosen


def _scene(source: SceneFiles, config: DatasetConfig, labels: LabelPreparer, headers: HeaderCache) -> Scene:
    root = None if config.allow_outside else Path(config.root)
    header, bands = open_image(source.images, config.bands, cache_dir(config.cache_dir), headers.get, root)
    mask, notes = labels.prepare(source, header)
    if config.bands is None and header.alpha and header.alpha != header.bands:
        notes.append(_mask_or_measurement(header))
    return Scene(source.name, header, mask, bands, source.split, tuple(notes))


def _mask_or_measurement(header: RasterInfo) -> str:
    every = ",".join(map(str, sorted((*header.bands, *header.alpha))))
    return (
        f"band {header.alpha[0]} is marked as alpha and says which pixels are valid; if it holds near "
        f"infrared, as in many aerial images, take dataset.bands=[{every}]"
    )


def _check_compatible(scenes: Sequence[Scene], wrong: OnError) -> None:
    """Tells of scenes that can't be learnt from together with the first one."""
    for scene in scenes:
        first = scenes[0]
        if len(scene.bands) != len(first.bands):
            few, many = sorted((first, scene), key=lambda one: len(one.bands))
            wrong(
                DataError(
                    f"{few.name} has {len(few.bands)} bands, {many.name} has {len(many.bands)}; choose some "
                    "with dataset.bands=[1,2,3]"
                )
            )
        if scene.image.dtype != first.image.dtype:
            wrong(
                DataError(
                    f"{first.name} holds {first.image.dtype}, {scene.name} holds {scene.image.dtype}; "
                    "convert one so that the same value means the same in all images"
                )
            )


def _by_manifest(scenes: Sequence[Scene]) -> dict[str, list[Scene]]:
    bare = [scene.name for scene in scenes if not scene.split]
    if bare:
        raise DataError(f"{bare[0]}: the manifest names no split for it; see dataset.split.by")
    return {name: [scene for scene in scenes if scene.split == name] for name in SPLITS}


def _by_fraction(
    scenes: Sequence[Scene], config: SplitConfig, root: Path, seed: int
) -> dict[str, list[Scene]]:
    places = _scene_places(scenes, config, root)
    groups: dict[str, list[Scene]] = {}
    for scene in scenes:
        groups.setdefault(places[scene.name], []).append(scene)
    order = sorted(groups)
    random.Random(seed).shuffle(order)  # noqa: S311 - a reproducible split, not a secret
    result: dict[str, list[Scene]] = {name: [] for name in SPLITS}
    for name in ("val", "test"):
        part = getattr(config, name) or 0
        wanted = round(part * len(scenes)) or (1 if part > 0 else 0)
        while order and len(result[name]) < wanted:
            result[name] += groups[order.pop()]
    result["train"] = [scene for place in order for scene in groups[place]]
    return {name: sorted(found, key=lambda scene: scene.name) for name, found in result.items()}


def _scene_places(scenes: Sequence[Scene], config: SplitConfig, root: Path) -> Mapping[str, str]:
    if config.table:
        return list_positions(root / config.table, config.column, [scene.name for scene in scenes])
    if config.group:
        found = {scene.name: re.search(config.group, scene.name) for scene in scenes}
        bare = [name for name, match in found.items() if match is None]
        if bare:
            raise DataError(f"dataset.split.group={config.group} finds nothing in {bare[0]}")
        return {name: (match.groups() or (match[0],))[0] for name, match in found.items() if match}
    return {scene.name: scene.name for scene in scenes}


def _by_pattern(
    scenes: Sequence[Scene], patterns: str | list[str] | None, name: str, strict: bool
) -> list[Scene]:
    if patterns is None:
        return []
    wanted = [patterns] if isinstance(patterns, str) else patterns
    found = [scene for scene in scenes if any(fnmatch(scene.name, pattern) for pattern in wanted)]
    if strict and not found:
        raise DataError(f"dataset.split.{name}: no image matches {wanted}, for example {scenes[0].name}")
    return found


def _by_list(scenes: Sequence[Scene], file: object, root: Path, name: str, strict: bool) -> list[Scene]:
    if file is None:
        return []
    path = root / str(file)
    if not strict and not path.is_file():
        return []
    known = {scene.name: scene for scene in scenes}
    return [known[found] for found in read_list(path, name, list(known), strict)]
