"""What overviews of class maps cost beside GDAL's own modes of modes, and how much of these is wrong.

python benchmarks/overviews.py --folder <scratch folder> [--width 8192] [--height 8192] [--classes 7]

Draws the parts of a class map with patches of many sizes and joins them to a Cloud Optimized GeoTIFF, in
processes of their own: without overviews, with GDAL's and with ours. Memory is that beyond the libraries' at
most.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.transform import from_origin

sys.path.insert(0, str(Path(__file__).parents[1]))
from geo_seg.raster import cog
from geo_seg.raster.cog import RasterSpec, write_cog
from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.overviews import downsample_mode
from geo_seg.raster.writer import RowWriter
from geo_seg.runtime.process import setup_process
from geo_seg.tiling import Window

NODATA = 255
ROWS = 2048  # of a part
WAYS = ("none", "gdal", "ours")


def draw(folder: Path, width: int, height: int, classes: int) -> None:
    """Parts of a map of patches of 1 to 128 pixels, with holes."""
    random = np.random.default_rng(0)
    for number, top in enumerate(range(0, height, ROWS)):
        rows = min(ROWS, height - top)
        best, found = np.full((rows, width), -np.inf, np.float32), np.zeros((rows, width), np.uint8)
        for value in range(classes):
            score = sum(patches(random, rows, width, side) * side**0.5 for side in (1, 8, 32, 128))
            found[score > best] = value
            best = np.maximum(best, score)
        found[patches(random, rows, width, 16) > 0.95] = NODATA
        with RowWriter(folder / f"{number}.tif", (1, rows, width), "uint8") as part:
            part.append(found[None])


def patches(random: np.random.Generator, rows: int, cols: int, side: int) -> np.ndarray:
    """Random numbers, alike in squares."""
    few = random.random((-(-rows // side), -(-cols // side)), np.float32)
    return np.kron(few, np.ones((side, side), np.float32))[:rows, :cols]


def make(folder: Path, way: str, width: int, height: int, classes: int) -> None:
    """Join the parts."""
    colors = tuple((value, value, value) for value in range(classes))
    names = tuple(str(value) for value in range(classes))
    layer = RasterSpec("_classes.tif", "uint8", NODATA, ("class",), names, colors, 1, {})
    place = GeoBox(width, height, rasterio.CRS.from_epsg(32633), from_origin(500_000, 5e6, 1, 1), "")
    parts = [
        (Window(top, 0, min(ROWS, height - top), width), folder / f"{number}.tif")
        for number, top in enumerate(range(0, height, ROWS))
    ]
    if way != "ours":
        copy = rasterio.shutil.copy
        options = {"overviews": "none"} if way == "none" else {"overviews": "auto"}
        cog.write_overviews = lambda *_: []
        cog.rasterio.shutil.copy = lambda *given, **known: copy(
            *given, **{**known, "overview_resampling": "mode", **options}
        )
    write_cog(folder / f"{way}.tif", layer, place, parts)


def differing(folder: Path, other: str) -> list[tuple[int, float]]:
    """Per level of a map's overviews the share of pixels that the full map doesn't confirm."""
    with rasterio.open(folder / "none.tif") as source:
        expected = downsample_mode(source.read(1), NODATA, len(levels(folder, other)))
    shares = []
    for level, truth in enumerate(expected):
        with rasterio.open(folder / f"{other}.tif", overview_level=level) as source:
            shares.append((2 << level, float((source.read(1) != truth).mean())))
    return shares


def levels(folder: Path, way: str) -> list[int]:
    """Factors of a map's overviews."""
    with rasterio.open(folder / f"{way}.tif") as source:
        return list(source.overviews(1))


def main() -> None:
    """Draws, measures and prints."""
    setup_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="emptied of what is drawn")
    parser.add_argument("--width", type=int, default=8192)
    parser.add_argument("--height", type=int, default=8192)
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = given.width, given.height, given.classes
    if given.way:
        pages = int(Path("/proc/self/statm").read_text().split()[1])  # Linux only
        before, begin = pages * resource.getpagesize() / 1e6, time.process_time()
        make(given.folder, given.way, *size)
        # not ru_maxrss: that of the process which started this one counts there
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        most = int(status["VmHWM"].split()[0]) * 1024 / 1e6
        print(time.process_time() - begin, most - before)
        return
    folder = given.folder / "overviews"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    draw(folder, *size)
    millions = given.width * given.height / 1e6
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(given.rounds):
        for way in WAYS:
            command = [sys.executable, __file__, "--folder", str(folder), "--way", way]
            command += [f"--{key}={getattr(given, key)}" for key in ("width", "height", "classes")]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, megabytes = map(float, done.stdout.split())
            found[way].append((seconds, megabytes))
    print(
        f"{given.width} x {given.height} pixels of {given.classes} classes, medians of {given.rounds} rounds"
    )
    for way, rounds in found.items():
        seconds, megabytes = np.median(rounds, axis=0)
        mib = (folder / f"{way}.tif").stat().st_size / 1e6
        print(f"{way:>5}: {seconds / millions:.4f} CPU s per Mpx, {megabytes:.0f} MB, file of {mib:.1f} MB")
    for way in WAYS[1:]:
        shares = ", ".join(f"1:{factor} {share:.2%}" for factor, share in differing(folder, way))
        print(f"{way} shows something else than the most frequent class: {shares}")


if __name__ == "__main__":
    main()
