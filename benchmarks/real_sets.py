"""Scores of the recipe of config/experiment/short_cpu.yaml on the four real data sets, split by place.

    GEO_SEG_DATA=<folder of the data sets> python benchmarks/real_sets.py [--sets dubai hls] [key=value ...]

Every run is one `python train.py experiment=short_cpu dataset=...`, with what else is said, on one thread.
Prints a Markdown table. The minutes are those of the processor, from start to report.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETS = "dubai", "hls", "inria", "amazon"


def train(name: str, words: Sequence[str], folder: Path) -> tuple[dict[str, object], float]:
    """One run: its metrics.json and its minutes."""
    begin = spent()
    subprocess.run(
        [
            *(sys.executable, ROOT / "train.py", "experiment=short_cpu", f"dataset={name}", *words),
            f"hydra.run.dir={folder / name}",
        ],
        check=True,
        stdout=sys.stderr,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads((folder / name / "metrics.json").read_text()), (spent() - begin) / 60


def spent() -> float:
    """Seconds of the processor that the runs so far have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Trains on each set in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="what else the runs are told, such as seed=1")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--folder", type=Path, help="keeps the run folders there")
    options = parser.parse_args()
    print("| data set | val mean IoU | test mean IoU | test accuracy | test IoU by class | CPU minutes |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.sets:
            found, minutes = train(name, options.words, options.folder or Path(scratch))
            scores = found[found["split"]]
            classes = ", ".join(
                f"{row['name']} {'-' if row['iou'] is None else format(row['iou'], '.2f')}"
                for row in scores["classes"]
            )
            print(
                f"| {name} | {found['best_val_miou']:.3f} | {scores['miou']:.3f} | {scores['accuracy']:.3f} "
                f"| {classes} | {minutes:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
