"""Parallel processes with a limit, each with its share of GPUs and cores and its own log."""

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
from typing import IO

from geo_seg.runtime.orphans import adopt
from geo_seg.runtime.ranks import strip_rank_env

_POLL = 0.2  # seconds between two polls
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # SIGTERM kills on Windows
_GRACE = 60.0  # seconds between SIGTERM and SIGKILL, for writing a checkpoint


@dataclass(frozen=True)
class Command:
    """Command of a run.

    Attributes:
        number: number of the run in its sweep.
        words: arguments of the command line.
        log: file for its output.
    """

    number: int
    words: Sequence[str]
    log: Path


@dataclass(frozen=True)
class ProcessResult:
    """Result of a command.

    Attributes:
        number: number of the run in its sweep.
        code: exit code, negative for a signal.
        seconds: duration.
        stopped: whether it was stopped by `stop`.
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
    stopped: float | None = None  # time of the SIGTERM


def run_all(
    commands: Sequence[Command],
    *,
    slots: int,
    devices: Sequence[int | str] | None,
    threads: int | None,
    started: Callable[[Command], None],
    stop: Callable[[int], bool],
) -> Generator[ProcessResult, None, None]:
    """Run commands and yield their results; no process outlives the caller.

    Args:
        commands: commands in order of their start.
        slots: maximum number of processes at a time.
        devices: GPUs to distribute over the slots; None shows all of them to every process.
        threads: OpenMP threads of each process; None distributes the cores over the slots.
        started: called with each command when it has started.
        stop: polled with the number of a running command; True stops it.

    Yields:
        Results in order of completion.
    """
    pending, running = deque(commands), dict[int, _Running]()
    with _interrupt_on_sigterm():
        try:
            while pending or running:
                for slot in set(range(slots)) - running.keys():
                    if pending:
                        running[slot] = _start(pending.popleft(), slot, slots, devices, threads)
                        started(running[slot].command)
                time.sleep(_POLL)
                for slot, run in list(running.items()):
                    if run.process.poll() is not None:
                        del running[slot]
                        yield _result(run)
                    elif run.stopped is None and stop(run.command.number):
                        run.stopped = time.monotonic()
                        _signal(run, signal.SIGTERM)
                    elif run.stopped is not None and time.monotonic() - run.stopped > _GRACE:
                        _signal(run, _KILL)
        finally:
            _terminate_all(list(running.values()))


def slot_environment(
    slot: int, slots: int, devices: Sequence[int | str] | None, threads: int | None
) -> dict[str, str]:
    """Return the environment of a slot: its GPUs and threads, no rank variables, bound to this process."""
    env = strip_rank_env(os.environ)
    adopt(env)
    if devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, list(devices)[slot::slots]))
    if threads is not None:
        env["OMP_NUM_THREADS"] = str(threads)
    elif slots > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        env.setdefault("OMP_NUM_THREADS", str(max(cores // slots, 1)))
    return env


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
        env=slot_environment(slot, slots, devices, threads),
        start_new_session=True,  # a run and its ranks are signalled together
    )
    return _Running(command, process, log, slot, time.monotonic())


def _result(run: _Running) -> ProcessResult:
    _signal(run, _KILL)  # ranks that outlived their run
    run.log.close()
    seconds = time.monotonic() - run.since
    return ProcessResult(run.command.number, run.process.returncode, seconds, run.stopped is not None)


def _terminate_all(runs: Sequence[_Running]) -> None:
    for run in runs:
        _signal(run, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    for run in runs:
        try:
            run.process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            _signal(run, _KILL)
        run.log.close()


def _signal(run: _Running, number: signal.Signals) -> None:
    if not hasattr(os, "killpg"):  # Windows: the run alone, its ranks end when they lose it
        run.process.send_signal(number)
        return
    with suppress(ProcessLookupError):  # it has just ended
        os.killpg(run.process.pid, number)


@contextmanager
def _interrupt_on_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, so that the runs are stopped, too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous_handler = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous_handler)
