"""Training windows of 256 px per CPU second, label included, against bare loops and TorchGeo.

python benchmarks/loader.py --folder <scratch folder> [--size 10000] [--scenes 5000]

Rounds are interleaved and a ratio is the median over the rounds, so that a busy machine hits all alike.
TorchGeo is measured where it is installed.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window as RasterioWindow

sys.path.insert(0, str(Path(__file__).parents[1]))
from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.windows.sampler import RandomWindowSampler
from geo_seg.runtime.process import setup_process

SIDE, BATCH, WINDOWS, ROUNDS = 256, 16, 192, 5
TILED = {"tiled": True, "blockxsize": 256, "blockysize": 256}
SOURCES = {
    "zstd tiled 256": ("uint16", {"driver": "GTiff", "compress": "zstd", **TILED}),
    "deflate COG 512": ("uint16", {"driver": "COG", "compress": "deflate", "blocksize": 512}),
    "lzw striped": ("uint16", {"driver": "GTiff", "compress": "lzw"}),
    "rgb jpeg COG 512": ("uint8", {"driver": "COG", "compress": "jpeg", "blocksize": 512}),
}


def draw(folder: Path, size: int) -> None:
    """Draws a landscape of five classes, twice per source: it trains and validates."""
    random = np.random.default_rng(0)
    coarse = random.normal(size=(size // 64 + 2, size // 64 + 2)).repeat(64, 0).repeat(64, 1)[:size, :size]
    smooth = np.cumsum(coarse, axis=0, dtype=np.float32)
    mask = np.digitize(smooth, np.quantile(smooth[::64, ::64], (0.2, 0.4, 0.6, 0.8))).astype(np.uint8)
    for name, (dtype, profile) in SOURCES.items():
        bands = 4 if dtype == "uint16" else 3
        root = folder / name.replace(" ", "_")
        if (root / "done").exists():
            continue
        (root / "images").mkdir(parents=True, exist_ok=True)
        (root / "masks").mkdir(exist_ok=True)
        place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5000000, 1, 1)}
        place |= {"count": bands, "height": size, "width": size, "dtype": dtype}
        with rasterio.open(root / "images" / "a.tif", "w", **place, **profile) as target:
            for band in range(1, bands + 1):
                noise = random.integers(0, 300 if bands == 4 else 30, (size, size), dtype=np.uint16)
                levels = (mask + np.uint16(1)) * np.uint16(700 if bands == 4 else 40) + noise
                target.write(levels.astype(dtype), band)
        with rasterio.open(
            root / "masks" / "a.tif",
            "w",
            **{**place, "count": 1, "dtype": "uint8"},
            driver="GTiff",
            compress="zstd",
            **TILED,
        ) as target:
            target.write(mask, 1)
        for kind in ("images", "masks"):  # the smallest validation scene that there can be
            with (
                rasterio.open(root / kind / "a.tif") as source,
                rasterio.open(
                    root / kind / "b.tif",
                    "w",
                    **{**source.profile, "driver": "GTiff", "height": 512, "width": 512, **TILED},
                ) as target,
            ):
                target.write(source.read(window=RasterioWindow(0, 0, 512, 512)))
        (root / "done").touch()


def module(root: Path, cache: str, threads: int = 2, sampler: str = "uniform") -> SceneDataModule:
    """Return the data set as training sees it."""
    config = DatasetConfig(
        name="loader",
        root=str(root),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["a", "b", "c", "d", "e"],
        split=SplitConfig(by="pattern", val="images/b.tif"),
        window=SIDE,
        allow_leakage=True,  # the validation scene is a corner of the other one
        batch_size=BATCH,
        windows_per_epoch=WINDOWS,
        num_threads=threads,
        cache=cache,
        cache_dir=str(root / f"cache_{cache}"),
        sampler=sampler,
    )
    return SceneDataModule(config, 0)


def bare(root: Path, threads: int = 1) -> Callable[[], None]:
    """Copy windows of arrays in RAM into one batch, per thread."""
    with rasterio.open(root / "images" / "a.tif") as source:
        image = source.read()
    with rasterio.open(root / "masks" / "a.tif") as source:
        mask = source.read(1)
    size = len(mask) - SIDE

    def loop(seed: int) -> Callable[[], None]:
        images = np.empty((BATCH, len(image), SIDE, SIDE), image.dtype)
        masks = np.empty((BATCH, SIDE, SIDE), mask.dtype)
        random = np.random.default_rng(seed)

        def go() -> None:
            for number, (row, col) in enumerate(random.integers(0, size, (WINDOWS // threads, 2)).tolist()):
                images[number % BATCH] = image[:, row : row + SIDE, col : col + SIDE]
                masks[number % BATCH] = mask[row : row + SIDE, col : col + SIDE]

        return go

    return together([loop(seed) for seed in range(threads)])


def together(loops: list[Callable[[], None]]) -> Callable[[], None]:
    """Run loops at the same time, a thread each: cores that share a cache slow each other."""
    if len(loops) == 1:
        return loops[0]

    def go() -> None:
        threads = [threading.Thread(target=loop) for loop in loops]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return go


def handle(root: Path, threads: int = 1) -> Callable[[], None]:
    """Read windows from handles that stay open, per thread."""

    def loop(seed: int) -> Callable[[], None]:
        image, mask = rasterio.open(root / "images" / "a.tif"), rasterio.open(root / "masks" / "a.tif")
        random = np.random.default_rng(seed)

        def go() -> None:
            for row, col in random.integers(0, image.width - SIDE, (WINDOWS // threads, 2)).tolist():
                window = RasterioWindow(col, row, SIDE, SIDE)
                image.read(window=window)
                mask.read(1, window=window)

        return go

    return together([loop(seed) for seed in range(threads)])


def ours(root: Path, cache: str, threads: int = 2) -> Callable[[], None]:
    """Return an epoch of our batches."""
    batches = module(root, cache, threads).train_dataloader()
    epochs = iter(range(10**6))
    batches._epoch = lambda: next(epochs)

    def go() -> None:
        for batch in batches:
            assert len(batch["image"]) == BATCH

    return go


def torchgeo(root: Path) -> Callable[[], None] | None:
    """TorchGeo's documented loop: two RasterDatasets, a RandomGeoSampler, a DataLoader."""
    try:
        from torchgeo.datasets import RasterDataset, stack_samples
        from torchgeo.samplers import RandomGeoSampler
    except ImportError:
        return None

    class Masks(RasterDataset):
        is_image = False

    data = RasterDataset(str(root / "images" / "a.tif")) & Masks(str(root / "masks" / "a.tif"))
    sampler = RandomGeoSampler(data, size=SIDE, length=WINDOWS // 4)
    loader = torch.utils.data.DataLoader(data, BATCH, sampler=sampler, collate_fn=stack_samples)

    def go() -> None:
        for batch in loader:
            assert batch["image"].shape[-1] == SIDE

    return go


def measure(runs: dict[str, tuple[Callable[[], None] | None, int]]) -> dict[str, list[float]]:
    """Windows per CPU second of each, in interleaved rounds."""
    found: dict[str, list[float]] = {name: [] for name, (go, _) in runs.items() if go}
    for number in range(ROUNDS + 1):
        for name, (go, windows) in runs.items():
            if go:
                begin = time.process_time()
                go()
                if number:  # the first round warms up
                    found[name].append(windows / (time.process_time() - begin))
    return found


def ratio(found: dict[str, list[float]], one: str, other: str) -> str:
    """Return the median of the rounds' ratios."""
    if one not in found or other not in found:
        return "not measured"
    return f"{statistics.median(a / b for a, b in zip(found[one], found[other], strict=True)):.2f}"


def passes(root: Path) -> dict[str, list[float]]:
    """Return passes per CPU second: reading both files, the index, the index with a decoded copy."""
    found: dict[str, list[float]] = {"read": [], "index": [], "copy": []}
    for _ in range(ROUNDS - 2):
        for name, seconds in zip(found, _passes(root), strict=True):
            found[name].append(1 / seconds)
    return found


def _passes(root: Path) -> tuple[float, float, float]:
    for folder in root.glob("cache_*"):
        for file in folder.glob("*"):
            file.unlink()
    begin = time.process_time()
    for kind in ("images", "masks"):
        with rasterio.open(root / kind / "a.tif") as source:
            for row in range(0, source.height, SIDE):
                source.read(window=RasterioWindow(0, row, source.width, min(SIDE, source.height - row)))
    read = time.process_time() - begin
    begin = time.process_time()
    module(root, "none", 1)
    index = time.process_time() - begin
    begin = time.process_time()
    module(root, "memmap", 1)
    return read, index, time.process_time() - begin


def balanced(root: Path) -> str:
    """Share of an epoch's CPU time that drawing balanced places takes, beside that of uniform ones."""
    epoch = ours(root, "memmap")
    epoch()
    begin = time.process_time()
    epoch()
    whole = time.process_time() - begin
    data = module(root, "memmap")
    costs = {}
    for kind in ("uniform", "balanced"):
        windows = RandomWindowSampler(data.scenes["train"], data.index["train"], kind, SIDE, WINDOWS, 0)
        begin = time.process_time()
        for number in range(100):
            windows.epoch(number)
        costs[kind] = (time.process_time() - begin) / 100
    return f"{(costs['balanced'] - costs['uniform']) / whole:.2%} of an epoch of reading alone"


def start(folder: Path, count: int) -> None:
    """Draws many small scenes, and prints how long a first and a second start take and how much memory."""
    root = folder / f"scenes_{count}"
    random = np.random.default_rng(1)
    for number in range(count):
        for kind, bands in (("images", 4), ("masks", 1)):
            file = root / kind / f"{number:05}.tif"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                high = 3000 if bands == 4 else 5
                pixels = random.integers(0, high, (bands, 16, 16)).repeat(16, 1).repeat(16, 2)
                profile = {"driver": "GTiff", "count": bands, "height": 256, "width": 256}
                place = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6 + number * 256, 1, 1)}
                dtype = "uint16" if bands == 4 else "uint8"
                with rasterio.open(file, "w", **profile, **place, dtype=dtype, compress="deflate") as target:
                    target.write(pixels.astype(dtype))
    rows = [f"images/{n:05}.tif,masks/{n:05}.tif,{'val' if n % 10 == 0 else 'trn'}" for n in range(count)]
    (root / "scenes.csv").write_text("\n".join(rows))
    shutil.rmtree(root / "cache", ignore_errors=True)
    for attempt in ("first", "second"):
        command = [sys.executable, __file__, "--folder", str(root), "--one-start"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"{attempt} start with {count} scenes: {done.stdout.strip()}")


def one_start(root: Path) -> None:
    """From nothing to the first batch."""
    begin = time.monotonic()
    config = DatasetConfig(
        name="many",
        root=str(root),
        manifest="scenes.csv",
        classes=["a", "b", "c", "d", "e"],
        split=SplitConfig(by="manifest"),
        cache_dir=str(root / "cache"),
    )
    data = SceneDataModule(config, 0)
    next(iter(data.train_dataloader()))
    wall, cpu = time.monotonic() - begin, time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{wall:.1f} s ({cpu:.1f} CPU s with imports), peak {memory:.0f} MB, {os.cpu_count()} cores")


def main() -> None:
    """Draws, measures and prints."""
    setup_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the rasters are drawn; they stay")
    parser.add_argument("--size", type=int, default=10_000, help="rows and columns of a raster")
    parser.add_argument("--scenes", type=int, default=0, help="measure the start with so many scenes instead")
    parser.add_argument("--one-start", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one_start:
        one_start(given.folder)
        return
    if given.scenes:
        start(given.folder, given.scenes)
        return
    folder = given.folder / str(given.size)
    draw(folder, given.size)
    for name in SOURCES:
        root = folder / name.replace(" ", "_")
        once = passes(root)
        found = measure(
            {
                "bare": (bare(root), WINDOWS),
                "cached": (ours(root, "memmap", 1), WINDOWS),
                "bare, 2 threads": (bare(root, 2), WINDOWS),
                "cached, 2 threads": (ours(root, "memmap", 2), WINDOWS),
                "handle": (handle(root), WINDOWS),
                "direct": (ours(root, "none", 1), WINDOWS),
                "handle, 2 threads": (handle(root, 2), WINDOWS),
                "direct, 2 threads": (ours(root, "none", 2), WINDOWS),
                "torchgeo": (torchgeo(root), WINDOWS // 4),
            }
        )
        speeds = {key: statistics.median(values) for key, values in found.items()}
        seconds = {key: 1 / statistics.median(values) for key, values in once.items()}
        back = max(seconds["copy"] - seconds["index"], 0) / (1 / speeds["direct"] - 1 / speeds["cached"])
        print(f"{name}: " + ", ".join(f"{key} {speed:.0f}" for key, speed in speeds.items()))
        print(
            f"  cached / bare {ratio(found, 'cached', 'bare')} "
            f"(2 threads each {ratio(found, 'cached, 2 threads', 'bare, 2 threads')}), "
            f"cached / torchgeo {ratio(found, 'cached', 'torchgeo')}\n"
            f"  direct / handle {ratio(found, 'direct', 'handle')} "
            f"(2 threads each {ratio(found, 'direct, 2 threads', 'handle, 2 threads')}), "
            f"direct / torchgeo {ratio(found, 'direct', 'torchgeo')}\n"
            f"  index at {ratio(once, 'index', 'read')} of the speed of reading, "
            f"with the copy {ratio(once, 'copy', 'read')}; "
            f"the copy pays back after {back:.0f} windows of {(given.size // SIDE) ** 2} in an epoch\n"
            f"  balanced sampling: {balanced(root)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
