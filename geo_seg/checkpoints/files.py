"""Paths of checkpoints, from run folders and patterns. No torch in here."""

from glob import glob
from pathlib import Path

from geo_seg.errors import CheckpointError

LAST_CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""Checkpoint in a run folder that a resumed run goes on from."""


def resolve_checkpoint(path: str | Path) -> Path:
    """Return the path of a checkpoint file.

    Args:
        path: a checkpoint file, or a run folder, which stands for its best checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    file = Path(path)
    if file.is_dir():
        best = file / "checkpoints" / "best.ckpt"
        if not best.is_file():
            raise CheckpointError(
                f"{file}: no checkpoints/best.ckpt in this folder; expected a run folder or a file"
            )
        return best
    if not file.is_file():
        raise CheckpointError(f"{file}: no such checkpoint; expected a run folder or a .ckpt file")
    return file


def expand_checkpoints(patterns: str | list[str]) -> list[str]:
    """Return the run folders and files that checkpoint= names.

    Args:
        patterns: a path, a glob, or a list of these; a pattern without matches is returned as it is.
    """
    paths: list[str] = []
    for pattern in patterns if isinstance(patterns, list) else [patterns]:
        # a run's folder may have brackets in its name; Path.glob takes no absolute patterns
        matches = [] if Path(pattern).exists() else sorted(glob(pattern))  # noqa: PTH207
        paths += matches or [pattern]
    return paths
