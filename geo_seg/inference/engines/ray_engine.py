"""Ray engine: the parts of maps on workers of a Ray cluster, or of this machine."""

import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from rich.console import Console

from geo_seg.config.inference import InferenceConfig
from geo_seg.errors import DataError, GeoSegError, first_line
from geo_seg.inference.engines.local import MapResult, finalize, plan_map
from geo_seg.inference.mapper import MapJob, Mapper, build_predictor, predict_part
from geo_seg.prediction.ensemble import load_ensemble
from geo_seg.runtime.console import progress_bar
from geo_seg.runtime.process import PROCESS_VARIABLES, setup_process

_Handle = Any  # of a worker or a result: the types of ray.remote know no methods
_MAX_LOST_WORKERS = 3  # maximum workers that may die in a row without finishing a part


class Worker:
    """Ray actor that holds the models.

    Args:
        config: configuration of inference.
    """

    def __init__(self, config: InferenceConfig) -> None:
        setup_process()
        self._predictor = build_predictor(config, load_ensemble(config))

    def predict(self, job: MapJob, number: int) -> None:
        """Predict a part, see predict_part."""
        predict_part(self._predictor, job, number, lambda _: None)


def run_ray(
    mapper: Mapper, rasters: Mapping[str, str], console: Console, config: InferenceConfig
) -> Iterator[MapResult]:
    """Make all maps on Ray; an idle worker gets the next part.

    A worker that dies is replaced, and its part is predicted again.

    Args:
        mapper: the models and options.
        rasters: paths of the rasters by name of the map.
        console: shows the progress.
        config: configuration of the workers.

    Yields:
        The result of each raster, in order of completion.

    Raises:
        ConfigError: the options don't fit a raster or the memory.
        DataError: workers die without finishing a part.
    """
    started = not ray.is_initialized()
    if started:  # RAY_ADDRESS selects a cluster; without it, Ray runs on this machine during this run
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield from _WorkerPool(config, mapper).run(rasters, console)
    finally:
        if started:
            ray.shutdown()


class _WorkerPool:
    """Workers with their running parts, and the parts that wait."""

    def __init__(self, config: InferenceConfig, mapper: Mapper) -> None:
        resources = ray.cluster_resources()
        gpu = mapper.predictor.device.type == "cuda"
        count = int(resources["GPU" if gpu else "CPU"]) if config.workers == "auto" else int(config.workers)
        cores = 1 if gpu else max(int(resources["CPU"]) // count, 1)  # torch uses as many threads
        variables = {name: os.environ.get(name, value) for name, value in PROCESS_VARIABLES.items()}
        options: dict[str, Any] = {
            "num_gpus": int(gpu),
            "num_cpus": cores,
            "runtime_env": {"env_vars": variables},
        }
        self._start_worker = ray.remote(**options)(Worker).remote
        self._config = config
        self._mapper = mapper
        self._idle: list[_Handle] = [self._start_worker(config) for _ in range(count)]
        self._running: dict[_Handle, tuple[_Handle, MapJob, int]] = {}
        self._waiting: deque[tuple[MapJob, int]] = deque()
        self._parts_left: dict[str, int] = {}
        self._job_refs: dict[str, _Handle] = {}
        self._lost_in_a_row = 0

    def run(self, rasters: Mapping[str, str], console: Console) -> Iterator[MapResult]:
        remaining = iter(rasters.items())
        with progress_bar(console, "parts", 0) as advance:
            while True:
                yield from self._assign(remaining)
                if not self._running:
                    return
                (done,), _ = ray.wait(list(self._running), num_returns=1)
                result = self._collect(done)
                advance(1)
                if result is not None:
                    yield result

    def _assign(self, remaining: Iterator[tuple[str, str]]) -> Iterator[MapResult]:
        """Assign a part to every idle worker; plan the next raster when no parts wait."""
        while self._idle:
            if not self._waiting:
                name_and_path = next(remaining, None)
                if name_and_path is None:
                    return
                planned = plan_map(self._mapper, *name_and_path)
                if isinstance(planned, MapResult):
                    yield planned
                    continue
                self._waiting.extend((planned, number) for number in range(len(planned.parts)))
                self._parts_left[planned.name] = len(planned.parts)
                self._job_refs[planned.name] = ray.put(planned)
            job, number = self._waiting.popleft()
            worker = self._idle.pop()
            self._running[worker.predict.remote(self._job_refs[job.name], number)] = (worker, job, number)

    def _collect(self, done: _Handle) -> MapResult | None:
        """Collect a finished part; return the result of its map if it was the last part."""
        worker, job, number = self._running.pop(done)
        try:
            ray.get(done)
        except RayActorError as error:
            self._lost_in_a_row += 1
            if self._lost_in_a_row > _MAX_LOST_WORKERS:
                raise DataError(
                    f"engine=ray: {self._lost_in_a_row} workers died one after the other "
                    f"({first_line(error)}); expected one to finish a part; does the memory suffice for "
                    "so many workers?"
                ) from error
            self._idle.append(self._start_worker(self._config))
            self._waiting.appendleft((job, number))
            return None
        except RayTaskError as error:
            self._idle.append(worker)
            return self._fail(job, error)
        self._idle.append(worker)
        self._lost_in_a_row = 0
        if job.name not in self._parts_left:
            return None  # another part of it has failed
        self._parts_left[job.name] -= 1
        return finalize(self._mapper, self._forget(job)) if not self._parts_left[job.name] else None

    def _fail(self, job: MapJob, error: RayTaskError) -> MapResult | None:
        if not isinstance(error.cause, DataError):
            raise error.cause if isinstance(error.cause, GeoSegError) else error
        if job.name not in self._parts_left:
            return None
        self._waiting = deque(item for item in self._waiting if item[0].name != job.name)
        return MapResult(job.name, error=self._mapper.as_failure(self._forget(job), error.cause))

    def _forget(self, job: MapJob) -> MapJob:
        del self._parts_left[job.name], self._job_refs[job.name]
        return job
