"""Leaderboard of a sweep: CSV of all runs, Markdown table, and HTML page with figures."""

import os
from collections.abc import Sequence
from pathlib import Path

from geo_seg.errors import DataError
from geo_seg.runtime.files import atomic_write, write_csv
from geo_seg.sweeps.compare import Group, Run, group_runs, read_runs, swept_keys

_MAX_GROUPS_PRINTED = 20  # rows of the table in the terminal


def print_leaderboard(sweep: str) -> None:
    """Write the leaderboard of a sweep, finished or not, and print it.

    Raises:
        DataError: the folder is not the folder of a sweep.
    """
    print(write_leaderboard(Path(sweep)))


def write_leaderboard(sweep: Path) -> str:
    """Write leaderboard.csv, leaderboard.md and leaderboard.html into the folder of a sweep.

    Returns:
        Text for the terminal.

    Raises:
        DataError: the folder is not the folder of a sweep.
    """
    runs = read_runs(sweep) if sweep.is_dir() else []
    if not runs:
        raise DataError(f"sweep={sweep}: no runs are in there; expected the folder of a sweep, sweeps/...")
    groups = group_runs(runs)
    _write_runs(sweep, runs)
    lines = [*_table(groups, len(groups)), "", *_status_lines(runs)]
    atomic_write(sweep / "leaderboard.md", "\n".join(lines) + "\n", concurrent=True)
    from geo_seg.sweeps.leaderboard_page import write_page

    write_page(sweep / "leaderboard.html", sweep.name, runs, groups)
    terminal_lines = [*_table(groups, _MAX_GROUPS_PRINTED), "", *_status_lines(runs)]
    return "\n".join([*terminal_lines, f"leaderboard {sweep / 'leaderboard.html'}"])


def _table(groups: Sequence[Group], max_groups: int) -> list[str]:
    keys = list(groups[0].choices) if groups else []
    compared = any(group.difference for group in groups)
    head = ["place", *keys, "runs", "val mean IoU", *(["behind the best (95 %)"] if compared else [])]
    rows = [
        [
            str(position),
            *group.choices.values(),
            str(len(group.runs)),
            group.score,
            *([group.verdict] if compared else []),
        ]
        for position, group in enumerate(groups[:max_groups], 1)
    ]
    if len(groups) > 1 and not compared:
        rows_note = ["", "No interval: fewer than 5 validation scenes are the same in all runs."]
    else:
        rows_note = []
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in [head, *rows]
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [lines[0], rule, *lines[1:], *rows_note]


def _status_lines(runs: Sequence[Run]) -> list[str]:
    counts = {status: sum(run.outcome.status == status for run in runs) for status in _statuses(runs)}
    lines = [f"{len(runs)} runs: " + ", ".join(f"{count} {status}" for status, count in counts.items())]
    return lines + [
        f"* {run.outcome.status}: {run.name}: {run.error}"
        for run in runs
        if run.outcome.status in {"failed", "skipped"}
    ]


def _statuses(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(run.outcome.status for run in runs))


def _write_runs(sweep: Path, runs: Sequence[Run]) -> None:
    keys = swept_keys(runs)
    rows = []
    for run in sorted(
        runs, key=lambda run: -1 if run.outcome.value is None else run.outcome.value, reverse=True
    ):
        scores = {
            f"{split}_{key}": value
            for split, of_split in run.scores.items()
            for key, value in (("miou", of_split.miou), ("accuracy", of_split.accuracy))
        }
        classes = run.scores["val"].classes if "val" in run.scores else ()
        rows.append(
            {
                "run": run.name,
                "status": run.outcome.status,
                **{key: run.choices.get(key) for key in keys},
                "best_val_miou": run.outcome.value,
                **scores,
                **{f"val_iou_{score.name}": score.iou for score in classes},
                "epochs": run.metrics.get("epochs"),
                "seconds": round(run.outcome.seconds, 1),
                "folder": os.path.relpath(run.folder, sweep),
                "error": run.error,
            }
        )
    write_csv(
        sweep / "leaderboard.csv", rows, concurrent=True
    )  # a sweep and mode=leaderboard may write at once
