"""Where checkpoints lie. No torch in here."""

from glob import glob
from pathlib import Path
from typing import Any

from geo_seg.errors import CheckpointError


def resolve_checkpoint(path: str | Path) -> Path:
    """Return the file of a checkpoint.

    Args:
        path: a checkpoint file, or a run folder, which stands for its best checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    chosen = Path(path)
    if chosen.is_dir():
        best = chosen / "checkpoints" / "best.ckpt"
        if not best.is_file():
            raise CheckpointError(
                f"{chosen}: no checkpoints/best.ckpt in this folder; expected a run folder or a file"
            )
        return best
    if not chosen.is_file():
        raise CheckpointError(f"{chosen}: no such checkpoint; expected a run folder or a .ckpt file")
    return chosen


def expand_checkpoints(given: Any) -> list[str]:
    """Return the run folders and files that checkpoint= names: one, a glob, or a list of these."""
    found: list[str] = []
    for pattern in given if isinstance(given, list) else [given]:
        # a run's folder may have brackets in its name; Path.glob takes no absolute patterns
        matches = [] if Path(pattern).exists() else sorted(glob(pattern))  # noqa: PTH207
        found += matches or [pattern]
    return found
