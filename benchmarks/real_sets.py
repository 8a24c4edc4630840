"""Scores of short CPU runs on the four real data sets, split by place.

    GEO_SEG_DATA=<folder of the data sets> python benchmarks/real_sets.py [--steps 600] [--weights package]

Every run is one `python train.py dataset=...` with the options below; prints a Markdown table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
OVERLAP = "loss=compound", "loss.terms={cross_entropy: 1, lovasz: 1}"
BINARY = "loss=compound", "loss.terms={soft_bce: 1, dice: 1}"
SETS = {"dubai": OVERLAP, "hls": OVERLAP, "inria": BINARY, "amazon": BINARY}
MODEL = "model.encoder=tu-tf_efficientnet_lite0", "model.decoder_channels=[128,64,32,16,16]"


def train(name: str, steps: int, weights: str, folder: Path) -> tuple[dict[str, object], float]:
    """One run: its metrics.json and its seconds."""
    begin = time.monotonic()
    subprocess.run(
        [
            *(sys.executable, ROOT / "train.py", f"dataset={name}", *SETS[name]),
            *(*MODEL, f"model.weights={weights}", "dataset.window=128"),
            *(f"dataset.windows_per_epoch={8 * steps}", "trainer.max_epochs=1", "callbacks=none"),
            *("trainer.accelerator=cpu", f"hydra.run.dir={folder / name}"),
        ],
        check=True,
        stdout=sys.stderr,
    )
    return json.loads((folder / name / "metrics.json").read_text()), time.monotonic() - begin


def main() -> None:
    """Trains on each set in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="of batch 8, windows of 128 px")
    parser.add_argument("--weights", choices=["null", "package"], default="null")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--folder", type=Path, help="keeps the run folders there")
    options = parser.parse_args()
    print("| data set | val mean IoU | test mean IoU | test accuracy | test IoU by class | seconds |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.sets:
            found, seconds = train(name, options.steps, options.weights, options.folder or Path(scratch))
            scores = found[found["split"]]
            classes = ", ".join(
                f"{row['name']} {'-' if row['iou'] is None else format(row['iou'], '.2f')}"
                for row in scores["classes"]
            )
            print(
                f"| {name} | {found['best_val_miou']:.3f} | {scores['miou']:.3f} | {scores['accuracy']:.3f} "
                f"| {classes} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
