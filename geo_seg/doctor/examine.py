"""Examination of a data set as training would read it; all errors are collected."""

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
"""Name of the only split of a data set that can't be split."""


@dataclass
class DataReport:
    """Result of an examination.

    Attributes:
        config: options of the data set.
        table: its class table.
        scenes: readable scenes of each split.
        index: index of each scene of each split, restricted to the area that the split has of it.
        full_index: index of each whole scene, by name.
        problems: errors with which training would fail or learn something wrong.
        warnings: oddities that may be intended.
        leaks: leakage between splits, see `find_leaks`.
        suggestions: options to put into the YAML, with reasons.
    """

    config: DatasetConfig
    table: ClassTable
    scenes: dict[str, list[Scene]]
    index: dict[str, list[SceneIndex]]
    full_index: dict[str, SceneIndex]
    problems: list[str]
    warnings: list[str] = field(default_factory=list)
    leaks: Sequence[Leak] = ()
    suggestions: Sequence[str] = ()

    @property
    def pairs(self) -> list[tuple[Scene, SceneIndex]]:
        """Every scene once, with the index of the whole scene."""
        scenes = {scene.name: scene for scenes in self.scenes.values() for scene in scenes}
        return [(scene, self.full_index[name]) for name, scene in scenes.items()]

    @property
    def training_split(self) -> str:
        """Name of the split that is trained on."""
        return "train" if "train" in self.scenes else UNSPLIT

    def counts(self, name: str) -> NDArray[np.int64]:
        """Return the labelled pixels (classes,) of a split."""
        zero = np.zeros(len(self.table.names), np.int64)
        return sum((index.class_counts.classes for index in self.index[name]), zero)


def examine(config: DatasetConfig, seed: int, border: int = 0) -> DataReport:
    """Examine all scenes of a data set.

    Args:
        config: options of the data set.
        seed: seed of the split.
        border: pixels around a training window that augmentation can move into it.

    Raises:
        ConfigError: the configuration contradicts itself.
        DataError: no scene can be read.
    """
    table = build_class_table(config)
    if config.generate == "demo":
        draw_demo(Path(config.root))
    errors: list[GeoSegError] = []
    scenes = open_scenes(config, errors.append)
    indices = try_index_scenes(scenes, table, config, errors.append)
    index = {
        scene.name: scene_index for scene, scene_index in zip(scenes, indices, strict=True) if scene_index
    }
    scenes = [scene for scene in scenes if scene.name in index]
    if not scenes:
        others = f" (none of {len(errors)} scenes can be read)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{others}")
    splits, leaks = {UNSPLIT: scenes}, []
    try:
        splits = split_scenes(scenes, config, seed, lambda: [index[scene.name].cells for scene in scenes])
        split_index = {name: [index[s.name] for s in split_part] for name, split_part in splits.items()}
        leaks = find_leaks(splits, split_index, config, border)
    except GeoSegError as error:
        errors.append(error)
    ordered_splits = {name: splits[name] for name in (*SPLITS, UNSPLIT) if splits.get(name)}
    return DataReport(
        config,
        table,
        ordered_splits,
        {
            name: split_counts(split_part, [index[s.name] for s in split_part], table, config)
            for name, split_part in ordered_splits.items()
        },
        index,
        [str(error) for error in errors],
        [line for line in [unused_scenes(scenes, splits)] if line],
        leaks,
    )
