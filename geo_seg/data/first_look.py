"""What the files tell before torch is imported: paths that lead nowhere, bands that aren't there."""

from pathlib import Path

from geo_seg.checkpoints.files import expand_checkpoints, resolve_checkpoint
from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.inference import InferenceConfig
from geo_seg.config.training import TrainConfig


def look_before_training(config: TrainConfig) -> None:
    """Look for the checkpoint of a test, and for the bands in the first image.

    Raises:
        CheckpointError: there is no such checkpoint.
        DataError: there is no such folder, no image, or no such band in it.
    """
    if config.checkpoint is not None:
        resolve_checkpoint(config.checkpoint)
    if config.mode in {"train", "test"} and config.dataset.generate is None:
        _look_at_bands(config.dataset)


def look_before_mapping(config: InferenceConfig) -> None:
    """Look for the checkpoints.

    Raises:
        CheckpointError: one isn't there.
    """
    for path in expand_checkpoints(config.checkpoint):
        resolve_checkpoint(path)


def _look_at_bands(config: DatasetConfig) -> None:
    from geo_seg.data.scenes.file_pairs import first_image
    from geo_seg.raster.open_image import open_image
    from geo_seg.runtime.cache_dir import cache_dir

    image = first_image(config)
    if image is not None and config.bands is not None:
        root = None if config.allow_outside else Path(config.root)
        open_image(image, config.bands, cache_dir(config.cache_dir), root=root)
