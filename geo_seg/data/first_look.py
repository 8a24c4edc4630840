"""Checks of paths and bands before torch is imported, so that mistakes are reported at once."""

from pathlib import Path

from geo_seg.checkpoints.files import expand_checkpoints, resolve_checkpoint
from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.inference import InferenceConfig
from geo_seg.config.training import TrainConfig


def look_before_training(config: TrainConfig) -> None:
    """Check that the checkpoint of a test exists, and that the first image has the bands.

    Raises:
        CheckpointError: the checkpoint does not exist.
        DataError: the folder, an image, or a band in it does not exist.
    """
    if config.checkpoint is not None:
        resolve_checkpoint(config.checkpoint)
    if config.mode in {"train", "test"} and config.dataset.generate is None:
        _check_bands(config.dataset)


def look_before_mapping(config: InferenceConfig) -> None:
    """Check that the checkpoints exist.

    Raises:
        CheckpointError: a checkpoint does not exist.
    """
    for path in expand_checkpoints(config.checkpoint):
        resolve_checkpoint(path)


def _check_bands(config: DatasetConfig) -> None:
    from geo_seg.data.scenes.file_pairs import first_image
    from geo_seg.raster.open_image import open_image
    from geo_seg.runtime.cache_dir import cache_dir

    image = first_image(config)
    if image is not None and config.bands is not None:
        root = None if config.allow_outside else Path(config.root)
        open_image(image, config.bands, cache_dir(config.cache_dir), root=root)
