"""What a job does first: a leaderboard, or, in a sweep, a look for what is trained already."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from geo_seg.config import TrainConfig
from geo_seg.errors import ConfigError
from geo_seg.first_look import look_before_training
from geo_seg.ranks import rank
from geo_seg.sweeps.earlier import broken_run, finished_run
from geo_seg.sweeps.leaderboard import show
from geo_seg.sweeps.outcomes import Outcome, forget_outcome, validation_score, write_outcome


def instead_of_training(config: TrainConfig) -> Callable[[], float | None] | None:
    """What there is to do in place of training: a check, a leaderboard, or what is trained already.

    Args:
        config: of the job.

    Returns:
        A function that does it and gives the validation score, if there is one; None where the job is to
        train.

    Raises:
        ConfigError: as earlier_run.
        CheckpointError, DataError: see look_before_training.
    """
    if config.mode == "check":
        from geo_seg.doctor.run import check

        return partial(check, config, HydraConfig.get().runtime.output_dir)
    if config.mode == "leaderboard":
        return partial(show, str(config.sweep))
    look_before_training(config)
    earlier = earlier_run(config)
    return None if earlier is None else partial(validation_score, earlier)


def earlier_run(config: TrainConfig) -> Path | None:
    """Looks for a finished run that is the same as this job of a sweep.

    Args:
        config: of the job.

    Returns:
        Its folder; None where there is none, and outside of sweeps.

    Raises:
        ConfigError: the job is for several devices, and the launcher doesn't start that many processes.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return None
    count = device_count(config.trainer)
    if count != 1 and count != int(os.environ.get("SLURM_NTASKS", "1")):
        raise ConfigError(
            f"trainer.devices={config.trainer.get('devices')}: several devices in a run of a sweep need "
            f"launcher=process, or launcher=submitit_slurm with as many hydra.launcher.tasks_per_node"
        )
    folder = Path(hydra.runtime.output_dir)
    if rank() == 0:
        forget_outcome(folder)
    run = finished_run(config, Path(hydra.sweep.dir))
    if run is not None and run.resolve() != folder.resolve() and rank() == 0:
        said = tuple(map(str, OmegaConf.to_container(hydra.overrides.task) or ()))
        place = os.path.relpath(run, folder.parent)
        write_outcome(folder, Outcome("reused", said, value=validation_score(run), run=place))
    return run


def taken_up(config: TrainConfig) -> TrainConfig:
    """The configuration of a job; in a sweep it goes on with an interrupted run that is the same.

    Jobs of the process launcher aren't in a sweep: they are told what to go on with. Those of several
    processes begin anew.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN or device_count(config.trainer) != 1:
        return config
    folder = Path(hydra.runtime.output_dir)
    broken = broken_run(config, folder)
    if broken is None:
        return config
    said = tuple(map(str, OmegaConf.to_container(hydra.overrides.task) or ()))
    write_outcome(folder, Outcome("running", said, run=os.path.relpath(broken, folder.parent)))
    return replace(config, resume=str(broken))


def device_count(trainer: Mapping[str, Any]) -> int:
    """How many processes a run asks for; -1 when that depends on the machine."""
    devices, nodes = trainer.get("devices", 1), int(trainer.get("num_nodes") or 1)
    if isinstance(devices, list):
        return len(devices) * nodes
    if devices in {"auto", "-1", -1}:
        # a processor counts as one device; all GPUs of a machine as many
        return nodes if trainer.get("accelerator") == "cpu" else -1
    text = str(devices)
    return (len(text.strip(",").split(",")) if "," in text else int(text)) * nodes
