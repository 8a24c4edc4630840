"""Earlier runs that are the same as a run of a sweep: finished ones stand for it, broken ones go on."""

import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from geo_seg.config import TrainConfig
from geo_seg.errors import ConfigError, DataError
from geo_seg.identity import RUN_FILE, code_version, config_hash, read_run_file
from geo_seg.lock import is_free, is_held
from geo_seg.orphans import GRACE

_CHECKPOINT = Path("checkpoints") / "last.ckpt"
_POLL = 0.5  # seconds between two looks at a run that is about to end


def finished_run(config: TrainConfig, sweep: Path) -> Path | None:
    """A finished run of this sweep or of one beside it with the same configuration, data and code."""
    return next(iter(_same(config, sweep, finished=True)), None)


def broken_run(config: TrainConfig, folder: Path, taken: Collection[Path] = ()) -> Path | None:
    """A run that was interrupted and can go on, of this sweep or of one beside it; the same in all else.

    Args:
        config: of the run.
        folder: its own in the sweep, which is looked into first.
        taken: runs that are gone on with already.
    """
    found = [
        run
        for run in _same(config, folder.parent, finished=False)
        if run not in taken and (run / _CHECKPOINT).exists() and _is_left(run, folder.parent)
    ]
    return folder if folder in found else next(iter(found), None)


def await_end(run: Path) -> None:
    """Waits for a run that is about to end because its sweep was killed; not for ever.

    Raises:
        ConfigError: it doesn't end.
    """
    until = time.monotonic() + 1.5 * GRACE
    if is_held(run):
        print(f"{run}: waiting for the process that is training there to end", flush=True)
    while is_held(run):
        if time.monotonic() > until:
            raise ConfigError(f"{run}: another process is training there; stop it, or choose another folder")
        time.sleep(_POLL)


def _is_left(run: Path, sweep: Path) -> bool:
    """Whether nobody trains a run, and nobody will but who asks."""
    if is_held(run) and (run.parent.resolve() == sweep.resolve() or not is_held(run.parent)):
        with suppress(ConfigError):
            await_end(run)
    return is_free(run)


def _same(config: TrainConfig, sweep: Path, finished: bool) -> list[Path]:
    """Runs of this sweep and of those beside it, the newest sweep first."""
    wanted = {"config": config_hash(config), "code": code_version(), "finished": finished}
    known = {file.parent: read_run_file(file.parent) for file in sweep.parent.glob(f"*/*/{RUN_FILE}")}
    found = [run for run in sorted(known, reverse=True) if known[run].items() >= wanted.items()]
    if not found:
        return []
    from geo_seg.data.fingerprint import data_fingerprint  # slow, and of no use before there is a run

    try:
        data = data_fingerprint(config.dataset, config.seed)
    except (ConfigError, DataError):
        return []  # the run itself will say so
    return [run for run in found if known[run]["data"] == data]
