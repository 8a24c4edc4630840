"""Parts of maps predicted by this process, one after another."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.console import Console

from geo_seg.config.inference import InferenceConfig
from geo_seg.errors import DataError
from geo_seg.inference.finished_maps import FinishedMap
from geo_seg.inference.mapper import MapJob, Mapper, predict_part
from geo_seg.runtime.console import progress_bar
from geo_seg.runtime.ranks import rank


@dataclass(frozen=True)
class MapResult:
    """What became of a raster.

    Attributes:
        name: of its map.
        made: the map; None without one.
        error: why there is none; None also for maps that were skipped or only planned.
    """

    name: str
    made: FinishedMap | None = None
    error: DataError | None = None


def plan_map(mapper: Mapper, name: str, path: str) -> MapJob | MapResult:
    """Plans a map; an outcome where there is nothing to do.

    Raises:
        ConfigError: options don't fit the raster or the memory.
    """
    try:
        found = mapper.begin(name, path)
    except DataError as error:
        return MapResult(name, error=error)
    return found if isinstance(found, MapJob) else MapResult(name, found)


def finalize(mapper: Mapper, job: MapJob) -> MapResult:
    """Puts a map of which all parts are there together."""
    try:
        return MapResult(job.name, mapper.finish(job))
    except DataError as error:
        return MapResult(job.name, error=error)


def run_local(mapper: Mapper, rasters: Mapping[str, str], console: Console) -> Iterator[MapResult]:
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
        job = plan_map(mapper, name, path)
        if isinstance(job, MapResult):
            yield job
            continue
        try:
            with progress_bar(console, job.source.info.path, sum(map(len, job.parts))) as advance:
                for number in range(len(job.parts)):
                    predict_part(mapper.predictor, job, number, advance)
        except DataError as error:
            yield MapResult(name, error=mapper.as_failure(job, error))
        else:
            yield finalize(mapper, job)


def processes_per_host(config: InferenceConfig) -> int:
    """Processes of the run that share this machine's memory."""
    if config.engine == "torchrun":
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if config.engine == "ray":
        return int(config.workers) if config.workers != "auto" else os.cpu_count() or 1
    return 1


def is_main_process(engine: str) -> bool:
    """Whether this process is the one that prints and writes what belongs to no map."""
    return engine != "torchrun" or rank() == 0


def predict_share(
    mapper: Mapper, jobs: list[MapJob], console: Console, own: int, ranks: int
) -> dict[str, DataError]:
    """Makes every so many-th part of all maps; returns the errors by the names of the maps."""
    turns = [(job, number) for job in jobs for number in range(len(job.parts))][own::ranks]
    failed: dict[str, DataError] = {}
    with progress_bar(console, "this rank", sum(len(job.parts[number]) for job, number in turns)) as advance:
        for job, number in turns:
            if job.name not in failed:
                try:
                    predict_part(mapper.predictor, job, number, advance)
                except DataError as error:
                    failed[job.name] = error
    return failed
