"""Checkpoint files of a run: whole or not there when written, checked when read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from geo_seg.checkpoints.checkpoint import read_checkpoint
from geo_seg.errors import CheckpointError, TrainingError
from geo_seg.runtime.files import atomic_write
from geo_seg.training.callbacks.checkpointing import POSITION
from geo_seg.training.callbacks.training_state import RESTART_REMEDY, check_optimizers

_STATE: dict[str, type] = {  # beside weights and facts: what a run goes on with
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
    """Writes a checkpoint beside its place and moves it there: whoever reads it finds it whole.

    Args:
        say: shows a line to the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes the file and waits until the disk has it.

        Raises:
            TrainingError: the disk doesn't take it; what was there before is still there.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(target, lambda part: _dump(checkpoint, part), fsync=True)
        except (OSError, RuntimeError) as error:  # torch hides the error of the system behind one of its own
            cause = error if isinstance(error, OSError) else error.__context__
            reason = cause.strerror if isinstance(cause, OSError) else str(error).splitlines()[0]
            raise TrainingError(
                f"{target.parent}: a checkpoint cannot be written ({reason}); make room, then go on with "
                f"resume={target.parent.parent}"
            ) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Reads a checkpoint of the run, checked; nothing in it is executed, whatever weights_only says.

        Raises:
            CheckpointError: it can't be read, is not what it has to be, or holds no state of training.
        """
        found, _, notes = read_checkpoint(Path(path), map_location)
        for note in notes:
            self._say(f"note: {note}")
        for key, kind in _STATE.items():
            if not isinstance(found.get(key), kind):
                raise CheckpointError(f"{path}: holds no {key} of a training run; {RESTART_REMEDY}")
        check_optimizers(found["optimizer_states"], path)
        return found


def _dump(checkpoint: dict[str, Any], file: Path) -> None:
    with file.open("wb") as target:  # given a name, torch doesn't tell what the system said
        torch.save(checkpoint, target)
