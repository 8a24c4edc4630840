"""Hydra launcher that runs every job of a sweep as a separate training process."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from geo_seg.cli import format_error, print_error
from geo_seg.config.training import TrainConfig
from geo_seg.config.training_checks import parse_train_config
from geo_seg.errors import ConfigError, IncompatibleChoiceError, SweepError
from geo_seg.run_folder import read_run_state
from geo_seg.runtime.program import process_words
from geo_seg.sweeps.grid_sweeper import strip_hydra
from geo_seg.sweeps.jobs import await_end, finished_run, interrupted_run
from geo_seg.sweeps.outcomes import Outcome, delete_outcome, read_outcome, validation_score, write_outcome
from geo_seg.sweeps.processes import Command, ProcessResult, run_all

log = logging.getLogger(__name__)
_LOG = "run.log"
_SWEEP_ONLY_PREFIXES = (
    "hydra.sweep",
    "hydra/sweeper",
    "hydra.launcher",
    "hydra/launcher",
    "hydra.run",
    "hydra.mode",
)


@dataclass
class ProcessLauncherConf:
    """Options of the launcher.

    Attributes:
        _target_: the launcher.
        slots: maximum number of simultaneous runs.
        devices: numbers of the GPUs to distribute over the slots; null shows all of them to every run.
        threads: OpenMP threads of each run; null distributes the cores over the slots.
        keep_going: whether the sweep continues after a failed run.
        reuse: whether to reuse finished runs with the same configuration, data and code, and to resume
            interrupted ones.
    """

    _target_: str = "hydra_plugins.geo_seg_sweeps.ProcessLauncher"
    slots: int = 1
    devices: list[Any] | None = None  # numbers and texts: OmegaConf has no such union
    threads: int | None = None
    keep_going: bool = True
    reuse: bool = True


@dataclass
class _Job:
    number: int
    overrides: list[str]
    config: DictConfig
    folder: Path
    words: str  # overrides that differ from other jobs
    interrupted: Path | None = None  # interrupted run to resume instead

    @property
    def run_folder(self) -> Path:
        """Folder of the run."""
        return self.interrupted or self.folder

    def outcome(
        self, status: str, value: float | None = None, error: str = "", seconds: float = 0.0
    ) -> Outcome:
        """Return an outcome of this job."""
        overrides = tuple(filter_overrides(self.overrides))
        return Outcome(
            status,
            overrides,
            value,
            error,
            seconds,
            os.path.relpath(self.run_folder, self.folder.parent) if self.interrupted else ".",
        )


class ProcessLauncher(Launcher):
    """Launcher with one process per job, see ProcessLauncherConf.

    Runs on several devices need it: their ranks repeat the command line, and that of a sweep would repeat
    the sweep.
    """

    def __init__(
        self,
        slots: int,
        devices: Sequence[int | str] | None,
        threads: int | None,
        keep_going: bool,
        reuse: bool,
    ) -> None:
        if slots < 1 or (threads is not None and threads < 1):
            raise ConfigError(f"hydra.launcher: slots={slots}, threads={threads}: expected 1 or more")
        if devices is not None and len(devices) < slots:
            raise ConfigError(
                f"hydra.launcher.devices={list(devices)}: fewer than hydra.launcher.slots={slots}; each slot "
                f"needs one"
            )
        self.slots = slots
        self.stop: Callable[[Path, int], bool] = lambda folder, number: False
        self._devices = devices
        self._threads = threads
        self._keep_going = keep_going
        self._reuse = reuse

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the context of Hydra."""
        self._loader = hydra_context.config_loader
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and wait for them.

        Args:
            job_overrides: overrides of each job.
            initial_job_idx: number of the first job.

        Returns:
            Per job the best validation mean IoU, None for a choice that is incompatible with the data, or
            the error.
        """
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        jobs = [self._job(initial_job_idx + i, list(o)) for i, o in enumerate(job_overrides)]
        results: dict[int, JobReturn] = {}
        claimed: set[Path] = set()
        for job in jobs:
            outcome = self._outcome_without_process(job, claimed)
            if outcome:
                write_outcome(job.folder, outcome)
                results[job.number] = _job_return(job, outcome)
        waiting = {job.number: job for job in jobs if job.number not in results}
        failed = any(job.status is JobStatus.FAILED for job in results.values())
        if waiting and (self._keep_going or not failed):
            results |= self._run(waiting)
        return [results.get(job.number) or _job_return(job, _NOT_STARTED) for job in jobs]

    def _job(self, number: int, overrides: list[str]) -> _Job:
        config = self._loader.load_sweep_config(self._config, overrides)
        with read_write(config), open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            folder = Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
            config.hydra.runtime.output_dir = str(folder.absolute())
        shared = self._config.hydra.overrides.task
        words = " ".join(o for o in filter_overrides(overrides) if o not in shared) or "as the command says"
        return _Job(number, overrides, config, folder, words)

    def _outcome_without_process(self, job: _Job, claimed: set[Path]) -> Outcome | None:
        """Return the outcome of a job that needs no process; else set the interrupted run to resume."""
        overrides = tuple(filter_overrides(job.overrides))
        try:
            config = parse_train_config(strip_hydra(job.config))
            await_end(job.folder)
        except IncompatibleChoiceError as error:
            print_error(error, "skipped")
            return Outcome("skipped", overrides, error=format_error(error))
        except Exception as error:
            print_error(error)
            return Outcome("failed", overrides, error=format_error(error))
        if not self._reuse:
            return None
        if (earlier := self._reused_outcome(job, config, overrides)) is not None:
            return earlier
        if (interrupted := interrupted_run(config, job.folder, claimed)) is not None:
            claimed.add(interrupted)
            job.interrupted = interrupted
        return None

    def _reused_outcome(self, job: _Job, config: TrainConfig, overrides: tuple[str, ...]) -> Outcome | None:
        run = finished_run(config, job.folder.parent)
        if run is None:
            return None
        log.info(f"\t#{job.number} : {job.words} : done already in {run}")
        recorded = read_outcome(job.folder)
        if recorded.status == "done" and run.resolve() == recorded.run_folder(job.folder).resolve():
            return recorded
        if run.resolve() == job.folder.resolve():
            return Outcome("done", overrides, value=validation_score(run))
        path = os.path.relpath(run, job.folder.parent)
        return Outcome("reused", overrides, value=validation_score(run), run=path)

    def _run(self, jobs: dict[int, _Job]) -> dict[int, JobReturn]:
        for job in jobs.values():
            if job.interrupted != job.folder:
                _archive_attempt(job.folder)
            if job.interrupted:
                write_outcome(job.folder, job.outcome("running"))
        process_results = run_all(
            [Command(job.number, self._command(job), job.folder / _LOG) for job in jobs.values()],
            slots=self.slots,
            devices=self._devices,
            threads=self._threads,
            started=lambda command: self._started(jobs[command.number]),
            stop=lambda number: self.stop(jobs[number].run_folder, number),
        )
        results = {}
        for result in process_results:
            job = jobs[result.number]
            outcome = _outcome(job, result)
            write_outcome(job.folder, outcome)
            results[result.number] = _job_return(job, outcome)
            _log_outcome(job, outcome)
            if outcome.status == "failed" and not self._keep_going:
                process_results.close()
        return results

    def _command(self, job: _Job) -> list[str]:
        hydra = job.config.hydra
        passed = [o for o in hydra.overrides.hydra if not o.lstrip("+~").startswith(_SWEEP_ONLY_PREFIXES)]
        folders = [
            source.path for source in hydra.runtime.config_sources if source.provider == "command-line"
        ]
        flags = ["--config-dir", folders[0]] if folders else []
        quoted_folder = str(job.run_folder).replace("\\", "\\\\").replace("'", "\\'")
        name = ["--config-name", hydra.job.config_name]
        # a resumed run reads its configuration from its folder, and keeps the files of Hydra there
        run_overrides = (
            [f"resume='{quoted_folder}'", "hydra.output_subdir=null"] if job.interrupted else job.overrides
        )
        return [
            *process_words("train"),
            *flags,
            *name,
            *(*run_overrides, *passed, f"hydra.run.dir='{quoted_folder}'", "hydra.mode=RUN"),
        ]

    def _started(self, job: _Job) -> None:
        resuming = f"resuming {job.interrupted}, " if job.interrupted else ""
        log.info(f"\t#{job.number} : {job.words} : {resuming}log {job.folder / _LOG}")


_NOT_STARTED = Outcome("failed", (), error="not started: a run failed before it, and keep_going=false")


def _archive_attempt(folder: Path) -> None:
    """Move an earlier attempt at a run to the folder `earlier`."""
    delete_outcome(folder)
    if not (folder / "checkpoints").exists():
        return
    archive = folder.parent / "earlier"
    archive.mkdir(exist_ok=True)
    count = len(list(archive.glob(f"{folder.name}.*")))
    folder.rename(archive / f"{folder.name}.{count + 1}")


def _outcome(job: _Job, end: ProcessResult) -> Outcome:
    if end.stopped:
        return job.outcome("pruned", seconds=end.seconds)
    if end.code == 0 and read_run_state(job.run_folder).get("finished"):
        return job.outcome("done", value=validation_score(job.run_folder), seconds=end.seconds)
    return job.outcome("failed", error=_reason(job.folder / _LOG, end.code), seconds=end.seconds)


def _reason(file: Path, code: int) -> str:
    lines = [line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    message = (errors or lines or ["no output"])[-1]
    return message if code == 2 and errors else f"{message} (exit code {code}; log {file})"


def _job_return(job: _Job, outcome: Outcome) -> JobReturn:
    failed = outcome.status == "failed"
    result = JobReturn(
        overrides=list(job.overrides),
        cfg=strip_hydra(job.config),
        hydra_cfg=OmegaConf.masked_copy(job.config, "hydra"),
        working_dir=str(job.folder),
        task_name=str(job.config.hydra.job.name),
    )
    result.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
    result.return_value = SweepError(outcome.error) if failed else outcome.value
    return result


def _log_outcome(job: _Job, outcome: Outcome) -> None:
    if outcome.status == "failed":
        print(f"error: {outcome.error}", file=sys.stderr)
    value = "" if outcome.value is None else f", mean IoU {outcome.value:.4f}"
    log.info(f"\t#{job.number} : {outcome.status} after {outcome.seconds:.0f} s{value}")
