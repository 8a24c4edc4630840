"""Fingerprint of a data set: a hash of its scenes, splits and pixels."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.class_table import build_class_table
from geo_seg.data.index import SceneIndex, index_scenes
from geo_seg.data.scenes.discovery import find_scenes
from geo_seg.data.scenes.scene import Scene


def fingerprint(scenes: Mapping[str, Sequence[Scene]], index: Mapping[str, Sequence[SceneIndex]]) -> str:
    """Return a hash of the scenes of each split: names, blocks, and a checksum of all pixels and labels.

    Moving or copying files doesn't change it; changing a pixel does.

    Args:
        scenes: of each split.
        index: of each scene of each split.
    """
    rows = [
        [split, scene.name, _layout(scene), scene_index.checksum]
        for split in scenes
        for scene, scene_index in zip(scenes[split], index[split], strict=True)
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _layout(scene: Scene) -> list[object]:
    return [scene.image.height, scene.image.width, scene.image.dtype, scene.blocks, scene.excluded]


def data_fingerprint(config: DatasetConfig, seed: int) -> str:
    """Return the fingerprint of a data set on disk; unchanged files are not read again.

    Args:
        config: the data set.
        seed: of the split.

    Raises:
        DataError: files do not match the configuration; see find_scenes and index_scenes.
        ConfigError: the configuration contradicts itself or the files.
    """
    scenes = find_scenes(config, seed)
    flat = [scene for split_scenes in scenes.values() for scene in split_scenes]
    index = iter(index_scenes(flat, build_class_table(config), config))
    return fingerprint(
        scenes, {split: [next(index) for _ in split_scenes] for split, split_scenes in scenes.items()}
    )
