"""What tells two states of a data set apart."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.class_table import build_class_table
from geo_seg.data.index import SceneIndex, index_scenes
from geo_seg.data.scenes.discovery import find_scenes
from geo_seg.data.scenes.scene import Scene


def fingerprint(scenes: Mapping[str, Sequence[Scene]], index: Mapping[str, Sequence[SceneIndex]]) -> str:
    """A hash of the scenes of each split: their names, blocks, and a checksum of all pixels and labels.

    Moving or copying files doesn't change it; a pixel does.

    Args:
        scenes: per split.
        index: per split, of each scene.
    """
    facts = [
        [split, scene.name, _shape(scene), found.checksum]
        for split in scenes
        for scene, found in zip(scenes[split], index[split], strict=True)
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _shape(scene: Scene) -> list[object]:
    return [scene.image.height, scene.image.width, scene.image.dtype, scene.blocks, scene.excluded]


def data_fingerprint(config: DatasetConfig, seed: int) -> str:
    """The fingerprint of a data set as it is now; files that haven't changed are not read again.

    Args:
        config: the data set.
        seed: of the split.

    Raises:
        DataError: files don't fit the configuration; see find_scenes and index_scenes.
        ConfigError: the configuration contradicts itself or the files.
    """
    scenes = find_scenes(config, seed)
    listed = [scene for own in scenes.values() for scene in own]
    found = iter(index_scenes(listed, build_class_table(config), config))
    return fingerprint(scenes, {split: [next(found) for _ in own] for split, own in scenes.items()})
