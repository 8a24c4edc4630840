"""The parts of maps on the workers of a Ray cluster, or of this machine."""

import logging
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

_MAX_LOST_WORKERS = 3  # workers that may die one after the other before any part is finished


class Worker:
    """A process with the models.

    Args:
        config: what to do.
    """

    def __init__(self, config: InferenceConfig) -> None:
        self._predictor = build_predictor(config, load_ensemble(config))

    def make(self, job: MapJob, number: int) -> None:
        """Makes a part; see predict_part."""
        predict_part(self._predictor, job, number, lambda _: None)


def run_ray(
    mapper: Mapper, rasters: Mapping[str, str], console: Console, config: InferenceConfig
) -> Iterator[MapResult]:
    """Makes all maps on Ray: each worker takes the next part when it has done one.

    The parts of a worker that dies are made by another one, and a new one takes its place.

    Args:
        mapper: the models and options.
        rasters: by the names of their maps.
        console: shows how far it is.
        config: what the workers are told.

    Yields:
        What became of each raster, as it is done.

    Raises:
        ConfigError: options don't fit a raster or the memory.
        DataError: workers die without making anything.
    """
    started = not ray.is_initialized()
    if started:  # RAY_ADDRESS names a cluster; without it, Ray runs on this machine for as long as it takes
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield from _WorkerPool(config, mapper).run(rasters, console)
    finally:
        if started:
            ray.shutdown()


class _WorkerPool:
    """Workers and what they are at."""

    def __init__(self, config: InferenceConfig, mapper: Mapper) -> None:
        there = ray.cluster_resources()
        gpu = mapper.predictor.device.type == "cuda"
        count = int(there["GPU" if gpu else "CPU"]) if config.workers == "auto" else int(config.workers)
        cores = 1 if gpu else max(int(there["CPU"]) // count, 1)  # torch takes as many threads
        self._start = ray.remote(num_gpus=1 if gpu else 0, num_cpus=cores)(Worker).remote
        self._config = config
        self._mapper = mapper
        self._idle: list[Any] = [self._start(config) for _ in range(count)]
        self._running: dict[Any, tuple[Any, MapJob, int]] = {}
        self._waiting: deque[tuple[MapJob, int]] = deque()
        self._left: dict[str, int] = {}
        self._sent: dict[str, Any] = {}
        self._lost = 0

    def run(self, rasters: Mapping[str, str], console: Console) -> Iterator[MapResult]:
        coming = iter(rasters.items())
        with progress_bar(console, "parts", 0) as advance:
            while True:
                yield from self._assign(coming)
                if not self._running:
                    return
                (done,), _ = ray.wait(list(self._running), num_returns=1)
                outcome = self._collect(done)
                advance(1)
                if outcome is not None:
                    yield outcome

    def _assign(self, coming: Iterator[tuple[str, str]]) -> Iterator[MapResult]:
        """Gives every idle worker a part; plans the next raster when there are none."""
        while self._idle:
            if not self._waiting:
                following = next(coming, None)
                if following is None:
                    return
                planned = plan_map(self._mapper, *following)
                if isinstance(planned, MapResult):
                    yield planned
                    continue
                self._waiting.extend((planned, number) for number in range(len(planned.parts)))
                self._left[planned.name] = len(planned.parts)
                self._sent[planned.name] = ray.put(planned)
            job, number = self._waiting.popleft()
            worker = self._idle.pop()
            self._running[worker.make.remote(self._sent[job.name], number)] = (worker, job, number)

    def _collect(self, done: Any) -> MapResult | None:
        """Takes the result of a part; what became of its map if it was the last one."""
        worker, job, number = self._running.pop(done)
        try:
            ray.get(done)
        except RayActorError as error:
            self._lost += 1
            if self._lost > _MAX_LOST_WORKERS:
                raise DataError(
                    f"engine=ray: {self._lost} workers died one after the other ({first_line(error)}); "
                    "expected one to finish a part; does the memory hold so many workers?"
                ) from error
            self._idle.append(self._start(self._config))
            self._waiting.appendleft((job, number))
            return None
        except RayTaskError as error:
            self._idle.append(worker)
            return self._fail(job, error)
        self._idle.append(worker)
        self._lost = 0
        if job.name not in self._left:
            return None  # another part of it has failed
        self._left[job.name] -= 1
        return finalize(self._mapper, self._forget(job)) if not self._left[job.name] else None

    def _fail(self, job: MapJob, error: RayTaskError) -> MapResult | None:
        if not isinstance(error.cause, DataError):
            raise error.cause if isinstance(error.cause, GeoSegError) else error
        if job.name not in self._left:
            return None
        self._waiting = deque(item for item in self._waiting if item[0].name != job.name)
        return MapResult(job.name, error=self._mapper.as_failure(self._forget(job), error.cause))

    def _forget(self, job: MapJob) -> MapJob:
        del self._left[job.name], self._sent[job.name]
        return job
