"""Scores of the recipe of config/experiment/short_cpu.yaml on the four real data sets, split by place.

    GEO_SEG_DATA=<folder of the data sets> python benchmarks/real_sets.py [--sets dubai hls] [key=value ...]
    ... python benchmarks/real_sets.py --plain plain_recipe.py --seeds 0 1 2

Every run is one `python train.py experiment=short_cpu dataset=...`, with what else is said, on one thread.
With --plain a script is trained on the same training scenes for as many CPU seconds as the run took from its
start to its report, scores included, and scored on the same validation and test scenes; it is called as

    python SCRIPT SET ROOT RUN SECONDS SEED

and prints a line `val: mean IoU 0.5` and one of test. Each result is kept as <results>/<set>_<seed>.json;
those that are there are not measured again, unless --again is given. Prints a Markdown table, of means over
the seeds, with the least and the most.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiment" / "real_sets"
SETS = "dubai", "hls", "inria", "amazon"
SCORES = "val", "test"
OPTIONS: dict[str, tuple[str, ...]] = {
    # scenes of 256 px and more: windows that show as much of them as the script's do, as many pixels in all
    "dubai": ("dataset.window=256", "dataset.batch_size=4", "dataset.windows_per_epoch=800"),
    "inria": ("dataset.window=256", "dataset.batch_size=4", "dataset.windows_per_epoch=800"),
    "amazon": ("dataset.window=256", "dataset.batch_size=4", "dataset.windows_per_epoch=800"),
    "hls": (),
}
"""What a set is told beside the experiment: options that follow from the size of its scenes."""


def measure(name: str, seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run of a set and, where it is asked for, one of the plain script after it."""
    words = [*OPTIONS[name], *options.words, f"seed={seed}"]
    run = folder / f"{name}_{seed}"
    seconds = execute("train.py", "experiment=short_cpu", f"dataset={name}", *words, f"hydra.run.dir={run}")[
        1
    ]
    found = json.loads((run / "metrics.json").read_text())
    split = found["split"]
    result = {
        "set": name,
        "seed": seed,
        "options": words[:-1],
        "geo_seg": {key: found[key]["miou"] for key in SCORES if key in found},
        "cpu_seconds": round(seconds, 1),
        "predicted_with": found.get("predicted_with", {}).get("checkpoint"),
        "accuracy": found[split]["accuracy"],
        "iou": {row["name"]: row["iou"] for row in found[split]["classes"]},
    }
    if options.plain:
        root = os.environ.get("GEO_SEG_DATA", "data")
        said, spent = execute(options.plain, name, root, run, round(seconds), seed)
        result |= {"plain": plain_scores(said), "plain_cpu_seconds": round(spent, 1)}
    return result


def execute(script: object, *words: object) -> tuple[str, float]:
    """Return what a script prints, and the CPU seconds that it takes on one thread."""
    begin = cpu_seconds()
    ended = subprocess.run(
        [sys.executable, str(script), *map(str, words)],
        check=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    print(ended.stdout, file=sys.stderr, flush=True)
    return ended.stdout, cpu_seconds() - begin


def plain_scores(text: str) -> dict[str, float]:
    """Return the scores of validation and test that a plain script prints."""
    return {
        name: float(value) for name, value in re.findall(r"^\s*(val|test): mean IoU ([\d.]+)", text, re.M)
    }


def cpu_seconds() -> float:
    """Seconds of the processor that the runs so far have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spread(values: Sequence[float]) -> str:
    """Mean of some scores, with the least and the most where there are several."""
    if not values:
        return "-"
    ends = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{mean(values):.3f}{ends}"


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row per set and split, geo_seg beside the plain script."""
    lines = [
        "| data set | split | seeds | geo_seg, mean IoU | plain script | difference | CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(result["set"] for result in results):
        of_set = [result for result in results if result["set"] == name]
        taken = mean(result["cpu_seconds"] for result in of_set)
        for split in SCORES:
            ours = [result["geo_seg"][split] for result in of_set if split in result["geo_seg"]]
            both = [result for result in of_set if split in result.get("plain", {})]
            plain = [result["plain"][split] for result in both]
            gains = [result["geo_seg"][split] - result["plain"][split] for result in both]
            gain = f"{mean(gains):+.3f}" if gains else "-"
            cells = (name, split, len(of_set), spread(ours), spread(plain), gain, f"{taken:.0f}")
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Trains on each set in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="what else the runs are told, such as optimizer.lr=0.002")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--plain", type=lambda text: Path(text).absolute(), help="a script to compare with")
    parser.add_argument("--folder", type=Path, help="keeps the run folders there")
    parser.add_argument("--results", type=Path, default=RESULTS, help="of the JSON files")
    parser.add_argument("--again", action="store_true", help="measures what has a result, too")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.sets:
            for seed in options.seeds:
                file = options.results / f"{name}_{seed}.json"
                if options.again or not file.exists():
                    folder = (options.folder or Path(scratch)).absolute()
                    measured = measure(name, seed, options, folder)
                    file.write_text(json.dumps(measured, indent=2) + "\n")
                results.append(json.loads(file.read_text()))
    print(table(results))


if __name__ == "__main__":
    main()
