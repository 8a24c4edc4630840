"""What the files tell before torch is imported: paths that lead nowhere, bands that aren't there."""

from pathlib import Path

from geo_seg.checkpoint_files import expand_checkpoints, find_checkpoint
from geo_seg.config import TrainConfig
from geo_seg.dataset_config import DatasetConfig
from geo_seg.inference_config import InferenceConfig


def look_before_training(config: TrainConfig) -> None:
    """Look for the checkpoint of a test, and for the bands in the first image.

    Raises:
        CheckpointError: there is no such checkpoint.
        DataError: there is no such folder, no image, or no such band in it.
    """
    if config.checkpoint is not None:
        find_checkpoint(config.checkpoint)
    if config.mode in {"train", "test"} and config.dataset.generate is None:
        _look_at_bands(config.dataset)


def look_before_mapping(config: InferenceConfig) -> None:
    """Look for the checkpoints.

    Raises:
        CheckpointError: one isn't there.
    """
    for path in expand_checkpoints(config.checkpoint):
        find_checkpoint(path)


def _look_at_bands(config: DatasetConfig) -> None:
    from geo_seg.data.folder import cache_folder
    from geo_seg.data.sources import first_image
    from geo_seg.data.stack import open_image

    image = first_image(config)
    if image is not None and config.bands is not None:
        root = None if config.allow_outside else Path(config.root)
        open_image(image, config.bands, cache_folder(config.cache_dir), root=root)
