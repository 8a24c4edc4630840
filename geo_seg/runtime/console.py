"""What the console shows: progress bars, and none of the libraries' own warnings."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def show_progress_bars(console: Console) -> bool:
    """Whether progress bars have somebody to look at them: a terminal, and not CI."""
    return console.is_terminal and os.environ.get("CI", "").lower() not in {"true", "1"}


def silence_library_warnings() -> None:
    """Silences what says nothing to the user."""
    # Lightning 2.6 uses a name that torch renamed; it warns at every fit
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    # our windows are read by threads, not by workers of a DataLoader
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # our batches begin where the checkpoint stands; Lightning looks for another way of doing so
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    # scores come from one synchronised matrix and are the same on every rank already; a rank may have none
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*``compute`` method of metric.*")
    # which device, which rank, and an advert
    for name in (
        "pytorch_lightning",
        "pytorch_lightning.utilities.rank_zero",
        "lightning_fabric.utilities.distributed",
        "matplotlib",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def progress_bar(console: Console, path: str, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar, where somebody looks.

    Args:
        console: where.
        path: of the raster.
        total: of what is counted.

    Yields:
        To be told how many more are done.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = console.quiet or not show_progress_bars(console)
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(os.path.basename(path), total=total)  # noqa: PTH119 - may be no path of files
        yield lambda count: progress.advance(task, count)
