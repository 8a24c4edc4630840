"""Hydra's launcher for sweeps: every job is a `python train.py` of its own."""

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

from geo_seg.cli import format_error
from geo_seg.config.training import TrainConfig
from geo_seg.config.training_checks import parse_train_config
from geo_seg.errors import ConfigError, IncompatibleChoiceError, SweepError
from geo_seg.run_folder import read_run_state
from geo_seg.sweeps.grid_sweeper import strip_hydra
from geo_seg.sweeps.jobs import await_end, finished_run, interrupted_run
from geo_seg.sweeps.outcomes import Outcome, delete_outcome, read_outcome, validation_score, write_outcome
from geo_seg.sweeps.processes import Command, ProcessResult, run_all

log = logging.getLogger(__name__)
_LOG = "run.log"
_NOT_FOR_JOBS = (
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
        slots: runs at a time.
        devices: numbers of the GPUs to share out over the slots; null shows all of them to every run.
        threads: OpenMP threads of each run; null shares the cores out over the slots.
        keep_going: whether the sweep goes on after a failed run.
        reuse: whether a finished run with the same configuration, data and code stands for a new one, and an
            interrupted one goes on.
    """

    _target_: str = "hydra_plugins.geo_seg_sweeps.ProcessLauncher"
    slots: int = 1
    devices: list[Any] | None = None
    threads: int | None = None
    keep_going: bool = True
    reuse: bool = True


@dataclass
class _Job:
    number: int
    overrides: list[str]
    config: DictConfig
    folder: Path
    words: str  # what tells it from the others
    broken: Path | None = None  # an interrupted run that goes on in its stead

    @property
    def place(self) -> Path:
        """Where the run lies."""
        return self.broken or self.folder

    def outcome(self, status: str, **found: Any) -> Outcome:
        """How it ends."""
        overrides = tuple(filter_overrides(self.overrides))
        return Outcome(
            status,
            overrides,
            run=os.path.relpath(self.place, self.folder.parent) if self.broken else ".",
            **found,
        )


class ProcessLauncher(Launcher):
    """Runs each job of a sweep as its own process; see ProcessLauncherConf.

    A run that starts further processes for further devices needs this: they repeat the command line, and
    that of a sweep would repeat the sweep.
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
        """Takes what Hydra hands over."""
        self._loader = hydra_context.config_loader
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs jobs and waits for them.

        Args:
            job_overrides: per job, what differs from the configuration.
            initial_job_idx: number of the first.

        Returns:
            Per job the best mean IoU on the validation scenes, None for a choice that isn't for the data,
            or the error.
        """
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        jobs = [self._job(initial_job_idx + i, list(o)) for i, o in enumerate(job_overrides)]
        found: dict[int, JobReturn] = {}
        taken: set[Path] = set()
        for job in jobs:
            settled = self._settled(job, taken)
            if settled:
                write_outcome(job.folder, settled)
                found[job.number] = _return(job, settled)
        waiting = {job.number: job for job in jobs if job.number not in found}
        failed = any(job.status is JobStatus.FAILED for job in found.values())
        if waiting and (self._keep_going or not failed):
            found |= self._run(waiting)
        return [found.get(job.number) or _return(job, _NOT_STARTED) for job in jobs]

    def _job(self, number: int, overrides: list[str]) -> _Job:
        config = self._loader.load_sweep_config(self._config, overrides)
        with read_write(config), open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            folder = Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
            config.hydra.runtime.output_dir = str(folder.absolute())
        shared = self._config.hydra.overrides.task
        words = " ".join(o for o in filter_overrides(overrides) if o not in shared) or "as the command says"
        return _Job(number, overrides, config, folder, words)

    def _settled(self, job: _Job, taken: set[Path]) -> Outcome | None:
        """How a job ends that needs no process; else finds what it may go on with."""
        overrides = tuple(filter_overrides(job.overrides))
        try:
            config = parse_train_config(strip_hydra(job.config))
            await_end(job.folder)
        except IncompatibleChoiceError as error:
            print(f"skipped: {format_error(error)}", file=sys.stderr)
            return Outcome("skipped", overrides, error=format_error(error))
        except Exception as error:
            print(f"error: {format_error(error)}", file=sys.stderr)
            return Outcome("failed", overrides, error=format_error(error))
        if not self._reuse:
            return None
        if (earlier := self._earlier(job, config, overrides)) is not None:
            return earlier
        if (broken := interrupted_run(config, job.folder, taken)) is not None:
            taken.add(broken)
            job.broken = broken
        return None

    def _earlier(self, job: _Job, config: TrainConfig, overrides: tuple[str, ...]) -> Outcome | None:
        run = finished_run(config, job.folder.parent)
        if run is None:
            return None
        log.info(f"\t#{job.number} : {job.words} : done already in {run}")
        known = read_outcome(job.folder)
        if known.status == "done" and run.resolve() == known.place(job.folder).resolve():
            return known
        if run.resolve() == job.folder.resolve():
            return Outcome("done", overrides, value=validation_score(run))
        place = os.path.relpath(run, job.folder.parent)
        return Outcome("reused", overrides, value=validation_score(run), run=place)

    def _run(self, jobs: dict[int, _Job]) -> dict[int, JobReturn]:
        for job in jobs.values():
            if job.broken != job.folder:
                _make_room(job.folder)
            if job.broken:
                write_outcome(job.folder, job.outcome("running"))
        ended = run_all(
            [Command(job.number, self._command(job), job.folder / _LOG) for job in jobs.values()],
            slots=self.slots,
            devices=self._devices,
            threads=self._threads,
            started=lambda command: self._started(jobs[command.number]),
            stop=lambda number: self.stop(jobs[number].place, number),
        )
        found = {}
        for end in ended:
            job = jobs[end.number]
            outcome = _outcome(job, end)
            write_outcome(job.folder, outcome)
            found[end.number] = _return(job, outcome)
            _tell(job, outcome)
            if outcome.status == "failed" and not self._keep_going:
                ended.close()
        return found

    def _command(self, job: _Job) -> list[str]:
        hydra = job.config.hydra
        passed = [o for o in hydra.overrides.hydra if not o.lstrip("+~").startswith(_NOT_FOR_JOBS)]
        folders = [
            source.path for source in hydra.runtime.config_sources if source.provider == "command-line"
        ]
        flags = ["--config-dir", folders[0]] if folders else []
        quoted = str(job.place).replace("\\", "\\\\").replace("'", "\\'")
        name = ["--config-name", hydra.job.config_name]
        # what goes on has its whole configuration in its folder, and keeps what Hydra wrote at its beginning
        said = [f"resume='{quoted}'", "hydra.output_subdir=null"] if job.broken else job.overrides
        return [
            *(sys.executable, str(Path(sys.argv[0]).absolute()), *flags, *name),
            *(*said, *passed, f"hydra.run.dir='{quoted}'", "hydra.mode=RUN"),
        ]

    def _started(self, job: _Job) -> None:
        goes_on = f"goes on in {job.broken}, " if job.broken else ""
        log.info(f"\t#{job.number} : {job.words} : {goes_on}log {job.folder / _LOG}")


_NOT_STARTED = Outcome("failed", (), error="not started: a run failed before it, and keep_going=false")


def _make_room(folder: Path) -> None:
    """Puts an earlier try at a run out of the way, but keeps it."""
    delete_outcome(folder)
    if not (folder / "checkpoints").exists():
        return
    shelf = folder.parent / "earlier"
    shelf.mkdir(exist_ok=True)
    count = len(list(shelf.glob(f"{folder.name}.*")))
    folder.rename(shelf / f"{folder.name}.{count + 1}")


def _outcome(job: _Job, end: ProcessResult) -> Outcome:
    if end.stopped:
        return job.outcome("pruned", seconds=end.seconds)
    if end.code == 0 and read_run_state(job.place).get("finished"):
        return job.outcome("done", value=validation_score(job.place), seconds=end.seconds)
    return job.outcome("failed", error=_reason(job.folder / _LOG, end.code), seconds=end.seconds)


def _reason(file: Path, code: int) -> str:
    lines = [line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip()]
    answers = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = (answers or lines or ["nothing said"])[-1]
    return said if code == 2 and answers else f"{said} (exit code {code}; log {file})"


def _return(job: _Job, outcome: Outcome) -> JobReturn:
    failed = outcome.status == "failed"
    found = JobReturn(
        overrides=list(job.overrides),
        cfg=strip_hydra(job.config),
        hydra_cfg=OmegaConf.masked_copy(job.config, "hydra"),
        working_dir=str(job.folder),
        task_name=str(job.config.hydra.job.name),
    )
    found.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
    found.return_value = SweepError(outcome.error) if failed else outcome.value
    return found


def _tell(job: _Job, outcome: Outcome) -> None:
    if outcome.status == "failed":
        print(f"error: {outcome.error}", file=sys.stderr)
    value = "" if outcome.value is None else f", mean IoU {outcome.value:.4f}"
    log.info(f"\t#{job.number} : {outcome.status} after {outcome.seconds:.0f} s{value}")
