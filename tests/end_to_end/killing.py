"""Sweeps whose runs are drawn instead of trained, killed before any change that they make to the disk.

Run as a program, it reads a line of JSON for each sweep to start, and forks: the libraries are imported once.
"""

import csv
import importlib
import io
import json
import os
import pickle
import runpy
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Sweeps:
    """Starts sweeps in the process that this file is the program of."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, folder: Path, words: Sequence[str], kill: int = 0, torn: bool = False) -> dict[str, Any]:
        """Runs `python train.py -m ...` in a folder.

        Args:
            folder: made if it isn't there.
            words: of the command line.
            kill: number of the change of the disk before which the process is killed, from 1; 0 for never.
            torn: counts files that are opened for writing, and opens and leaves the one so.

        Returns:
            code (exit code), changes and writes (their numbers, where it wasn't killed), said (its output).
        """
        folder.mkdir(parents=True, exist_ok=True)
        asked = {"folder": str(folder), "words": list(words), "kill": kill, "torn": torn}
        assert self._process.stdin and self._process.stdout
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return {**found, "said": (folder / "said.txt").read_text()}


@contextmanager
def sweeps() -> Iterator[Sweeps]:
    """A process that starts sweeps."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.end_to_end.killing"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield Sweeps(process)
        assert process.stdin
        process.stdin.close()


def _train(job: Any, config: Any, log: Path) -> None:
    """Leaves what a run leaves, with scores that follow from its choices."""
    from geo_seg.run_folder import run_hashes, write_run_state
    from geo_seg.runtime.files import atomic_write
    from geo_seg.runtime.lock import folder_lock

    place = job.run_folder
    place.mkdir(parents=True, exist_ok=True)
    log.write_text("trains\n")
    with folder_lock(place):
        known = run_hashes(config, "the data")
        write_run_state(place, known, finished=False)
        (place / "checkpoints").mkdir(exist_ok=True)
        if not (place / "checkpoints" / "last.ckpt").exists():
            with Path("begun.txt").open("a") as file:
                file.write(f"{place.name}\n")
            atomic_write(place / "checkpoints" / "last.ckpt", b"weights")
        score = zlib.crc32(" ".join(sorted(job.overrides)).encode()) / 2**32
        table = io.StringIO(newline="")
        csv.writer(table).writerows([["epoch", "val/miou"], [0, score / 2], [1, score]])
        atomic_write(place / "metrics.csv", table.getvalue())
        atomic_write(place / "metrics.json", json.dumps({"best_val_miou": score, "epochs": 2}))
        write_run_state(place, known, finished=True)


def _draw_runs() -> None:
    """Puts _train in the place of the processes of a sweep, and nothing else."""
    import geo_seg.data.fingerprint
    from geo_seg.config.training_checks import parse_train_config
    from geo_seg.runtime.files import atomic_write
    from geo_seg.sweeps import jobs as earlier
    from geo_seg.sweeps import leaderboard_page, process_launcher
    from geo_seg.sweeps.processes import ProcessResult

    jobs: dict[int, Any] = {}

    def command(self: Any, job: Any) -> list[str]:
        jobs[job.number] = job, parse_train_config(process_launcher.strip_hydra(job.config))
        return []

    def run_all(commands: Sequence[Any], *, started: Any, **_: Any) -> Iterator[ProcessResult]:
        for asked in commands:
            started(asked)
            _train(*jobs[asked.number], asked.log)
            yield ProcessResult(asked.number, 0, 1.0, False)

    earlier.GRACE = 0.2
    process_launcher.ProcessLauncher._command = command  # type: ignore[method-assign]
    process_launcher.run_all = run_all  # type: ignore[assignment]
    geo_seg.data.fingerprint.data_fingerprint = lambda *_: "the data"
    leaderboard_page.write_page = lambda file, *_: atomic_write(file, "a page")


class _Killer:
    """Counts the changes that this process makes below a folder, and ends it before one of them."""

    def __init__(self, folder: Path, kill: int, torn: bool) -> None:
        self._folder = str(folder)
        self._kill = kill
        self._torn = torn
        self.changes = self.writes = 0

    def __call__(self, event: str, given: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(given[2], int) and given[2] & _WRITES
        if not (writes or event in _CHANGES):
            return
        named = [str(Path(path).absolute()) for path in given[:2] if isinstance(path, str | os.PathLike)]
        if not any(path.startswith(self._folder) and not path.endswith("said.txt") for path in named):
            return
        self.changes += 1
        self.writes += bool(writes)
        if (self.writes if self._torn else self.changes) == self._kill:
            if self._torn:
                with suppress(OSError):  # there may be no such file
                    os.write(os.open(given[0], given[2]), b'{"half')
            os.kill(os.getpid(), signal.SIGKILL)


def _in_fork(asked: dict[str, Any], to: int) -> None:
    os.chdir(asked["folder"])
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = [str(REPOSITORY / "train.py"), "-m", *asked["words"]]
    killer = _Killer(Path(asked["folder"]), asked["kill"], asked["torn"])
    sys.addaudithook(killer)
    code = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(to, json.dumps({"code": code, "changes": killer.changes, "writes": killer.writes}).encode())
        os._exit(0)


def _compose_once(cache: Path) -> None:
    """Keeps what Hydra composes, which takes nearly all of the time of such a sweep, for the next process."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    compose = ConfigLoaderImpl.load_configuration

    def load(self: Any, config_name: Any, overrides: Any, run_mode: Any, **more: Any) -> Any:
        file = cache / f"{zlib.crc32(repr((overrides, run_mode)).encode())}.pickle"
        if not file.exists():
            found = compose(self, config_name, overrides, run_mode, **more)
            file.write_bytes(pickle.dumps(found))
        return pickle.loads(file.read_bytes())  # noqa: S301 - our own

    ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]


def main() -> None:
    """Forks a sweep for each line."""
    from hydra.core.plugins import Plugins

    Plugins.instance()  # before anything of ours: it imports Hydra's own sweeper a second time
    # what a sweep imports on its way; the rest is imported in every fork anew
    for name in ("geo_seg.cli", "geo_seg.sweeps.optuna_sweeper", "matplotlib.figure", "optuna.samplers"):
        if find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    _draw_runs()
    cache = tempfile.TemporaryDirectory()
    _compose_once(Path(cache.name))
    for line in sys.stdin:
        out, to = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(out)
            _in_fork(json.loads(line), to)
        os.close(to)
        with os.fdopen(out) as file:
            told = file.read()
        os.waitpid(pid, 0)
        print(told or json.dumps({"code": -signal.SIGKILL}), flush=True)


if __name__ == "__main__":
    main()
