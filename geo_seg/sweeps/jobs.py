"""A job of a sweep: whether a run is trained already, or was interrupted and goes on."""

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from geo_seg.config.training import TrainConfig
from geo_seg.data.first_look import look_before_training
from geo_seg.errors import ConfigError, DataError
from geo_seg.run_folder import RUN_FILE, code_hash, config_hash, read_run_state
from geo_seg.runtime.lock import is_locked, is_unlocked
from geo_seg.runtime.orphans import GRACE
from geo_seg.runtime.ranks import rank
from geo_seg.sweeps.outcomes import Outcome, delete_outcome, validation_score, write_outcome

_CHECKPOINT = Path("checkpoints") / "last.ckpt"
_POLL = 0.5  # seconds between two looks at a run that is about to end


def finished_run(config: TrainConfig, sweep: Path) -> Path | None:
    """A finished run of this sweep or of one beside it with the same configuration, data and code."""
    return next(iter(_same(config, sweep, finished=True)), None)


def interrupted_run(config: TrainConfig, folder: Path, taken: Collection[Path] = ()) -> Path | None:
    """A run that was interrupted and can go on, of this sweep or of one beside it; the same in all else.

    Args:
        config: of the run.
        folder: its own in the sweep, which is looked into first.
        taken: runs that are gone on with already.
    """
    found = [
        run
        for run in _same(config, folder.parent, finished=False)
        if run not in taken and (run / _CHECKPOINT).exists() and _is_left(run, folder.parent)
    ]
    return folder if folder in found else next(iter(found), None)


def await_end(run: Path) -> None:
    """Waits for a run that is about to end because its sweep was killed; not for ever.

    Raises:
        ConfigError: it doesn't end.
    """
    until = time.monotonic() + 1.5 * GRACE
    if is_locked(run):
        print(f"{run}: waiting for the process that is training there to end", flush=True)
    while is_locked(run):
        if time.monotonic() > until:
            raise ConfigError(f"{run}: another process is training there; stop it, or choose another folder")
        time.sleep(_POLL)


def _is_left(run: Path, sweep: Path) -> bool:
    """Whether nobody trains a run, and nobody will but who asks."""
    if is_locked(run) and (run.parent.resolve() == sweep.resolve() or not is_locked(run.parent)):
        with suppress(ConfigError):
            await_end(run)
    return is_unlocked(run)


def _same(config: TrainConfig, sweep: Path, finished: bool) -> list[Path]:
    """Runs of this sweep and of those beside it, the newest sweep first."""
    wanted = {"config": config_hash(config), "code": code_hash(), "finished": finished}
    known = {file.parent: read_run_state(file.parent) for file in sweep.parent.glob(f"*/*/{RUN_FILE}")}
    found = [run for run in sorted(known, reverse=True) if known[run].items() >= wanted.items()]
    if not found:
        return []
    from geo_seg.data.fingerprint import data_fingerprint

    try:
        data = data_fingerprint(config.dataset, config.seed)
    except (ConfigError, DataError):
        return []  # the run itself will say so
    return [run for run in found if known[run]["data"] == data]


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
        from geo_seg.sweeps.leaderboard import print_leaderboard  # imports torch

        return partial(print_leaderboard, str(config.sweep))
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
        delete_outcome(folder)
    run = finished_run(config, Path(hydra.sweep.dir))
    if run is not None and run.resolve() != folder.resolve() and rank() == 0:
        said = tuple(map(str, OmegaConf.to_container(hydra.overrides.task) or ()))
        place = os.path.relpath(run, folder.parent)
        write_outcome(folder, Outcome("reused", said, value=validation_score(run), run=place))
    return run


def resume_interrupted(config: TrainConfig) -> TrainConfig:
    """The configuration of a job; in a sweep it goes on with an interrupted run that is the same.

    Jobs of the process launcher aren't in a sweep: they are told what to go on with. Those of several
    processes begin anew.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN or device_count(config.trainer) != 1:
        return config
    folder = Path(hydra.runtime.output_dir)
    broken = interrupted_run(config, folder)
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
