"""What a run costs beside its arithmetic: step, loader, metrics, start, and two processes.

python benchmarks/training.py [--parts step loader metrics memory start processes] [--side 256] [--batch 8]
    [--steps 20] [--rounds 5] [--encoder resnet18]

Everything is measured on the demo data set in interleaved rounds, and a ratio is the median over the rounds,
so that a busy machine hits both sides alike; beside it stand the smallest and the largest.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console

from geo_seg.config.hydra_setup import register_schemas
from geo_seg.config.training import TrainConfig
from geo_seg.config.training_checks import parse_train_config
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.runtime.console import silence_library_warnings
from geo_seg.runtime.memory import tune_malloc
from geo_seg.runtime.process import setup_process
from geo_seg.training import run as running
from geo_seg.training.build import build_module
from geo_seg.training.callbacks.csv_metrics import EpochCSVLogger

REPOSITORY = Path(__file__).parents[1]
BARE_SCRIPT = """
import numpy as np, rasterio, segmentation_models_pytorch as smp, sys, torch
model = smp.Unet({encoder!r}, encoder_weights=None, in_channels=4, classes=5)
model.to(memory_format=torch.channels_last).train()
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
loss = smp.losses.SoftCrossEntropyLoss(smooth_factor=0, ignore_index=255)
images, labels = [], []
with rasterio.open("{root}/images/train_1.tif") as image, rasterio.open("{root}/masks/train_1.tif") as mask:
    for i in range({batch}):
        window = rasterio.windows.Window(i, i, {side}, {side})
        images.append(image.read(window=window).astype(np.float32) / 3000)
        labels.append(mask.read(1, window=window).astype(np.int64))
value = loss(model(torch.from_numpy(np.stack(images))), torch.from_numpy(np.stack(labels)))
value.backward()
optimizer.step()
"""


class Leave(pl.Callback):
    """Ends the process after the first step."""

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Leaves."""
        os._exit(0)


class InMemory:
    """The batches of an epoch, read before."""

    waited = 0.0

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)


def words(options: argparse.Namespace, root: Path, *more: str) -> list[str]:
    """Return the command line of a run."""
    return [
        f"dataset.root={root}",
        f"dataset.window={options.side}",
        f"dataset.batch_size={options.batch}",
        f"dataset.windows_per_epoch={options.batch * options.steps}",
        f"model.encoder={options.encoder}",
        "trainer.accelerator=cpu",
        "trainer.precision=32",
        "trainer.max_epochs=1",
        *more,
    ]


def configured(options: argparse.Namespace, root: Path, *more: str) -> TrainConfig:
    """Its configuration."""
    register_schemas()
    with initialize_config_dir(str(REPOSITORY / "config"), version_base="1.3"):
        return parse_train_config(compose("train", words(options, root, *more)))


def told(name: str, ratios: list[float], bound: str, scale: float = 1.0) -> None:
    """Print a figure."""
    low, middle, high = (scale * f(ratios) for f in (min, statistics.median, max))
    print(f"{name:<58} {middle:7.3f}   ({low:.3f} to {high:.3f})   goal {bound}", flush=True)


def fitted(config: TrainConfig, data: SceneDataModule, folder: Path) -> float:
    """Seconds of a step of a run with all its callbacks, without validation and the first step."""
    module = build_module(config, data)
    console = Console(quiet=True)
    table = EpochCSVLogger(folder / "metrics.csv", None)
    folder.mkdir(parents=True)
    trainer, best = running._build_run_trainer(config, folder, table, console, data)
    running._fit(trainer, module, data, best)
    with (folder / "system.csv").open() as file:
        return float(next(csv.DictReader(file))["step_seconds"])


def bare(config: TrainConfig, data: SceneDataModule, batches: list[Any]) -> float:
    """Seconds of a step of the same model, loss, optimizer and batches in a loop of six lines."""
    module = build_module(config, data).train()
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3, weight_decay=0.01, fused=True)
    begun = 0.0
    for number, batch in enumerate(batches):
        if number == 1:
            begun = time.perf_counter()
        loss = module.loss(module.model(module.normalize(batch["image"], batch["valid"])), batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - begun) / (len(batches) - 1)


@contextmanager
def loading(data: SceneDataModule, batches: list[Any] | None) -> Iterator[None]:
    """Lets the data come from memory where there are batches."""
    if batches is not None:
        data.train_dataloader = lambda: InMemory(batches)  # type: ignore[method-assign, assignment, return-value]
    yield
    data.__dict__.pop("train_dataloader", None)


def step_and_loader(options: argparse.Namespace, root: Path, scratch: Path) -> None:
    """Lightning's share of a step, and what reading windows costs an epoch."""
    config = configured(options, root, "augment=none", "logger=csv")
    data = SceneDataModule(config.dataset, 0)
    batches = [{key: value.clone() for key, value in batch.items()} for batch in data.train_dataloader()]
    of_step, of_loader = [], []
    for number in range(options.rounds):
        with loading(data, batches):
            memory = fitted(config, data, scratch / f"memory{number}")
        if "step" in options.parts:
            of_step.append(memory / bare(config, data, batches))
        if "loader" in options.parts:
            of_loader.append(fitted(config, data, scratch / f"read{number}") / memory)
    if of_step:
        told("step of a run / of a bare loop", of_step, "<= 1.03")
    if of_loader:
        told("step with the real loader / from memory", of_loader, "<= 1.05")


def metrics(options: argparse.Namespace, root: Path) -> None:
    """Return what counting a batch costs, in per cent of a training step on it."""
    config = configured(options, root, "augment=none")
    data = SceneDataModule(config.dataset, 0)
    batches = list(data.train_dataloader())
    module = build_module(config, data)
    batch = {**batches[0], "place": torch.zeros_like(batches[0]["place"])}  # of one scene
    with torch.inference_mode():
        logits = module(batch["image"], batch["valid"])
    found: dict[str, list[float]] = {"confusion matrix": [], "with boundary IoU and calibration": []}
    parts: list[Callable[[], Any]] = [
        lambda: module.validation.counts.confusion.update(
            module.task.decode(logits), batch["labels"], batch["place"][:, 0]
        ),
        lambda: module.validation.update(logits, batch),
    ]
    for _ in range(options.rounds):
        step = bare(config, data, batches[: min(len(batches), 5)])
        for part, ratios in zip(parts, found.values(), strict=True):
            part()
            begun = time.perf_counter()
            with torch.inference_mode():
                part()
            ratios.append((time.perf_counter() - begun) / step)
    for name, ratios in found.items():
        told(f"scores of a batch ({name}), % of a step", ratios, "<= 1", scale=100)


def metrics_of_an_epoch(options: argparse.Namespace, root: Path, scratch: Path) -> None:
    """Print what all scores cost in an epoch with its validation, in per cent of it."""
    config = configured(options, root, "augment=none", "dataset.windows_per_epoch=null")
    data = SceneDataModule(config.dataset, 0)
    shares = []
    for number in range(min(options.rounds, 3)):
        module, spent = build_module(config, data), [0.0]
        for name in ("update", "finish"):
            setattr(module.validation, name, timed(getattr(module.validation, name), spent))
        folder = scratch / f"epoch{number}"
        folder.mkdir()
        table = EpochCSVLogger(folder / "metrics.csv", None)
        trainer, best = running._build_run_trainer(config, folder, table, Console(quiet=True), data)
        begun = time.perf_counter()
        running._fit(trainer, module, data, best)
        shares.append(spent[0] / (time.perf_counter() - begun))
    told("scores in an epoch with validation, % of it", shares, "<= 1", scale=100)


def memory(options: argparse.Namespace) -> None:
    """CPU time of a step of a process that keeps its freed memory, against one that gives it back."""
    ratios = []
    for _ in range(options.rounds):
        took = []
        for how in ("kept", "given back"):
            given = [f"--{name}={getattr(options, name)}" for name in ("side", "batch", "steps", "encoder")]
            command = [sys.executable, __file__, "--alone", how, *given]
            found = subprocess.run(command, capture_output=True, text=True, check=True)
            took.append(float(found.stdout.split()[-1]))
        ratios.append(took[0] / took[1])
    told("CPU time of a step, freed memory kept / given back", ratios, "stated")


def alone(options: argparse.Namespace, root: Path) -> None:
    """Print the CPU seconds of a step of the bare loop, in a process in which nothing else has run."""
    if options.alone == "kept":
        tune_malloc()
    config = configured(options, root, "augment=none")
    data = SceneDataModule(config.dataset, 0)
    batches = list(data.train_dataloader())
    bare(config, data, batches[:2])  # the first steps choose kernels
    begun = time.process_time()
    bare(config, data, batches)
    print((time.process_time() - begun) / len(batches))


def timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """Return the function, which adds the seconds that it takes."""

    def run(*arguments: Any) -> Any:
        begun = time.perf_counter()
        found = function(*arguments)
        spent[0] += time.perf_counter() - begun
        return found

    return run


def seconds(command: list[str], folder: Path, threads: int | None = None) -> float:
    """How long a process takes."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    return time.perf_counter() - begun


def start(options: argparse.Namespace, root: Path, scratch: Path) -> None:
    """Until the help, an answer, and the first step."""
    python, train = sys.executable, str(REPOSITORY / "train.py")
    leave = "+callbacks.leave._target_=benchmarks.training.Leave"
    facts = {"encoder": options.encoder, "root": root, "batch": options.batch, "side": options.side}
    first = [python, train, *words(options, root, leave, "augment=none"), "dataset.windows_per_epoch=null"]
    first = [word for word in first if not word.startswith("dataset.windows_per_epoch=1")]
    pairs = {
        "train.py --help / import hydra": ([train, "--help"], "import hydra", "<= 2.5"),
        "train.py loss=focl / import hydra": ([train, "loss=focl"], "import hydra", "<= 2.5"),
        "train.py to its first step / a bare smp script": (first[1:], BARE_SCRIPT.format(**facts), "<= 1.15"),
    }
    for number, (name, (ours, other, bound)) in enumerate(pairs.items()):
        ratios = []
        for _ in range(options.rounds + 1):
            run_dir = [f"hydra.run.dir={scratch}/start{number}_{len(ratios)}"] if number == 2 else []
            ours_now = seconds([python, *ours, *run_dir], scratch)
            ratios.append(ours_now / seconds([python, "-c", other], scratch))
        told(name, ratios[1:], bound)  # the first one warms the disk's cache up


def processes(options: argparse.Namespace, root: Path, scratch: Path) -> None:
    """Return samples per second of two processes against twice those of one, with half of the cores each."""
    ratios, threads = [], max((os.cpu_count() or 2) // 2, 1)
    for number in range(options.rounds):
        speeds = []
        for count in (1, 2):
            folder = scratch / f"ddp{number}_{count}"
            each = f"dataset.windows_per_epoch={options.batch * options.steps * count}"
            few = ["trainer.limit_val_batches=1", "+trainer.limit_test_batches=1", each]
            said = words(options, root, "trainer=ddp", f"trainer.devices={count}", *few)
            command = [sys.executable, str(REPOSITORY / "train.py"), *said, f"hydra.run.dir={folder}"]
            seconds(command, scratch, threads)
            with (folder / "system.csv").open() as file:
                speeds.append(float(next(csv.DictReader(file))["samples_per_second"]))
        ratios.append(speeds[1] / (2 * speeds[0]))
    told("samples per second of two processes / twice those of one", ratios, "stated")


def main() -> None:
    """Measures what was asked for."""
    setup_process()
    parser = argparse.ArgumentParser(description=__doc__)
    every = ["step", "loader", "metrics", "memory", "start", "processes"]
    parser.add_argument("--parts", nargs="+", choices=every, default=every)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--alone", choices=["kept", "given back"], help=argparse.SUPPRESS)
    for name, default in (("side", 256), ("batch", 8), ("steps", 20), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    silence_library_warnings()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        root = scratch / "demo"
        SceneDataModule(configured(options, root).dataset, 0)  # draws and indexes the scenes
        if options.alone:
            alone(options, root)
            return
        shape = f"{options.batch} x {options.side} x {options.side}"
        print(f"Unet {options.encoder}, {shape}, {torch.get_num_threads()} threads, median (least to most)")
        if {"step", "loader"} & set(options.parts):
            step_and_loader(options, root, scratch)
        if "metrics" in options.parts:
            metrics(options, root)
            metrics_of_an_epoch(options, root, scratch)
        if "memory" in options.parts:
            memory(options)
        if "start" in options.parts:
            start(options, root, scratch)
        if "processes" in options.parts:
            processes(options, root, scratch)


if __name__ == "__main__":
    main()
