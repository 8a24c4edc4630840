"""Which loss for which data: every multiclass loss trained alike on real imagery, split by place.

    GEO_SEG_DATA=<folder of the data sets> python benchmarks/which_loss.py [--seeds 2] [--steps 100]

Every run is one `train.py` run (the same code, in this process): same model, steps, windows and augmentation;
only the loss and the seed differ. Scores are those of the validation scenes after the last step. Runs that
have a result.json below --folder are not repeated, so an interrupted study goes on where it was. After every
run the table docs/which_loss.md and the plot docs/which_loss.png are written anew.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

# ruff: noqa: E402 - what follows needs the path as it is set here
ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: this folder comes first, and its losses.py hides the package
    sys.path[0] = str(ROOT)

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor
from torch.nn.functional import max_pool2d

import losses
from benchmarks import which_loss_report
from geo_seg.checkpoints.checkpoint import load_checkpoint
from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.training import TrainConfig
from geo_seg.config.training_checks import parse_train_config
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.windows.sampler import grid_windows
from geo_seg.runtime.process import setup_process
from geo_seg.training.run import run

SETS = {
    "dubai": [
        "dataset.split.train='images/tile[136]_*.jpg'",
        "dataset.split.val='images/tile2_part[1357].jpg'",
        "dataset.split.test=null",
    ],
    "hls": ["dataset.split.val=0.25", "dataset.split.test=null"],
}
WINDOWS = ((3, 3), (3, 5), (5, 9), (19, 19))
BAND = 2  # half the width of the boundary IoU's band, in pixels


def candidates() -> dict[str, list[str]]:
    """Name of every candidate and its part of the command line."""
    found = {"cross_entropy": ["loss=cross_entropy"]}
    for name in ("duo", "boundary"):
        for theta0, theta in WINDOWS:
            found[f"{name} {theta0}/{theta}"] = [
                *(f"loss={name}", f"loss.theta0={theta0}", f"loss.theta={theta}")
            ]
    for name in losses.available("multiclass"):
        if name not in ("cross_entropy", "duo", "boundary", "compound"):
            found[name] = [f"loss={name}"]
    found["tversky"] += ["loss.alpha=0.3", "loss.beta=0.7"]  # its defaults are dice
    found["dice + focal"] = ["loss=compound"]
    for name in ("lovasz", "dice"):
        found[f"cross_entropy + {name}"] = ["loss=compound", f"loss.terms={{cross_entropy: 1, {name}: 1}}"]
    return found


def configure(data: str, candidate: list[str], seed: int, options: argparse.Namespace) -> TrainConfig:
    """Return the configuration of one run, as the command line of train.py would give it."""
    overrides = [
        *(f"dataset={data}", *SETS[data], *candidate, f"seed={seed}"),
        *(f"model.encoder={options.encoder}", f"model.weights={options.weights}"),
        f"model.decoder_channels={options.decoder}",
        *(f"dataset.windows_per_epoch={8 * options.steps}", "dataset.batch_size=8", "trainer.max_epochs=1"),
        *(f"dataset.window={options.window}", "trainer.accelerator=cpu"),
        *("trainer.limit_val_batches=0", "callbacks=none", "dataset.num_threads=1"),
        "optimizer.lr=0.002",
    ]
    return parse_train_config(compose("train", overrides))


def boundary_counts(predicted: Tensor, labels: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Intersection and union of the bands along the boundaries (Cheng et al. 2021, arXiv 2103.16562).

    The band of a mask is what lies in it within BAND pixels of a pixel outside; neither the border of the
    image nor ignored pixels are outside.

    Args:
        predicted: (N, H, W) class ids.
        labels: (N, H, W) class ids or ignore_index.
        classes: number of classes.
        ignore_index: label of pixels that don't count.

    Returns:
        (2, classes) int64, pixels of the intersection and of the union.
    """
    valid = labels != ignore_index
    side = 2 * BAND + 1
    found = torch.zeros(2, classes, dtype=torch.long)
    for c in range(classes):
        bands = []
        for ids in (predicted, labels):
            inside = (ids == c) & valid
            outside = ((ids != c) & valid).float().unsqueeze(1)
            bands.append(inside & (max_pool2d(outside, side, 1, BAND)[:, 0] > 0))
        found[0, c] = (bands[0] & bands[1]).sum()
        found[1, c] = (bands[0] | bands[1]).sum()
    return found


def score_boundaries(config: TrainConfig, folder: Path) -> list[float | None]:
    """Boundary IoU per class over the validation scenes; None for a class that isn't there."""
    trained, data = load_checkpoint(folder), SceneDataModule(config.dataset, config.seed)
    reader, side = data.reader("val"), 2 * config.dataset.window
    counts = torch.zeros(2, trained.task.num_classes, dtype=torch.long)
    model = trained.model.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for place in grid_windows(data.scenes["val"], side):
            image, labels, valid = (torch.from_numpy(array).unsqueeze(0) for array in reader.read(place))
            predicted = trained.task.decode(model(trained.normalize(image, valid)))
            ignored = config.dataset.ignore_index
            counts += boundary_counts(predicted, labels, trained.task.num_classes, ignored)
    return [i / u if u else None for i, u in counts.T.tolist()]


def do(data: str, name: str, seed: int, folder: Path, options: argparse.Namespace) -> None:
    """Trains and scores one candidate; leaves only result.json in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    begin, config = time.monotonic(), configure(data, candidates()[name], seed, options)
    run(config, folder)
    scores: dict[str, Any] = json.loads((folder / "metrics.json").read_text())["val"]
    edges = score_boundaries(config, folder)
    present = [edge for edge, row in zip(edges, scores["classes"], strict=True) if row["support"]]
    result = {
        "data": data,
        "loss": name,
        "seed": seed,
        "steps": options.steps,
        "window": options.window,
        "encoder": options.encoder,
        "weights": options.weights,
        "seconds": round(time.monotonic() - begin, 1),
        "miou": scores["miou"],
        "accuracy": scores["accuracy"],
        "boundary_iou": sum(e or 0.0 for e in present) / len(present),
        "classes": {row["name"]: row["iou"] for row in scores["classes"] if row["support"]},
    }
    shutil.rmtree(folder)
    folder.mkdir(parents=True)
    partial = folder / "result.tmp"
    partial.write_text(json.dumps(result, indent=1))
    partial.rename(folder / "result.json")


def main() -> None:
    """Do the runs that are missing, seed after seed, and write table and plot after each."""
    setup_process()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--losses", nargs="+", choices=list(candidates()), default=list(candidates()))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100, help="of batch 8")
    parser.add_argument("--window", type=int, default=128, help="side of the training windows in pixels")
    parser.add_argument("--encoder", default="timm-tf_efficientnet_lite0")
    parser.add_argument("--weights", default="package", help="of the encoder; null starts from nothing")
    parser.add_argument("--decoder", default="[64,48,32,24,16]", help="channels of the decoder")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "which_loss")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where table and plot go")
    parser.add_argument(
        "--minutes", type=float, help="starts no run after this long; 0 only writes table and plot"
    )
    options = parser.parse_args()
    begin = time.monotonic()
    if "GEO_SEG_DATA" not in os.environ:
        parser.error("set GEO_SEG_DATA to the folder of the data sets")
    torch.set_num_threads(1)
    register_schemas()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        for seed in range(options.seeds):
            for name in options.losses:
                for data in options.sets:
                    folder = options.folder / data / name.replace("/", "-").replace(" ", "") / str(seed)
                    late = options.minutes is not None and time.monotonic() - begin > 60 * options.minutes
                    if not late and not (folder / "result.json").exists():
                        do(data, name, seed, folder, options)
                        which_loss_report.write(options.folder, options.docs)
    which_loss_report.write(options.folder, options.docs)


if __name__ == "__main__":
    main()
