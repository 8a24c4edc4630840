"""The search for config/experiment/short_cpu.yaml: what ten minutes of a CPU core are best spent on.

    GEO_SEG_DATA=<folder of the data sets> python experiment/short_cpu.py [--sets dubai] [--changes ema scale]

Every run is the recipe, shortened, with one change to it. Runs that are done are not done again, and those
that were interrupted go on. Ends with a table for each data set, the best first, that is also in
<folder>/<set>/leaderboard.md.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = 300
SHORT = "trainer.max_epochs=1", "evaluation.boundary=0"
SETS = {
    # the large test scene would take as long as the training
    "dubai": ("dataset.split.train='images/tile[13456]_*.jpg'", "dataset.split.test=null"),
    "hls": (),
    "inria": (),
}
CHANGES = {
    "none": (),
    "seed": ("seed=1",),
    "inverse": ("loss.weights=inverse",),
    "lovasz": ("loss=lovasz",),
    "onecycle": ("scheduler=onecycle",),
    "timm_taps": ("model.encoder=tu-tf_efficientnet_lite0",),
    "narrow": ("model.decoder_channels=[128,64,32,16,16]",),
    "no_radiometry": ("augment.gain=0", "augment.bias=0"),
    "shrunk": ("augment.scale=[0.5,1]",),
    "both_ways": ("augment.scale=0.5",),
    "one_size": ("augment.scale=[0.67,0.67]",),
    "smaller": ("augment.scale=[0.4,1]",),
    "strong": ("augment=strong",),
    "radiometry": ("augment.gain=0.25", "augment.bias=0.3", "augment.gamma=0.2"),
    "window192": ("dataset.window=192", "dataset.batch_size=4"),
    "window256": ("dataset.window=256", "dataset.batch_size=2"),
    "small_batch": ("dataset.batch_size=4",),
    "dice_focal": ("loss=compound", "loss.terms={dice: 1, focal: 1}"),
    "lovasz_focal": ("loss=compound", "loss.terms={lovasz: 1, focal: 1}"),
    "fast": ("optimizer.lr=0.003",),
    "slow": ("optimizer.lr=0.0003",),
    "encoder_slow": ("encoder.lr_factor=0.2",),
    "decay": ("optimizer.weight_decay=0.01",),
    "cosine": ("scheduler=cosine",),
    "ema": ("average=ema", "average.decay=0.98"),
    "balanced": ("dataset.sampler=balanced",),
    "imagenet": ("dataset.normalize=imagenet",),
    "decoder": ("model.decoder_channels=[256,128,64,32,16]",),
}
PIXELS = 8 * 128**2  # of a step


def train(data: str, change: str, folder: Path, steps: int) -> None:
    """One run; a change of the windows sees as many pixels."""
    words = CHANGES[change]
    said = dict(word.partition("=")[::2] for word in words)
    window = int(said.get("dataset.window", 128))
    subprocess.run(
        [
            *(sys.executable, ROOT / "train.py", "experiment=short_cpu", f"dataset={data}"),
            *(*SHORT, *SETS[data], f"dataset.windows_per_epoch={steps * PIXELS // window**2}", *words),
            *(f"hydra.run.dir={folder / data / change}", "resume=auto"),
        ],
        check=True,
        stdout=sys.stderr,
    )


def main() -> None:
    """Trains what isn't trained yet, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=["dubai"])
    parser.add_argument("--changes", nargs="*", choices=list(CHANGES), default=list(CHANGES))
    parser.add_argument("--steps", type=int, default=STEPS, help="of 8 windows of 128 px")
    parser.add_argument("--folder", type=Path, default=Path("sweeps/short_cpu"), help="of the runs")
    options = parser.parse_args()
    for data in options.sets:
        for change in options.changes:
            train(data, change, options.folder, options.steps)
        subprocess.run(
            [sys.executable, ROOT / "train.py", "mode=leaderboard", f"sweep={options.folder / data}"],
            check=True,
            env={**os.environ, "COLUMNS": "200"},
        )


if __name__ == "__main__":
    main()
