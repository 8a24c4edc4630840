"""Local engine: this process predicts all parts in turn; functions shared by the engines."""

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
    """Result of mapping a raster.

    Attributes:
        name: name of the map.
        finished: the finished map, or None.
        error: the error of a failed map; None also for maps that were skipped or only planned.
    """

    name: str
    finished: FinishedMap | None = None
    error: DataError | None = None


def plan_map(mapper: Mapper, name: str, path: str) -> MapJob | MapResult:
    """Plan a map; return a result instead of a job if there is nothing to predict.

    Raises:
        ConfigError: the options don't fit the raster or the memory.
    """
    try:
        planned = mapper.plan(name, path)
    except DataError as error:
        return MapResult(name, error=error)
    return planned if isinstance(planned, MapJob) else MapResult(name, planned)


def finalize(mapper: Mapper, job: MapJob) -> MapResult:
    """Assemble a map whose parts are all done."""
    try:
        return MapResult(job.name, mapper.finish(job))
    except DataError as error:
        return MapResult(job.name, error=error)


def run_local(mapper: Mapper, rasters: Mapping[str, str], console: Console) -> Iterator[MapResult]:
    """Make all maps in this process, one after the other.

    Args:
        mapper: the models and options.
        rasters: paths of the rasters by name of the map.
        console: shows the progress.

    Yields:
        The result of each raster.

    Raises:
        ConfigError: the options don't fit a raster or the memory.
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
    """Return the number of processes of the run that share the memory of this machine."""
    if config.engine == "torchrun":
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if config.engine == "ray":
        return int(config.workers) if config.workers != "auto" else os.cpu_count() or 1
    return 1


def is_main_process(engine: str) -> bool:
    """Return whether this process prints, and writes the files of the whole run."""
    return engine != "torchrun" or rank() == 0


def predict_share(
    mapper: Mapper, jobs: list[MapJob], console: Console, rank_: int, n_ranks: int
) -> dict[str, DataError]:
    """Predict every n_ranks-th part of all maps; return the errors by name of the map."""
    assigned = [(job, number) for job in jobs for number in range(len(job.parts))][rank_::n_ranks]
    errors: dict[str, DataError] = {}
    with progress_bar(
        console, "this rank", sum(len(job.parts[number]) for job, number in assigned)
    ) as advance:
        for job, number in assigned:
            if job.name not in errors:
                try:
                    predict_part(mapper.predictor, job, number, advance)
                except DataError as error:
                    errors[job.name] = error
    return errors
