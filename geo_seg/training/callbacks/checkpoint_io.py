"""Checkpoint files of a run: written atomically, checked when they are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from geo_seg.checkpoints.checkpoint import MapLocation, read_checkpoint
from geo_seg.errors import CheckpointError, TrainingError
from geo_seg.runtime.files import atomic_write
from geo_seg.training.callbacks.checkpointing import POSITION
from geo_seg.training.callbacks.training_state import RESTART_REMEDY, check_optimizers

_TRAINING_STATE: dict[str, type] = {  # entries beside weights and metadata that resuming needs
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "means": dict,
    POSITION: dict,
}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint I/O with atomic writes and checked reads.

    Args:
        log: prints a line to the console.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        super().__init__()
        self._log = log

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Write the file atomically, and wait until it is on the disk.

        Raises:
            TrainingError: the file can't be written; the earlier file is still there.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(target, lambda temp: _dump(checkpoint, temp), fsync=True)
        except (OSError, RuntimeError) as error:  # torch wraps the OSError in an error of its own
            cause = error if isinstance(error, OSError) else error.__context__
            reason = cause.strerror if isinstance(cause, OSError) else str(error).splitlines()[0]
            raise TrainingError(
                f"{target.parent}: a checkpoint cannot be written ({reason}); free some space, then "
                f"resume with resume={target.parent.parent}"
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: MapLocation = lambda storage, _: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read and check a checkpoint; nothing in it is executed, whatever weights_only is.

        Raises:
            CheckpointError: the file can't be read, is malformed, or holds no training state.
        """
        checkpoint, _, notes = read_checkpoint(Path(path), map_location)
        for note in notes:
            self._log(f"note: {note}")
        for key, expected_type in _TRAINING_STATE.items():
            if not isinstance(checkpoint.get(key), expected_type):
                raise CheckpointError(f"{path}: holds no {key} of a training run; {RESTART_REMEDY}")
        check_optimizers(checkpoint["optimizer_states"], path)
        return checkpoint


def _dump(checkpoint: dict[str, Any], file: Path) -> None:
    with file.open("wb") as target:  # torch reports the cause of an OSError for an open file only
        torch.save(checkpoint, target)
