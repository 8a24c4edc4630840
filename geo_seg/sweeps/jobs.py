"""Jobs of a sweep: reuse of identical finished runs, resuming of interrupted ones."""

import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from geo_seg.checkpoints.files import LAST_CHECKPOINT
from geo_seg.config.training import TrainConfig
from geo_seg.errors import ConfigError, DataError
from geo_seg.run_folder import RUN_FILE, code_hash, config_hash, read_run_state
from geo_seg.runtime.lock import is_locked, is_unlocked
from geo_seg.runtime.orphans import GRACE
from geo_seg.runtime.ranks import rank
from geo_seg.sweeps.outcomes import Outcome, delete_outcome, validation_score, write_outcome

_POLL = 0.5  # seconds between two checks of a run that is about to end


def finished_run(config: TrainConfig, sweep: Path) -> Path | None:
    """Return a finished run with the same configuration, data and code, of this sweep or one beside it."""
    return next(iter(_identical_runs(config, sweep, finished=True)), None)


def interrupted_run(config: TrainConfig, folder: Path, claimed: Collection[Path] = ()) -> Path | None:
    """Return an interrupted run with the same configuration, data and code that can be resumed.

    Args:
        config: configuration of the job.
        folder: folder of the job in its sweep; preferred to other runs.
        claimed: runs that other jobs resume.
    """
    resumable = [
        run
        for run in _identical_runs(config, folder.parent, finished=False)
        if run not in claimed and (run / LAST_CHECKPOINT).exists() and _is_abandoned(run, folder.parent)
    ]
    return folder if folder in resumable else next(iter(resumable), None)


def await_end(run: Path) -> None:
    """Wait, with a timeout, for a run that is about to end because its sweep was killed.

    Raises:
        ConfigError: the run doesn't end in time.
    """
    deadline = time.monotonic() + 1.5 * GRACE
    if is_locked(run):
        print(f"{run}: waiting for the process that is training there to end", flush=True)
    while is_locked(run):
        if time.monotonic() > deadline:
            raise ConfigError(f"{run}: another process is training there; stop it, or choose another folder")
        time.sleep(_POLL)


def _is_abandoned(run: Path, sweep: Path) -> bool:
    """Return whether no process trains a run and no other sweep will resume it."""
    if is_locked(run) and (run.parent.resolve() == sweep.resolve() or not is_locked(run.parent)):
        with suppress(ConfigError):
            await_end(run)
    return is_unlocked(run)


def _identical_runs(config: TrainConfig, sweep: Path, finished: bool) -> list[Path]:
    """Return runs with the same hashes, of this sweep and those beside it, newest sweep first."""
    expected = {"config": config_hash(config), "code": code_hash(), "finished": finished}
    states = {file.parent: read_run_state(file.parent) for file in sweep.parent.glob(f"*/*/{RUN_FILE}")}
    matches = [run for run in sorted(states, reverse=True) if states[run].items() >= expected.items()]
    if not matches:
        return []
    from geo_seg.data.fingerprint import data_fingerprint

    try:
        data = data_fingerprint(config.dataset, config.seed)
    except (ConfigError, DataError):
        return []  # the run itself reports the error
    return [run for run in matches if states[run]["data"] == data]


def reuse_finished_run(config: TrainConfig) -> Path | None:
    """Return a finished run identical to this job of a sweep, and record it as the outcome of the job.

    Args:
        config: configuration of the job.

    Returns:
        Folder of the run; None if there is none, and outside of sweeps.

    Raises:
        ConfigError: the job needs several devices, and the launcher doesn't start that many processes.
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
        overrides = tuple(map(str, OmegaConf.to_container(hydra.overrides.task) or ()))
        path = os.path.relpath(run, folder.parent)
        write_outcome(folder, Outcome("reused", overrides, value=validation_score(run), run=path))
    return run


def resume_interrupted(config: TrainConfig) -> TrainConfig:
    """Return the configuration of a job, set to resume an identical interrupted run of the sweep.

    Jobs of the process launcher run outside of a sweep and get the run to resume from it. Jobs of several
    processes are not resumed.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN or device_count(config.trainer) != 1:
        return config
    folder = Path(hydra.runtime.output_dir)
    interrupted = interrupted_run(config, folder)
    if interrupted is None:
        return config
    overrides = tuple(map(str, OmegaConf.to_container(hydra.overrides.task) or ()))
    path = os.path.relpath(interrupted, folder.parent)
    write_outcome(folder, Outcome("running", overrides, run=path))
    return replace(config, resume=str(interrupted))


def device_count(trainer: Mapping[str, Any]) -> int:
    """Return the number of processes of a run; -1 if it depends on the machine."""
    devices, nodes = trainer.get("devices", 1), int(trainer.get("num_nodes") or 1)
    if isinstance(devices, list):
        return len(devices) * nodes
    if devices in {"auto", "-1", -1}:
        # a processor counts as one device; all GPUs of a machine as many
        return nodes if trainer.get("accelerator") == "cpu" else -1
    text = str(devices)
    return (len(text.strip(",").split(",")) if "," in text else int(text)) * nodes
