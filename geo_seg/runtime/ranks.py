"""Which process of a run this one is, told from the environment before torch is imported."""

import os
from collections.abc import Mapping

from geo_seg.errors import ConfigError

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # in the order in which Lightning believes them
_RANK_VARIABLES = (
    *_RANKS,
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
    """Raises where a variable that torchrun or srun sets holds something else than a number.

    Raises:
        ConfigError: names it.
    """
    for name in _RANK_VARIABLES:
        value = os.environ.get(name, "0") or "0"
        if name not in _TEXT_VARIABLES and not value.isdecimal():
            raise ConfigError(
                f"{name}={value}: expected a whole number in this variable of the environment, which "
                f"torchrun and srun set; without these: unset {name}"
            )


def rank() -> int:
    """The number of this process among those of the run, 0 for the one that writes."""
    return int(next((os.environ[name] for name in _RANKS if os.environ.get(name)), 0))


def is_distributed() -> bool:
    """Whether torchrun or srun has started this process together with others.

    SLURM_NTASKS doesn't tell: a plain batch script has it too.
    """
    torchrun = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    return torchrun > 1 or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def no_output_overrides() -> list[str]:
    """What makes Hydra leave no files: for the command line of a process that writes no run folder.

    torchrun and srun start all ranks at once, each with a clock of its own: Hydra would give each of them a
    folder and a log. Rank 1 and higher learn the run's folder from rank 0, through Lightning.
    """
    return ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]


def strip_rank_env(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that is to start ranks of its own."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _RANK_VARIABLES and not name.startswith("TORCHELASTIC_")
    }
