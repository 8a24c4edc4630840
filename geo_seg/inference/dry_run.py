"""Dry run: memory, time and size of maps, estimated from a sample of at most a tenth of the work."""

import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from rich.console import Console
from rich.table import Table

from geo_seg.inference.products.product import Product, Sample, predicted_rasters
from geo_seg.prediction.measure import sample_windows, timed_predict
from geo_seg.prediction.planner import MapPlan, Planner, split_into_parts
from geo_seg.prediction.predictor import Predictor
from geo_seg.prediction.window_reader import RasterInput
from geo_seg.tiling import OUTPUT_STRIDE

_OVERVIEW_FACTOR = 4 / 3  # 1 + 1/4 + 1/16 + ...: each overview has a quarter of the pixels
_MAX_SAMPLED_SHARE = 1 / 20  # share of the pixels to predict that may be sampled; half of the allowed tenth
_RUNS_PER_WINDOW = 2  # timed_predict runs each window twice
_MAX_WINDOWS = 5  # maximum number of timed windows, spread over the rasters
_MIN_SIDE = 128  # pixels; minimum side of a representative window: rather fewer windows than smaller ones
_COMPARED_PIXELS = 3 * 3 * 256**2  # maximum pixels on which precisions are compared, per run
_MAX_RASTERS_LISTED = 20  # rows of the table


@dataclass(frozen=True)
class PlannedMap:
    """Work and memory of a map, derived from the header of its raster.

    Attributes:
        source: the raster.
        plan: plan of the map.
        parts: number of parts.
        windows: number of windows in all parts.
        window_rows: rows of a window.
        window_cols: columns of a window.
        peak_bytes: peak memory in bytes, parameters of the model excluded.
    """

    source: RasterInput
    plan: MapPlan
    parts: int
    windows: int
    window_rows: int
    window_cols: int
    peak_bytes: int

    @classmethod
    def of(cls, source: RasterInput, planner: Planner) -> Self:
        """Plan a map without measuring anything.

        Raises:
            ConfigError: options don't fit the raster or the memory.
        """
        plan = planner.plan(source, measure=False)
        parts = split_into_parts(source, plan)
        peak_bytes = max(planner.estimate_bytes(source, part, plan.batch_size) for part in parts)
        window_rows, window_cols = parts[0].rows.window, parts[0].cols.window
        return cls(source, plan, len(parts), sum(map(len, parts)), window_rows, window_cols, peak_bytes)

    @property
    def pixels(self) -> int:
        """Pixels of the raster."""
        return self.source.info.height * self.source.info.width

    @property
    def predicted_pixels(self) -> float:
        """Pixels that the model predicts in all windows, overlaps included."""
        return self.windows * self.window_rows * self.window_cols * self.source.scale.pixel_ratio


@dataclass(frozen=True)
class _TimedSample:
    """Sample windows of rasters, read and predicted.

    Attributes:
        windows: per sampled raster its source, predicted classes, and windows as read.
        seconds: time for reading and predicting.
        precision: precision of the model.
    """

    windows: list[Sample]
    seconds: float
    precision: str

    @property
    def predicted_pixels(self) -> int:
        """Pixels of the windows."""
        return sum(valid.size for _, _, samples in self.windows for _, valid in samples)


def print_forecast(
    maps: Sequence[PlannedMap],
    predictor: Predictor,
    planner: Planner,
    products: Sequence[Product],
    console: Console,
) -> None:
    """Print the estimated memory, time and size of maps: a table, and totals.

    Time and size are extrapolated from a sample of windows, at most a twentieth of the work.

    Args:
        maps: the planned maps.
        predictor: the model.
        planner: planner of the maps.
        products: the products of a map.
        console: target of the output.

    Raises:
        DataError: a raster can't be read.
    """
    if not maps:
        return
    timed = _sample_maps(maps, predictor, planner)
    predicted_pixels = sum(map_.predicted_pixels for map_ in maps)
    seconds_per_pixel = timed.seconds / timed.predicted_pixels if timed else math.nan
    console.print(_table(maps, seconds_per_pixel))
    plan = maps[0].plan
    pixels = sum(map_.pixels for map_ in maps)
    specs = [product.spec for product in predicted_rasters(products)]
    raw_megabytes = sum(len(spec.bands) * spec.bytes_per_value for spec in specs) * pixels / 1e6
    lines = [
        f"windows: margin {plan.margin}, overlap {plan.overlap}, blend {plan.blend}",
        f"memory: at most {max(map_.peak_bytes for map_ in maps) / 1e9:.2f} GB beyond the model",
    ]
    if timed is None:
        lines.append(
            f"size: {raw_megabytes:.1f} MB before compression; time: unknown, a tenth of the work is "
            "too little to be timed, or none of the sampled windows holds a valid pixel"
        )
    else:
        count = sum(len(predicted) for _, predicted, _ in timed.windows)
        compressed_bytes = sum(
            len(zlib.compress(classes.astype(specs[-1].dtype).tobytes()))
            for _, predicted, _ in timed.windows
            for classes in predicted
        )
        disk_megabytes = (
            compressed_bytes / timed.predicted_pixels * min(predicted_pixels, pixels) * _OVERVIEW_FACTOR / 1e6
        )
        lines += [
            f"time: about {seconds_per_pixel * predicted_pixels:.0f} s in {timed.precision}, if all windows "
            f"hold data (from {count} windows)",
            f"size: {raw_megabytes:.1f} MB before compression; the classes about {disk_megabytes:.1f} MB on "
            "disk",
        ]
        scale = pixels / timed.predicted_pixels
        forecasts = [product.forecast(timed.windows, scale) for product in products]
        lines += [line for line in forecasts if line is not None]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _sample_maps(maps: Sequence[PlannedMap], predictor: Predictor, planner: Planner) -> _TimedSample | None:
    """Read and predict sample windows; None if that exceeds the budget or all windows are nodata."""
    budget = _MAX_SAMPLED_SHARE * sum(map_.predicted_pixels for map_ in maps) / _RUNS_PER_WINDOW
    precision = maps[0].plan.precision
    if budget > 2 * _COMPARED_PIXELS:
        precision = planner.precision(maps[0].source)
        budget -= _COMPARED_PIXELS
    count = next(n for n in range(_MAX_WINDOWS, 0, -1) if n == 1 or math.isqrt(int(budget / n)) >= _MIN_SIDE)
    side = math.isqrt(int(budget / count)) // OUTPUT_STRIDE * OUTPUT_STRIDE
    sampled = [maps[i] for i in np.unique(np.linspace(0, len(maps) - 1, count).round().astype(int))]
    windows, seconds = [], 0.0
    for map_ in sampled:
        sample_side = min(side, max(map_.source.scale.model_shape(map_.window_rows, map_.window_cols)))
        if sample_side < map_.source.scale.unit:
            continue
        begin = time.monotonic()
        samples = list(sample_windows(map_.source, sample_side, max(count // len(sampled), 1)))
        seconds += time.monotonic() - begin
        # with a second core, reading overlaps with the model; adding it gives an upper bound
        classes, predict_seconds = timed_predict(predictor, samples, precision)
        windows.append((map_.source, classes, samples))
        seconds += predict_seconds
    timed = _TimedSample(windows, seconds, precision)
    return timed if timed.predicted_pixels else None


def _table(maps: Sequence[PlannedMap], seconds_per_pixel: float) -> Table:
    table = Table(title=f"{len(maps)} map{'s' * (len(maps) > 1)}, if they were made")
    table.add_column("raster", overflow="fold")
    for column in ("Mpx", "windows", "seen per px", "parts", "GB", "s"):
        table.add_column(column, justify="right")

    def row(name: str, group: Sequence[PlannedMap], windows: str) -> None:
        pixels, predicted_pixels = (
            sum(map_.pixels for map_ in group),
            sum(map_.predicted_pixels for map_ in group),
        )
        seconds = "–" if math.isnan(seconds_per_pixel) else f"{seconds_per_pixel * predicted_pixels:,.1f}"
        gigabytes = max(map_.peak_bytes for map_ in group) / 1e9
        parts = sum(map_.parts for map_ in group)
        table.add_row(
            name,
            f"{pixels / 1e6:,.2f}",
            windows,
            f"{predicted_pixels / pixels:.2f}",
            f"{parts:,}",
            f"{gigabytes:.2f}",
            seconds,
        )

    for map_ in maps[:_MAX_RASTERS_LISTED]:
        path = Path(map_.source.info.path).name
        row(path, [map_], f"{map_.windows:,} of {map_.window_cols} x {map_.window_rows}")
    unlisted = maps[_MAX_RASTERS_LISTED:]
    if unlisted:
        row(f"and {len(unlisted)} more", unlisted, f"{sum(map_.windows for map_ in unlisted):,}")
    if len(maps) > 1:
        table.add_section()
        row("all", maps, f"{sum(map_.windows for map_ in maps):,}")
    return table
