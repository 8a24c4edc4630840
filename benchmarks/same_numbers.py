"""Whether another revision gives the same numbers: metrics, tensors of checkpoints, scores, bytes of maps.

Trains and maps with this revision and with another one, seed by seed alike, and compares what they leave:

    python benchmarks/same_numbers.py c7e9170                    # the demo
    python benchmarks/same_numbers.py c7e9170 --sets demo hls    # hls needs GEO_SEG_DATA

Everything that matters is named on the command line, so that changed defaults don't count as changed numbers.
"""

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
_COMMON = (
    *(
        "seed=0",
        "model=unet",
        "model.encoder=resnet18",
        "loss=cross_entropy",
        "optimizer=adamw",
        "optimizer.lr=0.001",
    ),
    *(
        "optimizer.weight_decay=0.01",
        "scheduler=cosine",
        "augment=light",
        "trainer=cpu",
        "trainer.precision=32-true",
    ),
    *("average=none", "logger=none"),
)
_SETS = {
    "demo": ("dataset=demo", "trainer.max_epochs=2", "dataset.window=128", "dataset.windows_per_epoch=64"),
    "hls": ("dataset=hls", "trainer.max_epochs=1", "dataset.window=128", "dataset.windows_per_epoch=64"),
}


def train_and_map(tree: Path, name: str, folder: Path) -> Path:
    """Train with the code of a tree, map a scene of the data set, and return the run folder."""
    run = folder / name
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }

    def execute(script: str, *words: str) -> None:
        command = [sys.executable, str(tree / script), *words]
        subprocess.run(command, check=True, env=environment, cwd=folder, stdout=subprocess.DEVNULL)

    root = [f"dataset.root={folder / 'data'}"] if name == "demo" else []
    execute("train.py", *_COMMON, *_SETS[name], *root, f"hydra.run.dir={run}")
    maps = (f"checkpoint={run}", f"input={_scene(name, folder)}", f"output={run / 'maps'}")
    execute("inference.py", *maps, "accelerator=cpu", "precision=fp32", "window=256")
    return run


def _scene(name: str, folder: Path) -> Path:
    """Return a raster to map."""
    if name == "demo":
        return folder / "data" / "images" / "test_1.tif"
    return min((Path(os.environ["GEO_SEG_DATA"]) / "multiband_hls" / "images").glob("*.tif"))


def numbers(run: Path) -> dict[str, str]:
    """Return a digest of each thing that has to be the same."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    seen = {"metrics.csv": _digest([{k: v for k, v in row.items() if "second" not in k} for row in rows])}
    for name in ("best", "last"):
        state = torch.load(run / "checkpoints" / f"{name}.ckpt", map_location="cpu", weights_only=True)[
            "state_dict"
        ]
        content = hashlib.sha256()
        for key in sorted(state):
            content.update(key.encode() + state[key].contiguous().view(-1).numpy().tobytes())
        seen[f"tensors of {name}.ckpt"] = content.hexdigest()[:16]
    seen["metrics.json"] = _digest(json.loads((run / "metrics.json").read_text(encoding="utf-8")))
    for raster in sorted((run / "maps").glob("*_classes.tif")):
        seen[raster.name] = hashlib.sha256(raster.read_bytes()).hexdigest()[:16]
    return seen


def _digest(content: Any) -> str:
    """Return a hash of plain content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def main() -> int:
    """Compare, print a line for each thing, and return 1 if one differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision")
    parser.add_argument("--sets", nargs="+", choices=_SETS, default=["demo"])
    given = parser.parse_args()
    differ = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tree = folder / "other"
        subprocess.run(
            ["git", "-C", str(ROOT), "worktree", "add", "--detach", str(tree), given.revision], check=True
        )
        try:
            for name in given.sets:
                runs = []
                for side, code in (("ours", ROOT), ("theirs", tree)):
                    place = folder / side
                    place.mkdir(exist_ok=True)
                    runs.append(numbers(train_and_map(code, name, place)))
                for thing in sorted(runs[0] | runs[1]):
                    same = runs[0].get(thing) == runs[1].get(thing)
                    differ += not same
                    print(f"{name:6} {thing:28} {'same' if same else 'DIFFERS'}", flush=True)
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)], check=True)
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
