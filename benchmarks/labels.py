"""Burning polygons into the label of a large scene: time and memory beside burning the whole array at once.

python benchmarks/labels.py --folder <scratch folder> [--size 20000] [--cell 40]

Draws a GeoPackage of a polygon per cell, and burns it in processes of their own; memory is that beyond the
libraries' at most.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyogrio.raw
import rasterio
import rasterio.features
import shapely
from rasterio.transform import from_origin

sys.path.insert(0, str(Path(__file__).parents[1]))
from geo_seg.config.dataset import DatasetConfig, LabelConfig
from geo_seg.data.class_table import build_class_table
from geo_seg.data.labels.prepare import LabelPreparer
from geo_seg.data.scenes.file_pairs import SceneFiles
from geo_seg.raster.reader import read_info
from geo_seg.runtime.process import setup_process

LEFT, TOP = 500_000, 5_000_000
NAMES = ["field", "forest", "water"]


def draw(folder: Path, size: int, cell: int) -> None:
    """Return an empty scene with pixels of 1 m, and an octagon with a hole per cell, of three classes."""
    place = {
        "crs": "EPSG:32633",
        "transform": from_origin(LEFT, TOP, 1, 1),
        "driver": "GTiff",
        "sparse_ok": True,
    }
    with rasterio.open(
        folder / "image.tif", "w", width=size, height=size, count=1, dtype="uint8", tiled=True, **place
    ):
        pass
    xs, ys = np.meshgrid(np.arange(cell / 2, size, cell), np.arange(cell / 2, size, cell))
    middles = shapely.points(LEFT + xs.ravel(), TOP - ys.ravel())
    shapes = shapely.difference(
        shapely.buffer(middles, cell * 0.48, quad_segs=2), shapely.buffer(middles, cell * 0.1, quad_segs=2)
    )
    kinds = np.array(NAMES)[np.random.default_rng(0).integers(0, 3, len(shapes))]
    pyogrio.raw.write(
        folder / "labels.gpkg",
        shapely.to_wkb(shapes),
        [kinds],
        ["kind"],
        geometry_type="Polygon",
        crs="EPSG:32633",
    )


def streamed(folder: Path) -> None:
    """As training does it."""
    config = DatasetConfig(
        name="burn",
        root=str(folder),
        classes=[{"name": name, "values": [name]} for name in NAMES],
        label=LabelConfig(attribute="kind"),
        cache_dir=str(folder / "cache"),
    )
    image, mask = str(folder / "image.tif"), str(folder / "labels.gpkg")
    LabelPreparer(config, build_class_table(config)).prepare(
        SceneFiles("image.tif", (image,), mask), read_info(image)
    )


def at_once(folder: Path) -> None:
    """All polygons and the whole array in memory, which is written as one."""
    _, _, shapes, fields = pyogrio.raw.read(folder / "labels.gpkg", columns=["kind"])
    with rasterio.open(folder / "image.tif") as source:
        profile, shape, transform = source.profile, source.shape, source.transform
    numbers = (NAMES.index(kind) for kind in fields[0])
    pairs = zip(shapely.from_wkb(shapes), numbers, strict=True)
    found = rasterio.features.rasterize(pairs, shape, fill=255, transform=transform, dtype="uint8")
    with rasterio.open(folder / "whole.tif", "w", **{**profile, "compress": "deflate"}) as target:
        target.write(found, 1)


def main() -> None:
    """Draws, measures and prints."""
    setup_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="emptied of what is drawn")
    parser.add_argument("--size", type=int, default=20_000, help="rows and columns of the scene")
    parser.add_argument("--cell", type=int, default=40, help="pixels from polygon to polygon")
    parser.add_argument("--way", choices=["streamed", "at_once"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        pages = int(Path("/proc/self/statm").read_text().split()[1])  # Linux only
        before, begin = pages * resource.getpagesize() / 1e6, time.process_time()
        (streamed if given.way == "streamed" else at_once)(given.folder)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(f"{time.process_time() - begin:.1f} CPU s, {most - before:.0f} MB")
        return
    folder = given.folder / "labels"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    draw(folder, given.size, given.cell)
    print(f"{(given.size // given.cell) ** 2:,} polygons onto {given.size} x {given.size} pixels")
    for way in ("streamed", "at_once"):
        command = [sys.executable, __file__, "--folder", str(folder), "--way", way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"{way}: {done.stdout.strip()}")
    with rasterio.open(next((folder / "cache" / "labels").glob("*.tif"))) as ours:
        codes, nodata = ours.read(1), ours.nodata
    with rasterio.open(folder / "whole.tif") as theirs:
        whole = theirs.read(1)
    print(f"pixels that differ: {int(((codes == nodata) != (whole == 255)).sum())}")


if __name__ == "__main__":
    main()
