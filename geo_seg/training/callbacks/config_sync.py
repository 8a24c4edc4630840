"""What several processes of one run must agree on."""

import pytorch_lightning as pl
from torch import distributed

from geo_seg.errors import ConfigError


class SameConfigOnAllRanks(pl.Callback):
    """Ends the run on every rank before the first step if the ranks were not given the same configuration.

    Args:
        config: hash of this rank's configuration.
    """

    def __init__(self, config: str) -> None:
        self.config = config

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compares the hashes."""
        if trainer.world_size == 1 or not distributed.is_initialized():
            return
        found: list[str] = [""] * trainer.world_size
        distributed.all_gather_object(found, self.config)
        other = next((rank for rank, config in enumerate(found) if config != found[0]), None)
        if other is not None:
            raise ConfigError(
                f"rank {other} was given another configuration than rank 0; start all ranks with one command"
            )
