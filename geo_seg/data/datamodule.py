"""The data set as Lightning sees it: scenes, statistics, and the batches of every split."""

from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from geo_seg.config import DatasetConfig
from geo_seg.data.classes import class_table
from geo_seg.data.demo import draw_demo
from geo_seg.data.scenes import SPLITS, find_scenes
from geo_seg.data.statistics import BandStatistics, band_statistics, scan
from geo_seg.data.windows import WindowBatches, WindowReader, grid_windows, random_windows
from geo_seg.errors import ConfigError, DataError

_IMAGENET = BandStatistics((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # of RGB from 0 to 255


class SceneDataModule(pl.LightningDataModule):
    """Scenes in three splits, scanned once.

    Training windows lie at random offsets. Evaluation windows have twice their side, lie side by side
    and count every valid pixel once.

    Args:
        config: the data set.
        seed: of the split and of the training windows.

    Raises:
        DataError: files don't fit the configuration; see find_scenes and scan.
        ConfigError: the configuration contradicts itself or the files.
    """

    def __init__(self, config: DatasetConfig, seed: int) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.table = class_table(config)
        if config.generate == "demo":
            draw_demo(Path(config.root))
        self.scenes = find_scenes(config, seed)
        threads = config.num_threads
        self.statistics = {
            name: scan(self.scenes[name], self.table, config.nodata, threads) for name in SPLITS
        }
        counts = np.sum([found.classes for found in self.statistics["train"]], axis=0)
        self.class_counts: list[int] = counts.tolist()
        if not sum(self.class_counts):
            raise DataError(
                "no training pixel has a class: all are nodata or ignored; see dataset.ignore_values"
            )
        self.bands = self._normalization()

    @property
    def dtype(self) -> str:
        """NumPy name of the training images' type."""
        return self.scenes["train"][0].image.dtype

    @property
    def band_names(self) -> list[str]:
        """Names of the bands that the model sees, or their numbers where the files give none."""
        scene = self.scenes["train"][0]
        names = dict(zip(scene.image.bands, scene.image.names, strict=True))
        return [names[band] or str(band) for band in scene.bands]

    def train_dataloader(self) -> WindowBatches:
        """Random windows of the training scenes."""
        config, scenes = self.config, self.scenes["train"]
        labelled = [float(found.classes.sum()) for found in self.statistics["train"]]
        size = config.windows_per_epoch or max(round(sum(labelled) / config.window**2), 1)
        batch, world = config.batch_size, self._world_size
        reader = WindowReader(scenes, self.table, config.nodata)
        return WindowBatches(
            random_windows(reader, labelled, config.window, self.seed),
            size=max(size, batch * world),
            batch_size=batch,
            drop_last=True,
            threads=config.num_threads,
            epoch=lambda: self.trainer.current_epoch if self.trainer else 0,
            rank=self._rank,
            world_size=world,
        )

    def val_dataloader(self) -> WindowBatches:
        """The grid of the validation scenes."""
        return self._grid("val")

    def test_dataloader(self) -> WindowBatches:
        """The grid of the test scenes."""
        return self._grid("test")

    def _grid(self, split: str) -> WindowBatches:
        reader = WindowReader(self.scenes[split], self.table, self.config.nodata)
        places = grid_windows(reader.scenes, 2 * self.config.window)
        return WindowBatches(
            lambda epoch, number: reader.read(places[number]),
            size=len(places),
            batch_size=max(self.config.batch_size // 4, 1),
            drop_last=False,
            threads=self.config.num_threads,
            epoch=lambda: 0,
            rank=self._rank,
            world_size=self._world_size,
            scenes=[index for index, _ in places],
        )

    def _normalization(self) -> BandStatistics:
        count = len(self.scenes["train"][0].bands)
        if self.config.normalize == "standardize":
            return band_statistics(self.statistics["train"])
        if self.config.normalize == "none":
            return BandStatistics((0.0,) * count, (1.0,) * count)
        if count != 3 or self.dtype != "uint8":
            raise ConfigError(
                f"dataset.normalize=imagenet is for three uint8 bands, the images have {count} of "
                f"{self.dtype}; take standardize"
            )
        return _IMAGENET

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1
