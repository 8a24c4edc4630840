"""Parts of maps shared among the ranks that torchrun started."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from rich.console import Console

from geo_seg.inference.engines.local import MapResult, finalize, plan_map, predict_share
from geo_seg.inference.mapper import MapJob, Mapper

_TIMEOUT = timedelta(days=30)  # a rank may wait for others as long as they need


def run_torchrun(mapper: Mapper, rasters: Mapping[str, str], console: Console) -> Iterator[MapResult]:
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
    dist.init_process_group("gloo", timeout=_TIMEOUT)  # a few small objects; the work needs no collective
    own, ranks = dist.get_rank(), dist.get_world_size()
    try:
        planned = [plan_map(mapper, name, path) for name, path in rasters.items()] if own == 0 else []
        shared: list[Any] = [planned]
        dist.broadcast_object_list(shared)
        plans: list[MapJob | MapResult] = shared[0]
        jobs = [found for found in plans if isinstance(found, MapJob)]
        failed = _merge_results(predict_share(mapper, jobs, console, own, ranks))
        whole = [job for job in jobs if job.name not in failed]
        done = _merge_results({job.name: finalize(mapper, job) for job in whole[own::ranks]})
        if own == 0:
            for found in plans:
                if isinstance(found, MapResult):
                    yield found
                elif found.name in failed:
                    yield MapResult(found.name, error=mapper.as_failure(found, failed[found.name]))
                else:
                    yield done[found.name]
    finally:
        dist.destroy_process_group()


def _merge_results(own: dict[str, Any]) -> dict[str, Any]:
    """What all ranks found, in the order of the ranks; on each of them."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return {key: value for part in reversed(found) for key, value in part.items()}
