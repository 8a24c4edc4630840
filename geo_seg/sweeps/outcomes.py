"""How each run of a sweep ended: one small file per run, written and read."""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from geo_seg.config import TrainConfig
from geo_seg.errors import ConfigError, DataError
from geo_seg.identity import RUN_FILE, code_version, config_hash, read_run_file
from geo_seg.whole import write_whole

_FILE = "outcome.json"
_SCORES = "metrics.json"


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended.

    Attributes:
        status: "done", "reused" (an earlier run was the same), "failed", "skipped" (a choice that isn't for
            this data), "pruned" (stopped because others were better), or "running" (not ended yet, or
            interrupted).
        overrides: what the command line and the sweeper said for this run.
        value: best mean IoU on the validation scenes, None where there is none.
        error: one line about what went wrong or why it was skipped.
        seconds: how long it took; 0 for a reused run.
        run: the folder that holds the run, from the sweep folder; another sweep's for a reused one.
    """

    status: str
    overrides: tuple[str, ...]
    value: float | None = None
    error: str = ""
    seconds: float = 0.0
    run: str = "."


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Writes how a run ended into its folder of the sweep; the file is never half-written."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / _FILE, json.dumps(asdict(outcome), indent=2))


def read_outcome(folder: Path) -> Outcome:
    """How the run ended that a folder of a sweep stands for; "running" when nothing says so."""
    try:
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        overrides = _overrides(folder / ".hydra" / "overrides.yaml")
        if read_run_file(folder).get("finished"):
            return Outcome("done", overrides, value=validation_score(folder))
        return Outcome("running", overrides)
    return Outcome(**{**found, "overrides": tuple(found["overrides"])})


def forget_outcome(folder: Path) -> None:
    """Takes away how an earlier try at a run ended."""
    (folder / _FILE).unlink(missing_ok=True)


def run_folders(sweep: Path) -> list[Path]:
    """The folders of a sweep that stand for a run, by number."""
    found = [p for p in sweep.iterdir() if (p / _FILE).exists() or (p / ".hydra").exists()]
    return sorted(found, key=lambda p: (int(head) if (head := p.name.split("_")[0]).isdigit() else 0, p.name))


def validation_score(run: Path) -> float | None:
    """Best mean IoU on the validation scenes of a finished run."""
    try:
        found = json.loads((run / _SCORES).read_text(encoding="utf-8")).get("best_val_miou")
    except (OSError, ValueError):
        return None
    return None if found is None else float(found)


def read_curve(run: Path) -> list[tuple[int, float]]:
    """Epoch, from 1, and mean IoU on the validation scenes, as far as a run has come."""
    try:
        with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return []
    return [(int(row["epoch"]) + 1, float(row["val/miou"])) for row in rows if row.get("val/miou")]


def finished_run(config: TrainConfig, sweep: Path) -> Path | None:
    """A finished run of this sweep or of one beside it with the same configuration, data and code."""
    wanted = {"config": config_hash(config), "code": code_version(), "finished": True}
    known = {file.parent: read_run_file(file.parent) for file in sweep.parent.glob(f"*/*/{RUN_FILE}")}
    found = [run for run in sorted(known, reverse=True) if known[run].items() >= wanted.items()]
    if not found:
        return None
    from geo_seg.data.fingerprint import data_fingerprint  # slow, and of no use before there is a run

    try:
        data = data_fingerprint(config.dataset, config.seed)
    except (ConfigError, DataError):
        return None  # the run itself will say so
    return next((run for run in found if known[run]["data"] == data), None)


def _overrides(file: Path) -> tuple[str, ...]:
    try:
        found: list[Any] = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    except OSError:
        return ()
    return tuple(str(item) for item in found)
