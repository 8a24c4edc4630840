"""How each run of a sweep ended: one small file per run, written and read."""

import csv
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from geo_seg.run_folder import read_run_state
from geo_seg.runtime.files import atomic_write

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
        run: the folder that holds the run, from the sweep folder; another sweep's for one that is
            reused or went on there.
    """

    status: str
    overrides: tuple[str, ...]
    value: float | None = None
    error: str = ""
    seconds: float = 0.0
    run: str = "."

    def place(self, folder: Path) -> Path:
        """The folder of the run that a folder of a sweep stands for."""
        return folder if self.run == "." else folder.parent / self.run


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Writes how a run ended into its folder of the sweep; the file is never half-written."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / _FILE, json.dumps(asdict(outcome), indent=2))


def read_outcome(folder: Path) -> Outcome:
    """How the run ended that a folder of a sweep stands for; "running" when nothing says so."""
    try:
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        overrides = _overrides(folder / ".hydra" / "overrides.yaml")
        if read_run_state(folder).get("finished"):
            return Outcome("done", overrides, value=validation_score(folder))
        return Outcome("running", overrides)
    outcome = Outcome(**{**found, "overrides": tuple(found["overrides"])})
    place = outcome.place(folder)
    if outcome.status == "running" and read_run_state(place).get("finished"):
        return replace(outcome, status="done", value=validation_score(place))
    return outcome


def delete_outcome(folder: Path) -> None:
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


def _overrides(file: Path) -> tuple[str, ...]:
    try:
        found: list[Any] = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    except OSError:
        return ()
    return tuple(str(item) for item in found)
