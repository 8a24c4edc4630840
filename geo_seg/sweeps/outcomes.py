"""How each run of a sweep ended: one small file per run, written and read."""

import csv
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

from geo_seg.run_folder import read_run_state
from geo_seg.runtime.files import atomic_write

_OUTCOME_FILE = "outcome.json"
_METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep ended.

    Attributes:
        status: "done", "reused" (an identical earlier run exists), "failed", "skipped" (a choice that is
            incompatible with the data), "pruned" (stopped because others were better), or "running" (or
            interrupted).
        overrides: overrides of this run, from the command line and the sweeper.
        value: best validation mean IoU, None if there is none.
        error: one line with the reason of a failed or skipped run.
        seconds: duration; 0 for a reused run.
        run: folder of the run relative to the sweep folder; in another sweep if it was reused or resumed
            there.
    """

    status: str
    overrides: tuple[str, ...]
    value: float | None = None
    error: str = ""
    seconds: float = 0.0
    run: str = "."

    def run_folder(self, folder: Path) -> Path:
        """Return the folder of the run that a folder of a sweep refers to."""
        return folder if self.run == "." else folder.parent / self.run


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write the outcome of a run into its folder of the sweep, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / _OUTCOME_FILE, json.dumps(asdict(outcome), indent=2))


def read_outcome(folder: Path) -> Outcome:
    """Return the outcome of a folder of a sweep; status "running" if none is recorded."""
    try:
        content = json.loads((folder / _OUTCOME_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        overrides = _read_overrides(folder / ".hydra" / "overrides.yaml")
        if read_run_state(folder).get("finished"):
            return Outcome("done", overrides, value=validation_score(folder))
        return Outcome("running", overrides)
    outcome = Outcome(**{**content, "overrides": tuple(content["overrides"])})
    run_folder = outcome.run_folder(folder)
    if outcome.status == "running" and read_run_state(run_folder).get("finished"):
        return replace(outcome, status="done", value=validation_score(run_folder))
    return outcome


def delete_outcome(folder: Path) -> None:
    """Delete the outcome of an earlier attempt."""
    (folder / _OUTCOME_FILE).unlink(missing_ok=True)


def run_folders(sweep: Path) -> list[Path]:
    """Return the folders of the runs of a sweep, sorted by number."""
    folders = [p for p in sweep.iterdir() if (p / _OUTCOME_FILE).exists() or (p / ".hydra").exists()]
    return sorted(
        folders, key=lambda p: (int(head) if (head := p.name.split("_")[0]).isdigit() else 0, p.name)
    )


def validation_score(run: Path) -> float | None:
    """Return the best validation mean IoU of a finished run, or None."""
    try:
        score = json.loads((run / _METRICS_FILE).read_text(encoding="utf-8")).get("best_val_miou")
    except (OSError, ValueError):
        return None
    return None if score is None else float(score)


def read_curve(run: Path) -> list[tuple[int, float]]:
    """Return (epoch, validation mean IoU) of the epochs so far; epochs count from 1."""
    try:
        with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return []
    return [(int(row["epoch"]) + 1, float(row["val/miou"])) for row in rows if row.get("val/miou")]


def _read_overrides(file: Path) -> tuple[str, ...]:
    try:
        overrides: list[object] = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    except OSError:
        return ()
    return tuple(str(override) for override in overrides)
