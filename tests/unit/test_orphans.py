"""A process that a sweep, a run or torchrun has started ends with it, however that ends; others stay."""

import subprocess
import sys
import threading

import pytest

from geo_seg.runtime import orphans
from geo_seg.runtime.orphans import PARENT, end_with_parent

CHILD = (
    "import signal, sys, time\n"
    "from geo_seg.runtime import orphans\n"
    "orphans.GRACE, orphans._POLL_SECONDS = .2, .05\n"
    "{before}\n"
    "orphans.end_with_parent()\n"
    "print('on', flush=True); time.sleep(60)"
)
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
POLITE = "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)))"
STARTS = {
    "a run of a sweep": (
        "from geo_seg.sweeps.processes import slot_environment as of; env = of(0, 1, None, None)"
    ),
    "a rank of a run": "env = dict(os.environ); from geo_seg.runtime.orphans import adopt; adopt(env)",
    "a rank of torchrun": "env = {**os.environ, 'TORCHELASTIC_RUN_ID': 'x'}",
}


@pytest.mark.parametrize("before", ["", DEAF, POLITE], ids=["plain", "deaf", "polite"])
@pytest.mark.parametrize("starts", STARTS.values(), ids=list(STARTS))
@pytest.mark.fault("ranks", "processes outlive the parent that was killed")
def test_a_process_ends_with_the_parent_that_is_killed(starts: str, before: str) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os, subprocess, sys, time; {starts}\n"
            f"subprocess.Popen([sys.executable, '-c', {CHILD.format(before=before)!r}], env=env)\n"
            "time.sleep(60)",
        ],
        stdout=subprocess.PIPE,  # it ends when the last process that has it has ended
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"on\n"
    parent.kill()
    rest, _ = parent.communicate(timeout=30)
    assert rest == (b"saved\n" if before == POLITE else b"")


def test_a_process_that_somebody_else_has_started_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (PARENT, "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    end_with_parent()
    assert "parent" not in {thread.name for thread in threading.enumerate()}


def test_a_parent_that_ended_before_its_child_began_is_missed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(orphans, "_end", ended.set)
    monkeypatch.setenv(PARENT, "1999999999")
    end_with_parent()
    assert ended.wait(30)
