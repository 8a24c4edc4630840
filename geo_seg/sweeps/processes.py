"""Runs commands, so many at a time, each with its share of the machine and a log of its own."""

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from geo_seg.runtime.orphans import adopt
from geo_seg.runtime.ranks import strip_rank_env

_POLL = 0.2  # seconds between two looks at what runs
_GRACE = 60.0  # seconds that a run has to write its checkpoint when it is told to stop


@dataclass(frozen=True)
class Command:
    """Something to run.

    Attributes:
        number: of the run in its sweep.
        words: the command line.
        log: where its output goes.
    """

    number: int
    words: Sequence[str]
    log: Path


@dataclass(frozen=True)
class ProcessResult:
    """How a command ended.

    Attributes:
        number: of the run in its sweep.
        code: exit code, negative for a signal.
        seconds: how long it took.
        stopped: whether we stopped it because `stop` said so.
    """

    number: int
    code: int
    seconds: float
    stopped: bool


@dataclass
class _Running:
    command: Command
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    slot: int
    since: float
    stopped: float | None = None  # when we told it to stop


def run_all(
    commands: Sequence[Command],
    *,
    slots: int,
    devices: Sequence[int | str] | None,
    threads: int | None,
    started: Callable[[Command], None],
    stop: Callable[[int], bool],
) -> Generator[ProcessResult, None, None]:
    """Runs commands and tells as each of them ends; whatever ends the caller, none of them stays behind.

    Args:
        commands: in the order of their start.
        slots: how many run at a time.
        devices: GPUs, shared out over the slots; None leaves all of them visible to all.
        threads: OpenMP threads of each; None shares the processor's cores out over the slots.
        started: is told what has started.
        stop: is asked again and again, with a run's number, whether to stop that run.

    Yields:
        How each command ended, in the order of their ends.
    """
    waiting, running = deque(commands), dict[int, _Running]()
    with _ending_on_signals():
        try:
            while waiting or running:
                for slot in set(range(slots)) - running.keys():
                    if waiting:
                        running[slot] = _start(waiting.popleft(), slot, slots, devices, threads)
                        started(running[slot].command)
                time.sleep(_POLL)
                for slot, run in list(running.items()):
                    if run.process.poll() is not None:
                        del running[slot]
                        yield _ended(run)
                    elif run.stopped is None and stop(run.command.number):
                        run.stopped = time.monotonic()
                        _signal(run, signal.SIGTERM)
                    elif run.stopped is not None and time.monotonic() - run.stopped > _GRACE:
                        _signal(run, signal.SIGKILL)
        finally:
            _end(list(running.values()))


def environment(
    slot: int, slots: int, devices: Sequence[int | str] | None, threads: int | None
) -> dict[str, str]:
    """The environment of a slot: its GPUs, its threads, no trace of ranks, and a parent to end with."""
    found = strip_rank_env(os.environ)
    adopt(found)
    if devices is not None:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, list(devices)[slot::slots]))
    if threads is not None:
        found["OMP_NUM_THREADS"] = str(threads)
    elif slots > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        found.setdefault("OMP_NUM_THREADS", str(max(cores // slots, 1)))
    return found


def _start(
    command: Command, slot: int, slots: int, devices: Sequence[int | str] | None, threads: int | None
) -> _Running:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    log = command.log.open("wb")
    process = subprocess.Popen(  # noqa: S603 - our own entry point
        list(command.words),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment(slot, slots, devices, threads),
        start_new_session=True,  # a run and the ranks that it starts are stopped together
    )
    return _Running(command, process, log, slot, time.monotonic())


def _ended(run: _Running) -> ProcessResult:
    _signal(run, signal.SIGKILL)  # ranks that outlived their run
    run.log.close()
    seconds = time.monotonic() - run.since
    return ProcessResult(run.command.number, run.process.returncode, seconds, run.stopped is not None)


def _end(runs: Sequence[_Running]) -> None:
    for run in runs:
        _signal(run, signal.SIGTERM)
    until = time.monotonic() + _GRACE
    for run in runs:
        try:
            run.process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            _signal(run, signal.SIGKILL)
        run.log.close()


def _signal(run: _Running, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has just ended by itself
        os.killpg(run.process.pid, number)


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Makes SIGTERM end this process like ctrl-C does, so that the runs are stopped too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: Any = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
