"""Torchrun engine: the parts of maps shared among ranks."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist
from rich.console import Console

from geo_seg.inference.engines.local import MapResult, finalize, plan_map, predict_share
from geo_seg.inference.mapper import MapJob, Mapper

_T = TypeVar("_T")
_TIMEOUT = timedelta(days=30)  # ranks wait for each other as long as necessary


def run_torchrun(mapper: Mapper, rasters: Mapping[str, str], console: Console) -> Iterator[MapResult]:
    """Make all maps together with the other ranks; parts and assembly are distributed round-robin.

    Rank 0 plans for all ranks, so that the maps are those of a single process.

    Args:
        mapper: the models and options.
        rasters: paths of the rasters by name of the map.
        console: shows the progress of this rank.

    Yields:
        The result of each raster on rank 0; nothing on other ranks.

    Raises:
        ConfigError: the options don't fit a raster or the memory.
    """
    dist.init_process_group("gloo", timeout=_TIMEOUT)  # exchanges a few small objects only
    rank, n_ranks = dist.get_rank(), dist.get_world_size()
    try:
        planned = [plan_map(mapper, name, path) for name, path in rasters.items()] if rank == 0 else []
        broadcast = [planned]
        dist.broadcast_object_list(broadcast)
        plans = broadcast[0]
        jobs = [plan for plan in plans if isinstance(plan, MapJob)]
        failed = _merge_results(predict_share(mapper, jobs, console, rank, n_ranks))
        complete = [job for job in jobs if job.name not in failed]
        done = _merge_results({job.name: finalize(mapper, job) for job in complete[rank::n_ranks]})
        if rank == 0:
            for plan in plans:
                if isinstance(plan, MapResult):
                    yield plan
                elif plan.name in failed:
                    yield MapResult(plan.name, error=mapper.as_failure(plan, failed[plan.name]))
                else:
                    yield done[plan.name]
    finally:
        dist.destroy_process_group()


def _merge_results(rank_results: dict[str, _T]) -> dict[str, _T]:
    """Gather the dicts of all ranks and merge them on each rank; lower ranks take precedence."""
    gathered: list[dict[str, _T]] = [{}] * dist.get_world_size()
    dist.all_gather_object(gathered, rank_results)
    return {key: value for results in reversed(gathered) for key, value in results.items()}
