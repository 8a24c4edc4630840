"""Hydra sweeper for all combinations of choices, and functions shared by the sweepers."""

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
from geo_seg.config.hydra_setup import portable_command
from geo_seg.config.training_checks import parse_train_config
from geo_seg.errors import ConfigError, IncompatibleChoiceError, SweepError
from geo_seg.runtime.files import atomic_write
from geo_seg.runtime.lock import folder_lock, is_locked
from geo_seg.runtime.program import is_checkout
from geo_seg.runtime.ranks import is_distributed
from geo_seg.sweeps.outcomes import Outcome, read_outcome, write_outcome

_SHARED_CONFIG = "multirun.yaml"


@dataclass
class GridSweeperConf:
    """Options of the sweeper.

    Attributes:
        _target_: the sweeper.
        max_batch_size: jobs per launch; null for all.
        params: additional choices to sweep, as text: {loss: "dice,focal"}.
    """

    _target_: str = "hydra_plugins.geo_seg_sweeps.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


class GridSweeper(BasicSweeper):
    """Sweeper that runs all combinations, and reports failures after the leaderboard."""

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run the sweep.

        Args:
            arguments: overrides of the command line.

        Raises:
            ConfigError: a choice can't be enumerated; or see check_sweep_allowed.
            SweepError: runs failed.
        """
        assert self.config is not None and self.hydra_context and self.launcher  # noqa: S101 - by setup
        check_sweep_allowed(self.config)
        overrides = OverridesParser.create(self.hydra_context.config_loader).parse_overrides(
            [*self._parse_config(), *arguments]
        )
        continuous = [
            o.key_or_group for o in overrides if o.is_sweep_override() and not o.is_discrete_sweep()
        ]
        if continuous:
            raise ConfigError(f"{continuous[0]}: an interval has no list of values; add sweeper=optuna")
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
    """Raise the error of the first run if the configuration of every run is invalid.

    Args:
        loader: config loader of Hydra.
        config: configuration shared by all runs.
        runs: overrides of each run; consumed up to the first valid one.
    """
    first_error: Exception | None = None
    for words in runs:
        try:
            parse_train_config(strip_hydra(loader.load_sweep_config(config, words)))
        except IncompatibleChoiceError:
            return
        except Exception as error:
            first_error = first_error or error
        else:
            return
    if first_error is not None:
        raise first_error


def strip_hydra(config: DictConfig) -> DictConfig:
    """Return the configuration of a run without its hydra section."""
    run_config = copy.deepcopy(config)
    with open_dict(run_config):
        del run_config["hydra"]
    return run_config


def check_sweep_allowed(config: DictConfig) -> None:
    """Raise an error if a sweep can't be started.

    Args:
        config: configuration shared by all runs.

    Raises:
        ConfigError: torchrun or srun started several processes, each of which would run the sweep; or mode is
            not "train".
    """
    if is_distributed():
        raise ConfigError(
            f"a sweep is started by one process, `{portable_command('train')} -m ...`, not by torchrun or "
            "srun; its runs start their own processes (trainer.devices)"
        )
    if config.mode != "train":
        raise ConfigError(
            f"mode={config.mode}: the runs of a sweep (-m) train; expected one command for each: "
            f"{portable_command('train')} mode={config.mode} ..."
        )


@contextmanager
def start_sweep(config: DictConfig) -> Iterator[Path]:
    """Lock the folder of a sweep and write the shared configuration into it.

    In a clone, PYTHONPATH is extended so that workers of any launcher import the same source tree.

    Args:
        config: configuration shared by all runs.

    Raises:
        ConfigError: the same sweep, or another one in this folder, is running.
    """
    folder = Path(config.hydra.sweep.dir)
    if config.hydra.launcher.get("reuse", True):
        _check_not_running(config, folder)
    if is_checkout():
        source_root = str(Path(geo_seg.__file__).parents[1])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (source_root, os.environ.get("PYTHONPATH"))))
    with folder_lock(folder, "a sweep is running there"):
        text = OmegaConf.to_yaml(config)
        atomic_write(folder / _SHARED_CONFIG, text)
        yield folder


def _check_not_running(config: DictConfig, folder: Path) -> None:
    """Raise an error if the same sweep is running in another folder: it would train every run twice."""
    for file in folder.parent.glob(f"*/{_SHARED_CONFIG}"):
        if file.parent.resolve() == folder.resolve() or not is_locked(file.parent):
            continue
        running = OmegaConf.load(file)
        if running.hydra.overrides.task == config.hydra.overrides.task:
            raise ConfigError(
                f"{file.parent}: the same sweep is running there; wait for it, or stop it first "
                "(hydra.launcher.reuse=false trains everything once more)"
            )


def finish_sweep(folder: Path, jobs: Sequence[JobReturn]) -> None:
    """Record the outcomes, write the leaderboard, and raise an error if runs failed.

    Args:
        folder: folder of the sweep.
        jobs: results of the launcher.

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
            f"({format_error(_return_value(failed[0]))}); see "
            f"{folder / 'leaderboard.md'}"
        )


def record_outcome(job: JobReturn) -> Outcome:
    """Write the outcome of a job, unless the launcher has."""
    folder = job_folder(job)
    recorded = read_outcome(folder)
    overrides = tuple(filter_overrides(job.overrides or []))
    if job.status is not JobStatus.COMPLETED:
        error = format_error(_return_value(job))
        outcome = Outcome("failed", overrides, error=error, seconds=recorded.seconds, run=recorded.run)
    elif recorded.status in {"reused", "pruned", "skipped"}:
        return recorded
    elif _return_value(job) is None and recorded.status != "done":
        outcome = Outcome("skipped", overrides)
    else:
        outcome = Outcome(
            "done", overrides, value=_return_value(job), seconds=recorded.seconds, run=recorded.run
        )
    write_outcome(folder, outcome)
    return outcome


def job_folder(job: JobReturn) -> Path:
    """Return the folder of a job in its sweep."""
    assert job.hydra_cfg is not None  # noqa: S101 - every launcher sets it
    return Path(job.hydra_cfg.hydra.runtime.output_dir)


def _return_value(job: JobReturn) -> Any:  # a score, None, or the exception of a failed job
    return job._return_value  # its property prints, and raises for a failed job
