"""The data set as Lightning sees it: scenes, statistics, and the batches of every split."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.band_statistics import BandMoments, fit_normalization
from geo_seg.data.class_table import build_class_table
from geo_seg.data.demo import draw_demo
from geo_seg.data.fingerprint import fingerprint
from geo_seg.data.index import SceneIndex, index_scenes
from geo_seg.data.scenes.discovery import (
    REQUIRED_SPLITS,
    SPLITS,
    labelled_cells,
    open_scenes,
    split_scenes,
    unused_scenes,
)
from geo_seg.data.scenes.leakage import describe_leaks, find_leaks
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.split_areas import split_counts
from geo_seg.data.windows.batch import Loader
from geo_seg.data.windows.custom_loader import CUSTOM_SAMPLE, CustomDatasetLoader
from geo_seg.data.windows.loader import WindowLoader
from geo_seg.data.windows.reader import WindowReader
from geo_seg.data.windows.sampler import RandomWindowSampler, SceneWindow, grid_windows
from geo_seg.errors import DataError


class SceneDataModule(pl.LightningDataModule):
    """Scenes in three splits, scanned once.

    Training windows lie at random offsets. Evaluation windows have twice their side, lie side by side
    and count every valid pixel once.

    Args:
        config: the data set.
        seed: of the split and of the training windows.
        needed: the splits that must have scenes.
        margin: pixels beside each side of a training window that augmentation can turn in.
        names: of the bands of a model that is there already, in its order.

    Attributes:
        fingerprint: see there.
        unused_scenes: see there.
        leak: what training windows show of the scenes of val and test, or None.
        class_counts: training pixels of each class; there with training scenes only.
        image_pixels: per class, the labelled training pixels of the scenes that hold it; as class_counts.
        bands: how images are normalised; there with training scenes only.

    Raises:
        DataError: files don't fit the configuration, see find_scenes and index_scenes, or the split leaks.
        ConfigError: the configuration contradicts itself or the files.
    """

    def __init__(
        self,
        config: DatasetConfig,
        seed: int,
        needed: Collection[str] = REQUIRED_SPLITS,
        margin: int = 0,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.margin = 0 if config.samples is not None else margin  # samples come as they are
        self.seed = seed
        self.table = build_class_table(config)
        if config.generate == "demo":
            draw_demo(Path(config.root))
        opened = open_scenes(config, names=names)
        self.scenes = split_scenes(opened, config, seed, lambda: labelled_cells(opened, config), needed)
        self.left_out = unused_scenes(opened, self.scenes)
        scenes = [scene for name in SPLITS for scene in self.scenes[name]]
        found = iter(index_scenes(scenes, self.table, config))
        index = {name: [next(found) for _ in self.scenes[name]] for name in SPLITS}
        self.fingerprint = fingerprint(self.scenes, index)
        self.leak = self._audit(index)
        self.index = {
            name: split_counts(self.scenes[name], index[name], self.table, config) for name in SPLITS
        }
        self._readers: list[WindowReader] = []
        if not self.scenes["train"]:
            return  # a test: the checkpoint knows what training has found
        counts = np.array([found.class_counts.classes for found in self.index["train"]])  # (scenes, classes)
        self.class_counts: list[int] = counts.sum(axis=0).tolist()
        self.image_pixels: list[int] = ((counts > 0) * counts.sum(axis=1, keepdims=True)).sum(axis=0).tolist()
        if not any(found.cells.any() for found in self.index["train"]):
            raise DataError(
                "no training pixel has a class: all are nodata, ignored or too near to blocks of val and "
                f"test; see dataset.ignore_values, dataset.split and dataset.window={config.window}"
            )
        self.bands = fit_normalization(
            config.normalize, [found.bands for found in self.index["train"]], self.dtype
        )

    @property
    def dtype(self) -> str:
        """NumPy name of the images' type."""
        return self._first.image.dtype

    @property
    def band_names(self) -> list[str]:
        """Names of the bands that the model sees, or their numbers where the files give none."""
        found = zip(*(scene.band_names for name in SPLITS for scene in self.scenes[name]), strict=True)
        known = [next(filter(None, names), "") for names in found]
        return [name or str(band) for name, band in zip(known, self._first.bands, strict=True)]

    @property
    def whole(self) -> tuple[list[Scene], list[BandMoments]]:
        """Every scene once, whatever its splits, with the statistics of all of it."""
        pairs = {
            scene.name: (scene, found.bands)
            for name in SPLITS
            for scene, found in zip(self.scenes[name], self.index[name], strict=True)
        }
        return [scene for scene, _ in pairs.values()], [bands for _, bands in pairs.values()]

    @property
    def _first(self) -> Scene:
        return next(scene for name in SPLITS for scene in self.scenes[name])

    def reader(self, split: str) -> WindowReader:
        """Reads windows of the scenes of a split."""
        self._readers.append(WindowReader(self.scenes[split], self.index[split], self.table, self.config))
        return self._readers[-1]

    @property
    def unreadable(self) -> dict[str, int]:
        """Per scene, how many windows could not be read so far and were ignored."""
        counts: Counter[str] = Counter()
        for name in SPLITS:
            for scene, found in zip(self.scenes[name], self.index[name], strict=True):
                counts[scene.name] = len(found.unreadable)  # a scene may have parts in several splits
        for reader in self._readers:
            counts.update(reader.unreadable)
        return dict(sorted((+counts).items()))

    @property
    def implausible(self) -> dict[str, int]:
        """Per scene that has some, how many pixels are nodata though nothing declares it; see Validity."""
        return {
            scene.name: found.implausible
            for name in SPLITS
            for scene, found in zip(self.scenes[name], self.index[name], strict=True)
            if found.implausible
        }

    def _audit(self, index: dict[str, list[SceneIndex]]) -> str | None:
        if not self.scenes["train"]:
            return None
        leaks = find_leaks(self.scenes, index, self.config, self.margin)
        if not leaks:
            return None
        line = describe_leaks(leaks, self.scenes, self.config)
        if not self.config.allow_leakage:
            raise DataError(
                f"{line}; split by place (dataset.split.group, table or by=blocks), or go on all the same "
                "with dataset.allow_leakage=true"
            )
        return line

    def train_dataloader(self) -> Loader:
        """Random windows of the training scenes, or the user's own samples."""
        config = self.config
        batch, world = config.batch_size, self._world_size
        if config.samples is not None:
            return CustomDatasetLoader(
                config.samples,
                self.table,
                len(self.bands.mean),
                size=config.windows_per_epoch,
                batch_size=batch,
                num_workers=config.num_workers,
                seed=self.seed,
                epoch=self._epoch,
                start=self._done,
                rank=self._rank,
                world_size=world,
            )
        size = config.windows_per_epoch or max(round(sum(self.class_counts) / config.window**2), 1)
        size = max(size, batch * world)
        windows = RandomWindowSampler(
            self.scenes["train"], self.index["train"], config.sampler, config.window, size, self.seed
        )
        return WindowLoader(
            self.reader("train"),
            windows,
            size=size,
            window=config.window,
            batch_size=batch,
            drop_last=True,
            threads=config.num_threads,
            epoch=self._epoch,
            start=self._done,
            rank=self._rank,
            world_size=world,
            margin=self.margin,
        )

    def val_dataloader(self) -> WindowLoader:
        """The grid of the validation scenes."""
        return self._grid("val")

    def evaluation_windows(self, split: str) -> list[SceneWindow]:
        """The evaluation windows of a split, scene by scene and row by row."""
        return grid_windows(self.scenes[split], self.evaluation_side)

    @property
    def evaluation_side(self) -> int:
        """Side of the evaluation windows in pixels."""
        return 2 * self.config.window

    def _grid(self, split: str) -> WindowLoader:
        places = self.evaluation_windows(split)
        return WindowLoader(
            self.reader(split),
            places,
            size=len(places),
            window=self.evaluation_side,
            batch_size=max(self.config.batch_size // 4, 1),
            drop_last=False,
            threads=self.config.num_threads,
            epoch=lambda: 0,
            rank=self._rank,
            world_size=self._world_size,
        )

    def describe_sample(self, place: Sequence[int]) -> str:
        """Where a training sample comes from, in words.

        Args:
            place: of it in a batch.
        """
        number, row, col = place
        if number == CUSTOM_SAMPLE:
            return f"sample {row}"
        name, side = self.scenes["train"][number].name, self.config.window
        return f"{name} rows {row}-{row + side - 1} columns {col}-{col + side - 1}"

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

    def _done(self) -> int:
        """Batches of the epoch that a resumed run has done before."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1
