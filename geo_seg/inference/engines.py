"""Who makes the parts of the maps: this process, or the ranks that torchrun started."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from geo_seg.errors import DataError
from geo_seg.inference.finished import Finished
from geo_seg.inference.mapping import Job, Mapper, make_part
from geo_seg.inference_config import InferenceConfig
from geo_seg.ranks import rank
from geo_seg.terminal import shows_bars

_PATIENCE = timedelta(days=30)  # a rank may wait for others as long as they need


@dataclass(frozen=True)
class Outcome:
    """What became of a raster.

    Attributes:
        name: of its map.
        made: the map; None without one.
        error: why there is none; None also for maps that were skipped or only planned.
    """

    name: str
    made: Finished | None = None
    error: DataError | None = None


def plan(mapper: Mapper, name: str, path: str) -> Job | Outcome:
    """Plans a map; an outcome where there is nothing to do.

    Raises:
        ConfigError: options don't fit the raster or the memory.
    """
    try:
        found = mapper.begin(name, path)
    except DataError as error:
        return Outcome(name, error=error)
    return found if isinstance(found, Job) else Outcome(name, found)


def conclude(mapper: Mapper, job: Job) -> Outcome:
    """Puts a map of which all parts are there together."""
    try:
        return Outcome(job.name, mapper.finish(job))
    except DataError as error:
        return Outcome(job.name, error=error)


def local(mapper: Mapper, rasters: Mapping[str, str], console: Console) -> Iterator[Outcome]:
    """Makes all maps in this process, one after the other.

    Args:
        mapper: the models and options.
        rasters: by the names of their maps.
        console: shows how far it is.

    Yields:
        What became of each raster.

    Raises:
        ConfigError: options don't fit a raster or the memory.
    """
    for name, path in rasters.items():
        job = plan(mapper, name, path)
        if isinstance(job, Outcome):
            yield job
            continue
        try:
            with shown(console, job.source.info.path, sum(map(len, job.parts))) as advance:
                for number in range(len(job.parts)):
                    make_part(mapper.predictor, job, number, advance)
        except DataError as error:
            yield Outcome(name, error=mapper.given_up(job, error))
        else:
            yield conclude(mapper, job)


def torchrun(mapper: Mapper, rasters: Mapping[str, str], console: Console) -> Iterator[Outcome]:
    """Makes all maps together with the other ranks; parts and finished maps go round in turns.

    Rank 0 plans, so that all of them do what one process would do.

    Args:
        mapper: the models and options.
        rasters: by the names of their maps.
        console: shows how far this rank is.

    Yields:
        What became of each raster, on rank 0; nothing on the others.

    Raises:
        ConfigError: options don't fit a raster or the memory.
    """
    dist.init_process_group("gloo", timeout=_PATIENCE)  # a few small objects; the work needs no collective
    own, ranks = dist.get_rank(), dist.get_world_size()
    try:
        planned = [plan(mapper, name, path) for name, path in rasters.items()] if own == 0 else []
        shared: list[Any] = [planned]
        dist.broadcast_object_list(shared)
        plans: list[Job | Outcome] = shared[0]
        jobs = [found for found in plans if isinstance(found, Job)]
        failed = _merged(_make_share(mapper, jobs, console, own, ranks))
        whole = [job for job in jobs if job.name not in failed]
        done = _merged({job.name: conclude(mapper, job) for job in whole[own::ranks]})
        if own == 0:
            for found in plans:
                if isinstance(found, Outcome):
                    yield found
                elif found.name in failed:
                    yield Outcome(found.name, error=mapper.given_up(found, failed[found.name]))
                else:
                    yield done[found.name]
    finally:
        dist.destroy_process_group()


def sharers(config: InferenceConfig) -> int:
    """Processes of the run that share this machine's memory."""
    if config.engine == "torchrun":
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if config.engine == "ray":
        return int(config.workers) if config.workers != "auto" else os.cpu_count() or 1
    return 1


def speaks(engine: str) -> bool:
    """Whether this process is the one that prints and writes what belongs to no map."""
    return engine != "torchrun" or rank() == 0


@contextmanager
def shown(console: Console, path: str, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar, where somebody looks.

    Args:
        console: where.
        path: of the raster.
        total: of what is counted.

    Yields:
        To be told how many more are done.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = console.quiet or not shows_bars(console)
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(os.path.basename(path), total=total)  # noqa: PTH119 - may be no path of files
        yield lambda count: progress.advance(task, count)


def _make_share(
    mapper: Mapper, jobs: list[Job], console: Console, own: int, ranks: int
) -> dict[str, DataError]:
    """Makes every so many-th part of all maps; returns the errors by the names of the maps."""
    turns = [(job, number) for job in jobs for number in range(len(job.parts))][own::ranks]
    failed: dict[str, DataError] = {}
    with shown(console, "this rank", sum(len(job.parts[number]) for job, number in turns)) as advance:
        for job, number in turns:
            if job.name not in failed:
                try:
                    make_part(mapper.predictor, job, number, advance)
                except DataError as error:
                    failed[job.name] = error
    return failed


def _merged(own: dict[str, Any]) -> dict[str, Any]:
    """What all ranks found, in the order of the ranks; on each of them."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return {key: value for part in reversed(found) for key, value in part.items()}
