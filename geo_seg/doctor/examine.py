"""A data set looked at as training would, with all that is wrong collected."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.class_table import ClassTable, build_class_table
from geo_seg.data.demo import draw_demo
from geo_seg.data.index import SceneIndex, try_index_scenes
from geo_seg.data.scenes.discovery import SPLITS, open_scenes, split_scenes, unused_scenes
from geo_seg.data.scenes.leakage import Leak, find_leaks
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.split_areas import split_counts
from geo_seg.errors import DataError, GeoSegError

UNSPLIT = "all"
"""Name of the one split of a data set that can't be split."""


@dataclass
class DataReport:
    """What was found.

    Attributes:
        config: of the data set.
        table: its classes.
        scenes: per split; the scenes that could be read.
        index: of each scene, with what the split has of it.
        whole: index of each scene by its name, whatever its splits have of it.
        problems: with which training would fail or go wrong.
        warnings: what may be meant so.
        leaks: see find_leaks.
        suggestions: what to put into the YAML.
    """

    config: DatasetConfig
    table: ClassTable
    scenes: dict[str, list[Scene]]
    index: dict[str, list[SceneIndex]]
    whole: dict[str, SceneIndex]
    problems: list[str]
    warnings: list[str] = field(default_factory=list)
    leaks: Sequence[Leak] = ()
    suggestions: Sequence[str] = ()

    @property
    def pairs(self) -> list[tuple[Scene, SceneIndex]]:
        """Every scene once, with the index of all of it."""
        found = {scene.name: scene for scenes in self.scenes.values() for scene in scenes}
        return [(scene, self.whole[name]) for name, scene in found.items()]

    @property
    def training(self) -> str:
        """The split that is learnt from."""
        return "train" if "train" in self.scenes else UNSPLIT

    def counts(self, name: str) -> NDArray[np.int64]:
        """(classes,) labelled pixels of a split."""
        zero = np.zeros(len(self.table.names), np.int64)
        return sum((found.class_counts.classes for found in self.index[name]), zero)


def examine(config: DatasetConfig, seed: int, border: int = 0) -> DataReport:
    """Looks at all scenes.

    Args:
        config: the data set.
        seed: of the split.
        border: pixels beside each side of a training window that augmentation can turn in.

    Raises:
        ConfigError: the configuration contradicts itself.
        DataError: there is nothing to look at.
    """
    table = build_class_table(config)
    if config.generate == "demo":
        draw_demo(Path(config.root))
    errors: list[GeoSegError] = []
    scenes = open_scenes(config, errors.append)
    looked = try_index_scenes(scenes, table, config, errors.append)
    index = {scene.name: found for scene, found in zip(scenes, looked, strict=True) if found}
    scenes = [scene for scene in scenes if scene.name in index]
    if not scenes:
        more = f" (none of {len(errors)} scenes can be looked at)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}")
    parts, leaks = {UNSPLIT: scenes}, []
    try:
        parts = split_scenes(scenes, config, seed, lambda: [index[scene.name].cells for scene in scenes])
        inside = {name: [index[s.name] for s in part] for name, part in parts.items()}
        leaks = find_leaks(parts, inside, config, border)
    except GeoSegError as error:
        errors.append(error)
    ordered = {name: parts[name] for name in (*SPLITS, UNSPLIT) if parts.get(name)}
    return DataReport(
        config,
        table,
        ordered,
        {
            name: split_counts(part, [index[s.name] for s in part], table, config)
            for name, part in ordered.items()
        },
        index,
        [str(error) for error in errors],
        [line for line in [unused_scenes(scenes, parts)] if line],
        leaks,
    )
