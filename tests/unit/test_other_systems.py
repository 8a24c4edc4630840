"""What only POSIX has is left out where it is missing: nothing needs it to be imported or to end."""

import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.test_architecture import FILES, imports, module_of

WITHOUT = """
import importlib, json, os, signal, sys
from contextlib import suppress

foreign, modules = json.loads(sys.stdin.read())
for name in foreign:  # libraries have their own ways on Windows
    for end in range(1, name.count(".") + 2):
        with suppress(ImportError):
            importlib.import_module(".".join(name.split(".")[:end]))
import torch, subprocess
for name in ("SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGHUP"):
    delattr(signal, name)
for name in ("killpg", "sysconf", "sched_getaffinity", "fork", "getuid", "geteuid"):
    delattr(os, name)
for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None
for name in modules:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # an extra that isn't installed
        assert error.name in foreign, f"{name} needs {error.name}"
"""
USE = """
import tempfile
from pathlib import Path
from geo_seg.prediction.memory import free_memory
from geo_seg.runtime.lock import folder_lock, is_locked, is_unlocked, maps_lock
from geo_seg.runtime.memory import tune_malloc
from geo_seg.sweeps.processes import Command, run_all

folder = Path(tempfile.mkdtemp())
with folder_lock(folder), maps_lock(folder, ["a"]):
    assert not is_locked(folder) and not is_unlocked(folder)  # nobody can tell
assert free_memory(torch.device("cpu")) > 0
tune_malloc()
code = "import time; print('begun', flush=True); time.sleep(600)"
began = lambda number: "begun" in (folder / "log").read_text()
commands = [Command(0, [sys.executable, "-c", code], folder / "log")]
ended = list(run_all(commands, slots=1, devices=None, threads=None, started=lambda c: None, stop=began))
assert ended[0].stopped and ended[0].code != 0
print("done")
"""


@pytest.mark.slow
def test_all_works_without_what_only_posix_has() -> None:
    modules = sorted(module_of(path) for path in FILES)
    foreign = {name for path in FILES for name in imports(path)}
    foreign = {name for name in foreign if name.split(".")[0] not in {"geo_seg", "losses", "fcntl"}}
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT + USE],
        input=json.dumps([sorted(foreign), modules]),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
