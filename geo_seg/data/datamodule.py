"""Lightning data module: scenes, statistics, and the batches of every split."""

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
    """Data module of scenes in three splits, each scanned once.

    Training windows lie at random offsets. Evaluation windows have twice the side of training windows and
    lie side by side, so that every valid pixel counts once.

    Args:
        config: the data set.
        seed: of the split and of the training windows.
        needed: splits that must not be empty.
        border: pixels around a training window that augmentation can show; see AugmentConfig.border.
        names: band names of a trained model, in its order; None without one.

    Attributes:
        fingerprint: hash of scenes, splits and pixels; see fingerprint.
        left_out: warning about scenes in no split, or ""; see unused_scenes.
        leak: warning about scenes of val and test that training windows show, or None.
        class_counts: training pixels of each class; set only if there are training scenes.
        image_pixels: for each class, the labelled training pixels of the scenes that contain it; likewise.
        bands: normalization; set only if there are training scenes.

    Raises:
        DataError: files do not match the configuration, see find_scenes and index_scenes, or the split leaks.
        ConfigError: the configuration contradicts itself or the files.
    """

    def __init__(
        self,
        config: DatasetConfig,
        seed: int,
        needed: Collection[str] = REQUIRED_SPLITS,
        border: int = 0,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.border = 0 if config.samples is not None else border  # samples have no border
        self.seed = seed
        self.table = build_class_table(config)
        if config.generate == "demo":
            draw_demo(Path(config.root))
        opened = open_scenes(config, names=names)
        self.scenes = split_scenes(opened, config, seed, lambda: labelled_cells(opened, config), needed)
        self.left_out = unused_scenes(opened, self.scenes)
        scenes = [scene for name in SPLITS for scene in self.scenes[name]]
        indexes = iter(index_scenes(scenes, self.table, config))
        index = {name: [next(indexes) for _ in self.scenes[name]] for name in SPLITS}
        self.fingerprint = fingerprint(self.scenes, index)
        self.leak = self._check_leakage(index)
        self.index = {
            name: split_counts(self.scenes[name], index[name], self.table, config) for name in SPLITS
        }
        self._readers: list[WindowReader] = []
        if not self.scenes["train"]:
            return  # a test: the checkpoint holds class counts and normalization
        train = self.index["train"]
        counts = np.array([scene.class_counts.classes for scene in train])  # (scenes, classes)
        self.class_counts: list[int] = counts.sum(axis=0).tolist()
        self.image_pixels: list[int] = ((counts > 0) * counts.sum(axis=1, keepdims=True)).sum(axis=0).tolist()
        if not any(scene.cells.any() for scene in train):
            raise DataError(
                "no training pixel has a class: all are nodata, ignored or too near to blocks of val and "
                f"test; see dataset.ignore_values, dataset.split and dataset.window={config.window}"
            )
        self.bands = fit_normalization(config.normalize, [scene.bands for scene in train], self.dtype)

    @property
    def dtype(self) -> str:
        """NumPy name of the images' data type."""
        return self._first.image.dtype

    @property
    def band_names(self) -> list[str]:
        """Names of the model's bands; the band number where no file gives a name."""
        by_band = zip(*(scene.band_names for name in SPLITS for scene in self.scenes[name]), strict=True)
        names = [next(filter(None, candidates), "") for candidates in by_band]
        return [name or str(band) for name, band in zip(names, self._first.bands, strict=True)]

    @property
    def whole(self) -> tuple[list[Scene], list[BandMoments]]:
        """All scenes, each once even if several splits share it, and the statistics of each whole scene."""
        pairs = {
            scene.name: (scene, index.bands)
            for name in SPLITS
            for scene, index in zip(self.scenes[name], self.index[name], strict=True)
        }
        return [scene for scene, _ in pairs.values()], [bands for _, bands in pairs.values()]

    @property
    def _first(self) -> Scene:
        return next(scene for name in SPLITS for scene in self.scenes[name])

    def reader(self, split: str) -> WindowReader:
        """Return a reader of windows of a split, whose failed reads count in `unreadable`."""
        self._readers.append(WindowReader(self.scenes[split], self.index[split], self.table, self.config))
        return self._readers[-1]

    @property
    def unreadable(self) -> dict[str, int]:
        """Number of windows of each scene that could not be read so far and were ignored."""
        counts: Counter[str] = Counter()
        for name in SPLITS:
            for scene, index in zip(self.scenes[name], self.index[name], strict=True):
                counts[scene.name] = len(index.unreadable)  # a scene may have parts in several splits
        for reader in self._readers:
            counts.update(reader.unreadable)
        return dict(sorted((+counts).items()))

    @property
    def implausible(self) -> dict[str, int]:
        """Number of undeclared nodata pixels of each scene that has some; see Validity."""
        return {
            scene.name: index.implausible
            for name in SPLITS
            for scene, index in zip(self.scenes[name], self.index[name], strict=True)
            if index.implausible
        }

    def _check_leakage(self, index: dict[str, list[SceneIndex]]) -> str | None:
        if not self.scenes["train"]:
            return None
        leaks = find_leaks(self.scenes, index, self.config, self.border)
        if not leaks:
            return None
        line = describe_leaks(leaks, self.scenes, self.config)
        if not self.config.allow_leakage:
            raise DataError(
                f"{line}; split by location (dataset.split.group, table or by=blocks), or accept it with "
                "dataset.allow_leakage=true"
            )
        return line

    def train_dataloader(self) -> Loader:
        """Return random windows of the training scenes, or the samples of a custom data set."""
        config = self.config
        batch_size, world_size = config.batch_size, self._world_size
        if config.samples is not None:
            return CustomDatasetLoader(
                config.samples,
                self.table,
                len(self.bands.mean),
                size=config.windows_per_epoch,
                batch_size=batch_size,
                num_workers=config.num_workers,
                seed=self.seed,
                epoch=self._epoch,
                start=self._batches_done,
                rank=self._rank,
                world_size=world_size,
            )
        size = config.windows_per_epoch or max(round(sum(self.class_counts) / config.window**2), 1)
        size = max(size, batch_size * world_size)
        sampler = RandomWindowSampler(
            self.scenes["train"], self.index["train"], config.sampler, config.window, size, self.seed
        )
        return WindowLoader(
            self.reader("train"),
            sampler,
            size=size,
            window=config.window,
            batch_size=batch_size,
            drop_last=True,
            threads=config.num_threads,
            epoch=self._epoch,
            start=self._batches_done,
            rank=self._rank,
            world_size=world_size,
            border=self.border,
        )

    def val_dataloader(self) -> WindowLoader:
        """Return the evaluation windows of the validation scenes."""
        return self._grid("val")

    def evaluation_windows(self, split: str) -> list[SceneWindow]:
        """Return the evaluation windows of a split, scene by scene and row by row."""
        return grid_windows(self.scenes[split], self.evaluation_side)

    @property
    def evaluation_side(self) -> int:
        """Side of the evaluation windows in pixels."""
        return 2 * self.config.window

    def _grid(self, split: str) -> WindowLoader:
        windows = self.evaluation_windows(split)
        return WindowLoader(
            self.reader(split),
            windows,
            size=len(windows),
            window=self.evaluation_side,
            batch_size=max(self.config.batch_size // 4, 1),
            drop_last=False,
            threads=self.config.num_threads,
            epoch=lambda: 0,
            rank=self._rank,
            world_size=self._world_size,
        )

    def describe_sample(self, origin: Sequence[int]) -> str:
        """Describe where a training sample comes from, for a message.

        Args:
            origin: its row of the batch's "place": scene number, first row and column.
        """
        number, row, col = origin
        if number == CUSTOM_SAMPLE:
            return f"sample {row}"
        name, side = self.scenes["train"][number].name, self.config.window
        return f"{name} rows {row}-{row + side - 1} columns {col}-{col + side - 1}"

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

    def _batches_done(self) -> int:
        """Return the number of batches of this epoch that were done before the run was resumed."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1
