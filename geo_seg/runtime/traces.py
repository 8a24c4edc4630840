"""Removal of what a start that failed has left in its run folder. No torch in here."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode


@contextmanager
def remove_empty_folders_on_error() -> Iterator[None]:
    """Remove the folder that Hydra has created for a job, if the job fails before it writes anything."""
    try:
        yield
    except BaseException:
        hydra = HydraConfig.get()
        if hydra.mode == RunMode.RUN and hydra.output_subdir is not None:
            _remove_empty(Path(hydra.runtime.output_dir), {hydra.output_subdir, f"{hydra.job.name}.log"})
        raise


@contextmanager
def remove_new_entries_on(
    errors: tuple[type[Exception], ...], folder: Path, applies: Callable[[], bool]
) -> Iterator[None]:
    """Remove what the block has written into a folder, if it raises.

    Args:
        errors: types of the errors.
        folder: it need not exist before.
        applies: called after an error; whether to remove anything.
    """
    before = set(folder.iterdir()) if folder.is_dir() else set()
    try:
        yield
    except errors:
        if applies():
            for path in set(folder.iterdir()) - before if folder.is_dir() else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _remove_empty(folder: Path, hydra_files: set[str]) -> None:
    """Remove a folder that contains nothing but files of Hydra, and the empty ones above it."""
    here = Path.cwd()
    if folder == here or not folder.is_dir() or {path.name for path in folder.iterdir()} - hydra_files:
        return
    for path in list(folder.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with suppress(OSError):  # stops at the first that isn't empty
        folder.rmdir()
        for above in folder.relative_to(here).parents[:-1] if folder.is_relative_to(here) else ():
            (here / above).rmdir()
