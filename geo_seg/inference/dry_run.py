"""What maps would take, told before anything is written, for a tenth of that at most."""

import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import rasterio
from rich.console import Console
from rich.table import Table

from geo_seg.prediction.measure import WindowSample, sample_windows, timed_predict
from geo_seg.prediction.planner import MapPlan, Planner, split_into_parts
from geo_seg.prediction.predictor import Predictor
from geo_seg.prediction.window_reader import RasterInput
from geo_seg.raster.cog import RasterSpec
from geo_seg.raster.geobox import GeoBox
from geo_seg.tiling import OUTPUT_STRIDE
from geo_seg.vectorize.geopackage import PolygonOptions, write_polygons

_OVERVIEWS = 4 / 3  # each has a quarter of the pixels of the one before
_SHARE = 1 / 20  # of what the models would see, that they may see here: the rest of a tenth is for the rest
_ROUNDS = 2  # in which each window is timed
_WINDOWS = 5  # that are timed at most, each in another raster if there are as many
_ENOUGH = 128  # pixels of the side of a window that tells something of others; before that, fewer are timed
_TO_COMPARE = 3 * 3 * 256**2  # pixels at most on which precisions are compared, in each round
_LISTED = 20  # rasters in the table


@dataclass(frozen=True)
class PlannedMap:
    """What a map would take, as far as the header of its raster says it.

    Attributes:
        source: the raster.
        chosen: for it.
        parts: that can be made alone.
        windows: in all of them.
        tall: rows of a window.
        wide: columns of a window.
        memory: bytes beyond the model at most.
    """

    source: RasterInput
    chosen: MapPlan
    parts: int
    windows: int
    tall: int
    wide: int
    memory: int

    @classmethod
    def of(cls, source: RasterInput, chooser: Planner) -> Self:
        """Plan a map without measuring anything.

        Raises:
            ConfigError: options don't fit the raster or the memory.
        """
        chosen = chooser.plan(source, measure=False)
        parts = split_into_parts(source, chosen)
        memory = max(chooser.estimate_bytes(source, part, chosen.batch_size) for part in parts)
        tall, wide = parts[0].rows.window, parts[0].cols.window
        return cls(source, chosen, len(parts), sum(map(len, parts)), tall, wide, memory)

    @property
    def pixels(self) -> int:
        """Of the raster."""
        return self.source.info.height * self.source.info.width

    @property
    def seen(self) -> float:
        """Pixels that the model sees in all windows."""
        return self.windows * self.tall * self.wide * self.source.scale.pixel_ratio


@dataclass(frozen=True)
class _Timed:
    """Windows of some rasters that were read and predicted.

    Attributes:
        windows: of each raster its source, the classes, and what was read.
        seconds: that reading and predicting took.
        precision: that it was done in.
    """

    windows: list[tuple[RasterInput, list[Any], list[WindowSample]]]
    seconds: float
    precision: str

    @property
    def seen(self) -> int:
        """Pixels of the windows."""
        return sum(valid.size for _, _, samples in self.windows for _, valid in samples)


def print_forecast(
    plans: Sequence[PlannedMap],
    predictor: Predictor,
    chooser: Planner,
    made: tuple[RasterSpec, ...],
    outlining: PolygonOptions | None,
    console: Console,
) -> None:
    """Show what maps would take: a table, and what all of them take together.

    Time and size come from a sample of windows that is a twentieth of the work at most.

    Args:
        plans: of the maps.
        predictor: the model.
        chooser: who chose.
        made: the rasters of a map.
        outlining: how polygons are made of it, or None.
        console: where.

    Raises:
        DataError: a raster can't be read.
    """
    if not plans:
        return
    timed = _time(plans, predictor, chooser)
    seen = sum(plan.seen for plan in plans)
    rate = timed.seconds / timed.seen if timed else math.nan
    console.print(_table(plans, rate))
    chosen = plans[0].chosen
    pixels = sum(plan.pixels for plan in plans)
    raw = sum(len(layer.bands) * layer.bytes_per_value for layer in made) * pixels / 1e6
    lines = [
        f"windows: margin {chosen.margin}, overlap {chosen.overlap}, blend {chosen.blend}",
        f"memory: at most {max(plan.memory for plan in plans) / 1e9:.2f} GB beyond the model",
    ]
    if timed is None:
        lines.append(
            f"size: {raw:.1f} MB before compression; time: unknown, a tenth of the work is too little to be "
            "timed, or none of the sampled windows holds a valid pixel"
        )
    else:
        count = sum(len(found) for _, found, _ in timed.windows)
        squeezed = sum(
            len(zlib.compress(classes.astype(made[-1].dtype).tobytes()))
            for _, found, _ in timed.windows
            for classes in found
        )
        size = squeezed / timed.seen * min(seen, pixels) * _OVERVIEWS / 1e6
        lines += [
            f"time: about {rate * seen:.0f} s in {timed.precision}, if all windows hold data (from {count} "
            "windows)",
            f"size: {raw:.1f} MB before compression; the classes about {size:.1f} MB on the disk",
        ]
        if outlining:
            lines.append(_polygons(timed, pixels, made[-1], outlining))
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _time(plans: Sequence[PlannedMap], predictor: Predictor, chooser: Planner) -> _Timed | None:
    """Reads and predicts some windows; None where that would be too much, or where they hold nothing."""
    room = _SHARE * sum(plan.seen for plan in plans) / _ROUNDS
    precision = plans[0].chosen.precision
    if room > 2 * _TO_COMPARE:
        precision = chooser.precision(plans[0].source)
        room -= _TO_COMPARE
    count = next(n for n in range(_WINDOWS, 0, -1) if n == 1 or math.isqrt(int(room / n)) >= _ENOUGH)
    side = math.isqrt(int(room / count)) // OUTPUT_STRIDE * OUTPUT_STRIDE
    chosen = [plans[i] for i in np.unique(np.linspace(0, len(plans) - 1, count).round().astype(int))]
    found, seconds = [], 0.0
    for plan in chosen:
        fitting = min(side, max(plan.source.scale.model_shape(plan.tall, plan.wide)))
        if fitting < plan.source.scale.unit:
            continue
        begin = time.monotonic()
        samples = list(sample_windows(plan.source, fitting, max(count // len(chosen), 1)))
        seconds += time.monotonic() - begin
        # reading goes on beside the model where there is a second core; counted in, it is an upper bound
        classes, took = timed_predict(predictor, samples, precision)
        found.append((plan.source, classes, samples))
        seconds += took
    timed = _Timed(found, seconds, precision)
    return timed if timed.seen else None


def _table(plans: Sequence[PlannedMap], rate: float) -> Table:
    table = Table(title=f"{len(plans)} map{'s' * (len(plans) > 1)}, if they were made")
    table.add_column("raster", overflow="fold")
    for column in ("Mpx", "windows", "seen per px", "parts", "GB", "s"):
        table.add_column(column, justify="right")

    def row(name: str, some: Sequence[PlannedMap], windows: str) -> None:
        pixels, seen = sum(plan.pixels for plan in some), sum(plan.seen for plan in some)
        took = "–" if math.isnan(rate) else f"{rate * seen:,.1f}"
        memory = max(plan.memory for plan in some) / 1e9
        parts = sum(plan.parts for plan in some)
        table.add_row(
            name, f"{pixels / 1e6:,.2f}", windows, f"{seen / pixels:.2f}", f"{parts:,}", f"{memory:.2f}", took
        )

    for plan in plans[:_LISTED]:
        path = Path(plan.source.info.path).name
        row(path, [plan], f"{plan.windows:,} of {plan.wide} x {plan.tall}")
    rest = plans[_LISTED:]
    if rest:
        row(f"and {len(rest)} more", rest, f"{sum(plan.windows for plan in rest):,}")
    if len(plans) > 1:
        table.add_section()
        row("all", plans, f"{sum(plan.windows for plan in plans):,}")
    return table


def _polygons(timed: _Timed, pixels: int, layer: RasterSpec, outlining: PolygonOptions) -> str:
    """What polygons of all maps would take, from those of the windows."""
    if not all(source.scale.is_identity for source, _, _ in timed.windows):
        return "polygons: are not estimated with resolution="
    place = {"driver": "GTiff", "count": 1, "dtype": layer.dtype, "nodata": layer.nodata}
    count, size, begin = 0, 0, time.monotonic()
    with TemporaryDirectory() as folder:
        raster, file = Path(folder, "classes.tif"), Path(folder, "polygons.gpkg")
        for source, found, samples in timed.windows:
            geometry = GeoBox.from_raster(source.info.path)
            middle = geometry.transform @ geometry.transform.translation(
                source.info.width // 2, source.info.height // 2
            )
            for classes, (_, valid) in zip(found, samples, strict=True):
                height, width = classes.shape
                with rasterio.open(
                    raster, "w", height=height, width=width, crs=geometry.crs, transform=middle, **place
                ) as target:
                    target.write(np.where(valid, classes, layer.nodata).astype(layer.dtype), 1)
                count += write_polygons(
                    file, raster, layer.nodata, layer.classes, layer.colors, None, outlining
                )
                size += file.stat().st_size
    times = pixels / timed.seen
    return (
        f"polygons: about {count * times:.0f} in another {(time.monotonic() - begin) * times:.0f} s, "
        f"{size * times / 1e6:.1f} MB; rather fewer, those of the windows end at their edges"
    )
