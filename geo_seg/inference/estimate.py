"""What a map would take, told before anything is written."""

import time
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio

from geo_seg.inference.polygons import Outlining, write_polygons
from geo_seg.mosaic import Layer
from geo_seg.prediction.measure import classify, sample
from geo_seg.prediction.planner import Choices, Chooser, parts_of
from geo_seg.prediction.predictor import Predictor
from geo_seg.prediction.window_reader import Source
from geo_seg.writing import Geometry

_OVERVIEWS = 4 / 3  # each has a quarter of the pixels of the one before


def estimate(
    predictor: Predictor,
    chooser: Chooser,
    source: Source,
    chosen: Choices,
    made: tuple[Layer, ...],
    outlining: Outlining | None,
) -> str:
    """What a map would take: windows, memory, time (from three of its windows) and size.

    Args:
        predictor: the model.
        chooser: who chose.
        source: the raster.
        chosen: for it.
        made: the rasters of the map.
        outlining: how polygons are made of it, or None.

    Raises:
        DataError: the raster can't be read.
    """
    info = source.info
    parts = parts_of(source, chosen)
    tall, wide = parts[0].rows.window, parts[0].cols.window
    windows = sum(map(len, parts))
    pixels = info.height * info.width
    memory = max(chooser.needed(source, part, chosen.batch_size) for part in parts)
    raw = sum(len(layer.bands) * layer.depth for layer in made) * pixels
    lines = [
        f"{info.path}: {info.width} x {info.height} pixels",
        f"  windows: {windows} of {wide} x {tall}, {windows * tall * wide / pixels:.2f} seen per pixel; "
        f"margin {chosen.margin}, overlap {chosen.overlap}, blend {chosen.blend}",
        f"  parts: {len(parts)}, each can be made alone; a crash costs one of them",
        f"  memory: at most {memory / 1e9:.2f} GB beyond the model",
    ]
    begin = time.monotonic()
    samples = list(sample(source, max(source.scale.seen(tall, wide))))
    reading = time.monotonic() - begin
    if not samples:
        return "\n".join([*lines, "  time and size: none of the sampled windows holds a valid pixel"])
    found, seconds = classify(predictor, samples, chosen.precision)
    seen = sum(valid.size for _, valid in samples)
    # reading goes on beside the model where there is a second core; counted in, it is an upper bound
    total = (seconds + reading) / seen * windows * tall * wide * source.scale.share
    squeezed = sum(len(zlib.compress(classes.astype(made[-1].dtype).tobytes())) for classes in found)
    size = squeezed / seen * pixels * min(source.scale.share, 1) * _OVERVIEWS / 1e6
    lines += [
        f"  time: about {total:.0f} s in {chosen.precision}, if all windows hold data",
        f"  size: {raw / 1e6:.1f} MB before compression; the classes about {size:.1f} MB on the disk",
    ]
    if outlining:
        lines.append(_polygons(source, [*zip(found, samples, strict=True)], made[-1], outlining))
    return "\n".join(lines)


def _polygons(source: Source, windows: list[Any], layer: Layer, outlining: Outlining) -> str:
    """What polygons of the whole map would take, from those of the windows."""
    if not source.scale.as_is:
        return "  polygons: are not estimated with resolution="
    info = source.info
    geometry = Geometry.of(info.path)
    middle = geometry.transform @ geometry.transform.translation(info.width // 2, info.height // 2)
    place = {"driver": "GTiff", "count": 1, "dtype": layer.dtype, "nodata": layer.nodata}
    count, size, seen, begin = 0, 0, 0, time.monotonic()
    with TemporaryDirectory() as folder:
        raster, file = Path(folder, "classes.tif"), Path(folder, "polygons.gpkg")
        for classes, (_, valid) in windows:
            height, width = classes.shape
            with rasterio.open(
                raster, "w", height=height, width=width, crs=geometry.crs, transform=middle, **place
            ) as target:
                target.write(np.where(valid, classes, layer.nodata).astype(layer.dtype), 1)
            count += write_polygons(file, raster, layer.nodata, layer.classes, layer.colors, None, outlining)
            size, seen = size + file.stat().st_size, seen + classes.size
    times = info.height * info.width / seen
    return (
        f"  polygons: about {count * times:.0f} in another {(time.monotonic() - begin) * times:.0f} s, "
        f"{size * times / 1e6:.1f} MB; rather fewer, those of the windows end at their edges"
    )
