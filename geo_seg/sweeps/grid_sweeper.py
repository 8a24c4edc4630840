"""Hydra's sweeper for every combination of the listed choices, and what all sweepers share."""

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from omegaconf import DictConfig, OmegaConf, open_dict

import geo_seg
from geo_seg.cli import format_error
from geo_seg.config.training_checks import parse_train_config
from geo_seg.errors import ConfigError, IncompatibleChoiceError, SweepError
from geo_seg.runtime.files import atomic_write
from geo_seg.runtime.lock import folder_lock, is_locked
from geo_seg.runtime.ranks import is_distributed
from geo_seg.sweeps.outcomes import Outcome, read_outcome, write_outcome

_SHARED = "multirun.yaml"


@dataclass
class GridSweeperConf:
    """Options of the sweeper.

    Attributes:
        _target_: the sweeper.
        max_batch_size: jobs that are handed to the launcher at once; null for all.
        params: choices to sweep beside those of the command line, as text: {loss: "dice,focal"}.
    """

    _target_: str = "hydra_plugins.geo_seg_sweeps.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


class GridSweeper(BasicSweeper):
    """Runs every combination; the failures are told at the end, beside the leaderboard."""

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Runs the sweep.

        Args:
            arguments: the command line.

        Raises:
            ConfigError: a choice that can't be enumerated, or see refuse.
            SweepError: runs failed.
        """
        check_sweep_allowed(self.config)
        assert self.hydra_context and self.launcher  # noqa: S101 - Hydra has called setup
        overrides = OverridesParser.create(self.hydra_context.config_loader).parse_overrides(
            [*self._parse_config(), *arguments]
        )
        continuous = [
            o.key_or_group for o in overrides if o.is_sweep_override() and not o.is_discrete_sweep()
        ]
        if continuous:
            raise ConfigError(
                f"{continuous[0]}: a range without steps has no values to list; add sweeper=optuna"
            )
        batches = self.split_arguments(overrides, self.max_batch_size)
        for batch in batches:
            self.validate_batch_is_legal(batch)
        assert self.config is not None  # noqa: S101 - as above
        runs = (list(words) for batch in batches for words in batch)
        check_any_run_valid(self.hydra_context.config_loader, self.config, runs)
        results: list[Sequence[JobReturn]] = []
        number = 0
        with start_sweep(self.config) as folder:
            for batch in batches:
                results.append(self.launcher.launch(batch, initial_job_idx=number))
                number += len(batch)
            finish_sweep(folder, [job for jobs in results for job in jobs])
        return results


def check_any_run_valid(loader: ConfigLoader, config: DictConfig, runs: Iterable[list[str]]) -> None:
    """Raises what is wrong with the first run if no run is right: then there is no sweep to begin.

    Args:
        loader: of configurations.
        config: that all runs share.
        runs: what each changes; none after the first right one is asked for.
    """
    wrong: Exception | None = None
    for words in runs:
        try:
            parse_train_config(strip_hydra(loader.load_sweep_config(config, words)))
        except IncompatibleChoiceError:
            return
        except Exception as error:
            wrong = wrong or error
        else:
            return
    if wrong is not None:
        raise wrong


def strip_hydra(config: DictConfig) -> DictConfig:
    """The configuration of a run, without what is Hydra's own."""
    found = copy.deepcopy(config)
    with open_dict(found):
        del found["hydra"]
    return found


def check_sweep_allowed(config: Any) -> None:
    """Raises where a sweep can't be.

    Args:
        config: that all its runs share.

    Raises:
        ConfigError: torchrun or srun has started several processes, each of which would run the sweep; or its
            runs would not train.
    """
    if is_distributed():
        raise ConfigError(
            "a sweep is started by one process, `python train.py -m ...`, not by torchrun or srun; its runs "
            "start their own processes (trainer.devices)"
        )
    if config.mode != "train":
        raise ConfigError(
            f"mode={config.mode}: the runs of a sweep (-m) train; expected one command for each: "
            f"python train.py mode={config.mode} ..."
        )


@contextmanager
def start_sweep(config: Any) -> Iterator[Path]:
    """Holds the folder of a sweep as long as it lasts, with the configuration that all runs share in it.

    Workers of whatever launcher find the code that started the sweep, installed or not.

    Args:
        config: that all its runs share.

    Raises:
        ConfigError: the same sweep, or another one in this folder, is running.
    """
    folder = Path(config.hydra.sweep.dir)
    if config.hydra.launcher.get("reuse", True):
        _check_not_running(config, folder)
    code = str(Path(geo_seg.__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH"))))
    with folder_lock(folder, "a sweep is running there"):
        text = OmegaConf.to_yaml(config)
        atomic_write(folder / _SHARED, text)
        yield folder


def _check_not_running(config: Any, folder: Path) -> None:
    """Raises if the same sweep is running beside this one: it would train every run a second time."""
    for file in folder.parent.glob(f"*/{_SHARED}"):
        if file.parent.resolve() == folder.resolve() or not is_locked(file.parent):
            continue
        other: Any = OmegaConf.load(file)
        if other.hydra.overrides.task == config.hydra.overrides.task:
            raise ConfigError(
                f"{file.parent}: the same sweep is running there; wait for it, or stop it first "
                "(hydra.launcher.reuse=false trains everything once more)"
            )


def finish_sweep(folder: Path, jobs: Sequence[JobReturn]) -> None:
    """Records how the runs ended, writes the leaderboard, and raises if runs failed.

    Args:
        folder: of the sweep.
        jobs: as the launcher returned them.

    Raises:
        SweepError: runs failed.
    """
    for job in jobs:
        record_outcome(job)
    from geo_seg.sweeps.leaderboard import write_leaderboard

    print(write_leaderboard(folder), flush=True)
    failed = [job for job in jobs if job.status is not JobStatus.COMPLETED]
    if failed:
        first = job_folder(failed[0]).name
        raise SweepError(
            f"{len(failed)} of {len(jobs)} runs failed, {first} for one "
            f"({format_error(_value(failed[0]))}); see "
            f"{folder / 'leaderboard.md'}"
        )


def record_outcome(job: JobReturn) -> Outcome:
    """Writes down how a job ended, for launchers that don't."""
    folder = job_folder(job)
    known = read_outcome(folder)
    overrides = tuple(filter_overrides(job.overrides or []))
    if job.status is not JobStatus.COMPLETED:
        error = format_error(_value(job))
        outcome = Outcome("failed", overrides, error=error, seconds=known.seconds, run=known.run)
    elif known.status in {"reused", "pruned", "skipped"}:
        return known
    elif _value(job) is None and known.status != "done":
        outcome = Outcome("skipped", overrides)
    else:
        outcome = Outcome("done", overrides, value=_value(job), seconds=known.seconds, run=known.run)
    write_outcome(folder, outcome)
    return outcome


def job_folder(job: JobReturn) -> Path:
    """The folder of a job in its sweep."""
    config: Any = job.hydra_cfg  # every launcher fills it in
    return Path(config.hydra.runtime.output_dir)


def _value(job: JobReturn) -> Any:
    return job._return_value  # its property prints, and raises for a failed job
