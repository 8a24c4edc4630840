"""A start that fails leaves no folder behind. No torch in here."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode


@contextmanager
def remove_empty_folders_on_error() -> Iterator[None]:
    """Removes the folder that Hydra has made for a job, if the job fails before it writes anything."""
    try:
        yield
    except BaseException:
        hydra = HydraConfig.get()
        if hydra.mode == RunMode.RUN and hydra.output_subdir is not None:
            _remove_empty(Path(hydra.runtime.output_dir), {hydra.output_subdir, f"{hydra.job.name}.log"})
        raise


def _remove_empty(folder: Path, of_hydra: set[str]) -> None:
    """Removes a folder in which there is nothing but what Hydra writes, and the empty ones above it."""
    here = Path.cwd()
    if folder == here or not folder.is_dir() or {path.name for path in folder.iterdir()} - of_hydra:
        return
    for path in list(folder.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with suppress(OSError):  # the first that isn't empty ends it
        folder.rmdir()
        for above in folder.relative_to(here).parents[:-1] if folder.is_relative_to(here) else ():
            (here / above).rmdir()
