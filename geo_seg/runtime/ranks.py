"""Rank of this process in a distributed run, read from the environment before torch is imported."""

import os
from collections.abc import Mapping

from geo_seg.errors import ConfigError

_RANK_NUMBER_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # in the order in which Lightning reads them
_RANK_VARIABLES = (
    *_RANK_NUMBER_VARIABLES,
    "WORLD_SIZE",
    "SLURM_NTASKS",
    "GROUP_RANK",
    "NODE_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_STEP_NUM_TASKS",
)
_TEXT_VARIABLES = ("MASTER_ADDR",)


def check_ranks() -> None:
    """Raise if a variable that torchrun or srun sets is not a number.

    Raises:
        ConfigError: with the name of the variable.
    """
    for name in _RANK_VARIABLES:
        value = os.environ.get(name, "0") or "0"
        if name not in _TEXT_VARIABLES and not value.isdecimal():
            raise ConfigError(
                f"{name}={value}: expected a whole number in this environment variable, which torchrun and "
                f"srun set; if you use neither of them: unset {name}"
            )


def rank() -> int:
    """Return the rank of this process in its run; rank 0 writes the files."""
    return int(next((os.environ[name] for name in _RANK_NUMBER_VARIABLES if os.environ.get(name)), 0))


def is_distributed() -> bool:
    """Return whether torchrun or srun has started this process together with others.

    SLURM_NTASKS can't be used: a plain batch script has it, too.
    """
    torchrun = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    return torchrun > 1 or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def no_output_overrides() -> list[str]:
    """Return Hydra overrides that suppress the output folder and log.

    torchrun and srun start all ranks at once, each with its own clock: Hydra would create a folder and a log
    for each of them. Rank 1 and higher receive the run folder from rank 0, through Lightning.
    """
    return ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]


def strip_rank_env(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the variables of ranks, for a process that starts its own ranks."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _RANK_VARIABLES and not name.startswith("TORCHELASTIC_")
    }
