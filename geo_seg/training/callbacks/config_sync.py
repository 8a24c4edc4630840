"""Check that all processes of a run have the same configuration."""

import pytorch_lightning as pl
from torch import distributed

from geo_seg.errors import ConfigError


class SameConfigOnAllRanks(pl.Callback):
    """Callback that ends the run on every rank before the first step if configurations differ.

    Args:
        config: hash of this rank's configuration.
    """

    def __init__(self, config: str) -> None:
        self.config = config

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compare the hashes of all ranks."""
        if trainer.world_size == 1 or not distributed.is_initialized():
            return
        hashes: list[str] = [""] * trainer.world_size
        distributed.all_gather_object(hashes, self.config)
        mismatch = next((rank for rank, hash_ in enumerate(hashes) if hash_ != hashes[0]), None)
        if mismatch is not None:
            raise ConfigError(
                f"rank {mismatch} was given another configuration than rank 0; "
                "start all ranks with one command"
            )
