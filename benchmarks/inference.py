"""Maps of large rasters: share of the model, cost and memory of all else, and seams; against public peers.

python benchmarks/inference.py throughput|memory|seams|polygons [--sizes 3000 6000]
    [--rounds 3] [--threads 1] [--model CHECKPOINT --raster FILE] [--docs docs]
Each measurement runs in a process of its own; peers are left out where they can't be imported. Throughput is
measured in interleaved rounds; a ratio is the median over the rounds, with the least and the most.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from torch import nn

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.inference_peers import CLASSES, LARGEST, PEERS, Mapping  # noqa: E402 - found there

BANDS = 4
HOWS = (  # window, margin, overlap, blend
    (512, 0, 0, "hann"),
    (512, 32, 64, "hann"),
    (1024, 0, 0, "hann"),
    (1024, 32, 64, "hann"),
    (1024, 80, 64, "hann"),
    (1536, 32, 64, "hann"),
    (1536, 80, 64, "crop"),
    (1536, 80, 64, "linear"),
    (1536, 80, 64, "hann"),
)


class Free(nn.Module):
    """Almost no work: logits that are multiples of band 1."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.linspace(-1, 1, CLASSES).view(1, -1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, bands, H, W) to logits."""
        return image[:, :1] * self.slopes.to(image)


class Timed(nn.Module):
    """Adds up the seconds and the pixels of a model."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside, self.seconds, self.cpu, self.pixels = inside, 0.0, 0.0, 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return what the model inside says."""
        begin, cpu = time.perf_counter(), time.thread_time()
        out: torch.Tensor = self.inside(image)
        self.seconds += time.perf_counter() - begin
        self.cpu += time.thread_time() - cpu
        self.pixels += image[:, 0].numel()
        return out


def draw(path: Path, height: int, width: int) -> None:
    """Return a 4-band uint16 raster with structure at many scales, block by block."""
    random = np.random.default_rng(0)
    profile = {
        "driver": "GTiff",
        "count": BANDS,
        "dtype": "uint16",
        "tiled": True,
        "compress": "deflate",
        "zlevel": 1,
    }
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(5e5, 5e6, 1, 1)}
    with rasterio.open(path, "w", height=height, width=width, **profile, **place) as target:
        for row in range(0, height, 256):
            for col in range(0, width, 256):
                coarse = random.integers(200, 3000, (BANDS, 16, 16)).repeat(16, 1).repeat(16, 2)
                pixels = (coarse + random.integers(0, 64, coarse.shape)).astype(np.uint16)
                part = rasterio.windows.Window(col, row, min(256, width - col), min(256, height - row))
                target.write(pixels[:, : part.height, : part.width], window=part)


def checkpoint(kind: str) -> Any:
    """Return a model of the kind "free" or "unet", as if it came from a run folder."""
    import losses
    from geo_seg.checkpoints.checkpoint import Checkpoint, CheckpointMetadata
    from geo_seg.models.layers import Normalize
    from geo_seg.models.registry import build_model

    options = {"name": "unet", "encoder": "resnet18", "weights": None}
    torch.manual_seed(0)
    model = Free() if kind == "free" else build_model(options, BANDS, CLASSES)
    names = [f"c{i}" for i in range(CLASSES)]
    facts = CheckpointMetadata(
        mode="multiclass", class_names=names, class_colors=[[i * 40, 0, 0] for i in range(CLASSES)],
        ignore_index=255, bands=None, band_names=["1", "2", "3", "4"], nodata=None, dtype="uint16",
        mean=[1500.0] * BANDS, std=[800.0] * BANDS, window=256, model=options, config={}, versions={},
    )  # fmt: skip
    task = losses.Task("multiclass", CLASSES, 255)
    return Checkpoint(Path("x"), facts, task, Timed(model.eval()).eval(), Normalize(facts.mean, facts.std))


def draw_classes(path: Path, side: int) -> None:
    """Classes with borders at many scales, as a model's: the largest of smooth random fields."""
    random = torch.Generator().manual_seed(0)
    best, classes = torch.full((side, side), -9.0), np.zeros((side, side), np.uint8)
    for number in range(CLASSES):
        field = torch.zeros(side, side)
        for scale, share in ((400, 1.5), (80, 1.0), (20, 0.6), (6, 0.35)):
            coarse = torch.randn(1, 1, side // scale + 2, side // scale + 2, generator=random)
            field += share * nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")[0, 0]
        classes[(field > best).numpy()] = number
        best = torch.maximum(best, field)
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(5e5, 5e6, 1, 1)}
    fixed = {"driver": "GTiff", "count": 1, "dtype": "uint8", "tiled": True, "compress": "deflate"}
    with rasterio.open(path, "w", height=side, width=side, nodata=255, **fixed, **place) as target:
        target.write(classes, 1)


def outline(how: str, raster: str, options: dict[str, Any]) -> None:
    """Make polygons once, in this process, and print what it took as JSON."""
    import rasterio.features

    from geo_seg.vectorize.geopackage import PolygonOptions, write_polygons

    Path("/proc/self/clear_refs").write_text("5")  # else the peak of whoever started this counts
    base = _highest()
    begin = time.process_time()
    if how == "ours":
        with tempfile.TemporaryDirectory() as folder:
            names = tuple(f"c{i}" for i in range(CLASSES))
            file = Path(folder, "map.gpkg")
            colors = tuple((i * 40, 0, 0) for i in range(CLASSES))
            count = write_polygons(file, Path(raster), 255, names, colors, None, PolygonOptions(**options))
    else:
        with rasterio.open(raster) as source:
            count = len(list(rasterio.features.shapes(source.read(1), transform=source.transform)))
    cpu = time.process_time() - begin
    print(json.dumps({"cpu": cpu, "memory": (_highest() - base) / 1000, "count": count}))


def _highest() -> int:
    """Kilobytes that this process had in memory at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def polygons(folder: Path, sizes: list[int]) -> None:
    """Vectorising a map, attributes and GeoPackage included, against shapes of the whole array in memory."""
    for size in sizes:
        raster = folder / f"classes_{size}.tif"
        draw_classes(raster, size)
        whole = apart("shapes", "", raster, call="--outline")
        print(f"{size}^2 shapes: {whole['count']} polygons, {whole['memory']:.0f} MB", flush=True)
        for how in ({}, {"simplify": 1}, {"min_area": 50, "simplify": 1}):
            options = {"min_area": 0, "simplify": 0, **how}
            found = apart("ours", "", raster, call="--outline", **options)
            told = f"{found['count']} polygons, {found['memory']:.0f} MB"
            print(f"{size}^2 {how}: {told}, {found['cpu'] / whole['cpu']:.2f} of the CPU time", flush=True)
        raster.unlink()


def ours(found: Any, **options: Any) -> Mapping:
    """Ours."""
    from geo_seg.config.inference import InferenceConfig
    from geo_seg.inference import run
    from geo_seg.prediction import ensemble

    ensemble.load_checkpoint = lambda _: found
    fixed = {"checkpoint": "x", "accelerator": "cpu", **options}
    return lambda raster, folder: run.run(InferenceConfig(input=raster, output=folder, **fixed))


MODES = ("throughput", "memory", "seams", "polygons")
TOOLS: dict[str, Any] = {"ours": ours, **PEERS}


def measure(tool: str, kind: str, raster: str, options: dict[str, Any]) -> None:
    """Run one tool once, in this process, and print what it took as JSON, null if it isn't installed."""
    torch.set_num_threads(options.pop("threads", 1))
    compares = options.pop("compares", False)
    found = checkpoint(kind)
    try:
        mapping = TOOLS[tool](found, **options)
    except ModuleNotFoundError as error:
        if tool not in PEERS:
            raise
        print(f"{tool} is left out: {error}", file=sys.stderr)
        print("null")
        return
    with torch.inference_mode():  # what libraries, model and kernels take is not counted
        found.model(torch.zeros(1, BANDS, 512, 512))
    found.model.seconds, found.model.cpu, found.model.pixels = 0.0, 0.0, 0
    Path("/proc/self/clear_refs").write_text("5")  # else the peak of whoever started this counts
    base = _highest()
    with tempfile.TemporaryDirectory() as folder:
        begin, cpu, system = time.perf_counter(), time.process_time(), os.times().system
        mapping(raster, folder)
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        system = os.times().system - system
        peak = _highest()
        took = {"wall": wall, "cpu": cpu, "memory": (peak - base) / 1000, "model": found.model.seconds}
        took |= {"system": system, "model_cpu": found.model.cpu, "pixels": found.model.pixels}
        if compares:
            took["wrong"] = _wrong(found, raster, next(Path(folder).glob("*.tif")))
    print("\n" + json.dumps(took))


def _wrong(found: Any, raster: str, file: Path) -> float:
    """Share of the pixels that aren't of the class that a model says which sees one pixel at a time."""
    wrong = 0
    with rasterio.open(raster) as source, rasterio.open(file) as given:
        for _, part in source.block_windows():
            image = torch.from_numpy(source.read(window=part))[None]
            logits = found.model(found.normalize(image, torch.ones(image[:, 0].shape, dtype=torch.bool)))
            wrong += np.count_nonzero(logits[0].argmax(0).numpy() != given.read(1, window=part))
        return wrong / (source.height * source.width)


def apart(
    tool: str, kind: str, raster: Path, call: str = "--measure", **options: Any
) -> dict[str, float] | None:
    """Measures in a process of its own; None if the tool isn't there."""
    command = [sys.executable, __file__, call, tool, kind, str(raster), json.dumps(options)]
    fair = {
        "OMP_NUM_THREADS": str(options.get("threads", 1)),  # also in threads that a tool starts
        "OMP_WAIT_POLICY": "passive",  # two that spin take many times as long beside other work
        "NUMPY_MADVISE_HUGEPAGE": "0",  # they cost geoai from 0 to 3 s, as the kernel has some left or not
    }
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **fair})
    found: dict[str, float] | None = json.loads(done.stdout.splitlines()[-1])
    return found


def throughput(folder: Path, sizes: list[int], rounds: int, threads: int) -> list[dict[str, Any]]:
    """Return what the model takes of the time, and what all else costs; ratios to ours at the end."""
    rows, ratios = [], []
    for size in sizes:
        for kind in ("free", "unet"):
            if kind == "unet" and size > 3000:
                continue
            taken = _in_turn(folder / f"{size}.tif", kind, size, rounds, threads)
            for tool, found in taken.items():
                middle = {key: statistics.median(each[key] for each in found) for key in found[0]}
                print(f"{size}^2 {kind} {tool}: {_told(middle, size**2, threads)}", flush=True)
                rows.append({"size": size, "kind": kind, "tool": tool, **middle})
            for tool in (name for name in taken if name in PEERS):
                for own in (name for name in taken if name not in PEERS):
                    cpu, wall = (_ratio(taken[tool], taken[own], key) for key in ("cpu", "wall"))
                    ratios.append(f"{size}^2 {kind}, {tool} / {own}: {cpu} of CPU time, {wall} on the clock")
    print(f"{threads} threads, {rounds} rounds:", *ratios, sep="\n")
    return rows


def _in_turn(
    raster: Path, kind: str, size: int, rounds: int, threads: int
) -> dict[str, list[dict[str, float]]]:
    """Return what each tool that is there took in each round."""
    ours = {"ours": {"precision": "fp32"}} | ({"ours bf16": {"precision": "bf16"}} if kind == "unet" else {})
    calls: dict[str, dict[str, Any]] = ours | {peer: {} for peer in PEERS if size <= LARGEST.get(peer, size)}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in list(taken):
            tool = name if name in PEERS else "ours"
            found = apart(tool, kind, raster, threads=threads, compares=kind == "free", **calls[name])
            if found is None:
                del taken[name]
            else:
                taken[name].append(found)
    return taken


def _ratio(one: list[dict[str, float]], other: list[dict[str, float]], key: str) -> str:
    found = [a[key] / b[key] for a, b in zip(one, other, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def _told(found: dict[str, float], pixels: int, threads: int) -> str:
    host, whole = (1e6 * seconds / pixels for seconds in (found["cpu"] - found["model_cpu"], found["cpu"]))
    kernel, wall = found["system"] / found["cpu"], 1e6 * found["wall"] / pixels
    told = [f"{whole:.3f} CPU s per Mpx, {kernel:.0%} of it in the kernel; {wall:.3f} s on the clock"]
    if threads == 1:  # else the model's other threads would count as all else
        share = found["model_cpu"] / found["cpu"]
        told.append(f"{host:.3f} CPU s beside the model, which takes {share:.1%} of the CPU time")
    told.append(f"model {found['model'] / found['wall']:.1%} of the wall")
    told.append(f"{found['pixels'] / pixels:.2f} pixels seen per pixel, {found['memory']:.0f} MB")
    if "wrong" in found:
        told.append(f"{found['wrong']:.4%} of another class than the model's")
    return "; ".join(told)


def memory(folder: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """Free model: what all else takes, against height and width, whole and in panels."""
    rows = []
    last = max(sizes)
    shapes = [(s, s) for s in sizes] + [(4 * sizes[0], sizes[0]), (sizes[0], 4 * sizes[0]), (10 * last, last)]
    for height, width in shapes:
        raster = folder / f"{height}x{width}.tif"
        if height == 10 * width:
            raster = repeated(folder / f"{width}x{width}.tif", 10)
        elif not raster.exists():
            draw(raster, height, width)
        row: dict[str, Any] = {"height": height, "width": width}
        for how, more in (("whole", {}), ("panels", {"max_memory": 0.5})):
            if height < 10 * width or how == "whole":
                found = apart("ours", "free", raster, precision="fp32", **more)
                row[how] = found["memory"]
        if height == width and (found := apart("monai", "free", raster)):
            row["monai"] = found["memory"]
        told = ", ".join(f"{key} {value:.0f} MB" for key, value in row.items() if isinstance(value, float))
        print(f"{width} wide x {height} high: {told}", flush=True)
        rows.append(row)
    return rows


def repeated(raster: Path, times: int) -> Path:
    """Return a virtual raster that shows one several times, below each other."""
    with rasterio.open(raster) as source:
        height, width, place = source.height, source.width, source.transform
        crs = source.crs.to_wkt()
    bands = ""
    for band in range(1, BANDS + 1):
        bands += f'<VRTRasterBand dataType="UInt16" band="{band}">'
        for number in range(times):
            bands += (
                f'<SimpleSource><SourceFilename relativeToVRT="1">{raster.name}</SourceFilename>'
                f"<SourceBand>{band}</SourceBand>"
                f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
                f'<DstRect xOff="0" yOff="{number * height}" xSize="{width}" ySize="{height}"/>'
                "</SimpleSource>"
            )
        bands += "</VRTRasterBand>"
    frame = raster.with_suffix(".vrt")
    numbers = ", ".join(map(str, place.to_gdal()))
    frame.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height * times}"><SRS>{crs}</SRS>'
        f"<GeoTransform>{numbers}</GeoTransform>{bands}</VRTDataset>"
    )
    return frame


def seams(model: str, raster: str) -> list[dict[str, Any]]:
    """Classes that differ from those of one window over all of a crop, near the seams and elsewhere."""
    from geo_seg.checkpoints.checkpoint import load_checkpoint
    from geo_seg.inference.inputs import bands_for
    from geo_seg.prediction.ensemble import make_ensemble
    from geo_seg.prediction.predictor import PredictOptions, Predictor
    from geo_seg.prediction.window_reader import RasterInput, read_reflected
    from geo_seg.raster.reader import RasterReader, read_info
    from geo_seg.tiling import BlendSpec, Grid, Window

    torch.set_num_threads(1)
    found, info, side = load_checkpoint(model), read_info(raster), 2816  # whole windows of 512, 1024, 1536
    source = RasterInput(info, bands_for(info, found)[0], found.nodata, found.zero_is_nodata)
    top, left = ((length - side) // 64 * 32 for length in (info.height, info.width))
    with tempfile.TemporaryDirectory() as folder:
        crop = f"{folder}/crop.tif"
        with RasterReader(raster, source.bands) as reader:
            pixels, _ = read_reflected(reader, Window(top, left, side, side))
        with rasterio.open(
            crop, "w", driver="GTiff", height=side, width=side, count=len(pixels), dtype=pixels.dtype
        ) as target:
            target.write(pixels)
        source = RasterInput(read_info(crop), tuple(range(1, len(pixels) + 1)), None, False)
        predictor = Predictor(make_ensemble([found]), torch.device("cpu"))

        def classes(grid: Grid) -> np.ndarray:
            parts = grid.split(3, len(grid.cols))
            strips = (
                s
                for p in parts
                for s in predictor.predict_rows(source, p, PredictOptions("fp32", 1), lambda _: None)
            )
            return np.concatenate([strip.classes for strip in strips])

        rows = []
        whole = classes(Grid.over(side, side, side, BlendSpec(0, 0)))
        for window, margin, overlap, blend in HOWS:
            how = BlendSpec(margin, overlap, blend)
            grid = Grid.over(side, side, window, how)
            wrong = classes(grid) != whole
            near = np.zeros(wrong.shape, bool)
            for axis, view in ((grid.rows, near), (grid.cols, near.T)):
                for seam in axis.seams:
                    middle = seam + axis.overlap // 2
                    view[middle - 48 : middle + 48] = True
            cost = (window / (window - -(-how.shared // 32) * 32)) ** 2
            shares = (
                f"{wrong.mean():.4%} of all, {wrong[near].mean():.4%} near, {wrong[~near].mean():.4%} far"
            )
            told = f"{shares}; {cost:.2f} pixels seen per pixel of a large raster"
            print(f"window {window}, {how}: {told}", flush=True)
            name = f"{window}: margin {margin}, overlap {overlap}, {blend}"
            rows.append({"name": name, "cost": cost, "near": wrong[near].mean(), "far": wrong[~near].mean()})
    return rows


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=list(MODES), default="throughput")
    parser.add_argument("--sizes", nargs="+", type=int, default=[3000, 6000, 12000])
    parser.add_argument("--rounds", type=int, default=3, help="throughput: each tool so often, in turn")
    parser.add_argument("--threads", type=int, default=1, help="throughput: of torch, and workers of dask")
    parser.add_argument("--model", help="seams: a run folder or checkpoint")
    parser.add_argument("--raster", help="seams: a raster that it fits")
    parser.add_argument("--docs", help="a folder: draws the figures there, but for polygons")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--outline", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.outline:
        outline(given.outline[0], given.outline[2], json.loads(given.outline[3]))
        return
    if given.measure:
        measure(*given.measure[:3], json.loads(given.measure[3]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.what == "polygons":
            polygons(folder, given.sizes)
            return
        if given.what == "seams":
            rows = seams(given.model, given.raster)
        elif given.what == "memory":
            rows = memory(folder, given.sizes)
        else:
            for size in given.sizes:
                draw(folder / f"{size}.tif", size, size)
            rows = throughput(folder, given.sizes, given.rounds, given.threads)
    if given.docs:
        import inference_plots

        inference_plots.PLOTS[given.what](rows, Path(given.docs, f"inference_{given.what}.png"))


if __name__ == "__main__":
    main()
