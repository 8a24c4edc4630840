"""Console output: progress bars, and filters for warnings of libraries."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def show_progress_bars(console: Console) -> bool:
    """Return whether to draw progress bars: in a terminal, and not in CI."""
    return console.is_terminal and os.environ.get("CI", "").lower() not in {"true", "1"}


def silence_library_warnings() -> None:
    """Suppress warnings and log messages of libraries that a user can do nothing about."""
    # Lightning 2.6 uses a name that torch renamed; it warns at every fit
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    # our windows are read by threads, not by workers of a DataLoader
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # our loader resumes at the batch of the checkpoint; Lightning looks for another way of doing so
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
    """Show a progress bar while the block runs, if the console is a terminal.

    Args:
        console: to draw on.
        path: of the raster; its name labels the bar.
        total: number of steps.

    Yields:
        Function that advances the bar by a number of steps.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = console.quiet or not show_progress_bars(console)
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(os.path.basename(path), total=total)  # noqa: PTH119 - may be no path of files
        yield lambda count: progress.advance(task, count)
