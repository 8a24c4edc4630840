"""Plan of a map: window, margin, overlap, precision, batch size, parts and panels of each raster."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from geo_seg.config.inference import InferenceConfig
from geo_seg.errors import ConfigError
from geo_seg.prediction.measure import DEFAULT_MARGIN, Notify, measure_margin, measure_precision
from geo_seg.prediction.memory import bytes_per_pixel, estimate_part_bytes, free_memory
from geo_seg.prediction.predictor import Predictor
from geo_seg.prediction.resample import ResolutionScale
from geo_seg.prediction.window_reader import RasterInput
from geo_seg.tiling import OUTPUT_STRIDE, BlendSpec, Grid

# candidates, largest first; larger ones gain little speed and delay the first result
_WINDOW_SIDES = (1536, 1280, 1024, 768, 512, 384, 256)
_MAX_WINDOW_ROWS = 2048  # maximum rows of the raster in a window that is chosen automatically
# share of a window that overlaps a neighbour by default: at most 1.4 pixels predicted per pixel
_DEFAULT_SHARED = 0.15
_MIN_DEFAULT_MARGIN = 32  # pixels; minimum of the default margin, even where that exceeds this share
_MAX_PANEL_COLS = 4608  # columns predicted at once: wider rasters take no more memory
_MIN_PART_ROWS = 2048  # rows; a crash loses at most the part in progress


@dataclass(frozen=True)
class MapPlan:
    """Settings of one map that its bytes depend on.

    Attributes:
        window: largest side of the windows in pixels.
        margin: pixels along the edges of a window whose prediction is discarded.
        overlap: pixels over which neighbouring windows are blended.
        blend: "crop", "linear" or "hann".
        precision: "fp32", "bf16" or "fp16".
        batch_size: windows per batch.
        rows: rows of windows in a part.
        cols: columns of windows in a part.
    """

    window: int
    margin: int
    overlap: int
    blend: str
    precision: str
    batch_size: int
    rows: int
    cols: int


class Planner:
    """Planner that resolves every "auto"; measurements on the first raster are used for the others.

    Args:
        config: configuration of inference.
        predictor: the model.
        training_window: side of the training windows in pixels.
        notify: prints a line about what was measured.
        processes: number of processes that share the memory of the machine.
        output_bytes: bytes per pixel that the products of a map buffer, beside the class id.
    """

    def __init__(
        self,
        config: InferenceConfig,
        predictor: Predictor,
        training_window: int,
        notify: Notify,
        processes: int,
        output_bytes: int = 0,
    ) -> None:
        self._output_bytes = output_bytes
        self._processes = processes
        self._config = config
        self._predictor = predictor
        self._training_window = training_window
        self._notify = notify
        self._precision: str | None = None if config.precision == "auto" else config.precision
        if self._precision is None and config.labels is not None:
            self._precision = "fp32"  # scores are those of the run, see EvaluationConfig.precision
        self._measured_margin: int | None = None

    @cached_property
    def per_pixel(self) -> float:
        """Peak bytes of the model per pixel."""
        return bytes_per_pixel(self._predictor)

    @cached_property
    def free(self) -> float:
        """Free bytes for this process, read once, so that rasters of one size get windows of one size."""
        device = self._predictor.device
        return free_memory(device) / (self._processes if device.type == "cpu" else 1)

    def precision(self, source: RasterInput) -> str:
        """Return the precision, measured on the first raster if it is "auto".

        Raises:
            DataError: the raster can't be read.
        """
        if self._precision is None:
            self._precision = measure_precision(self._predictor, source, self._notify)
        return self._precision

    def plan(self, source: RasterInput, measure: bool = True) -> MapPlan:
        """Plan the map of a raster.

        Args:
            source: the raster.
            measure: whether to measure precision and margin; if not, their defaults are used.

        Raises:
            ConfigError: the options contradict each other or exceed the memory.
            DataError: the raster can't be read.
        """
        config = self._config
        limit = config.max_memory * 1e9 if config.max_memory else self.free
        window, batch = self._window(limit / 2, source.scale)
        precision = self.precision(source) if measure else self._precision or "fp32"
        margin = self._margin(source, precision, window, measure)
        blending = BlendSpec(margin, config.overlap, config.blend)
        if blending.shared > window // 2:
            raise ConfigError(
                f"margin={blending.margin} overlap={blending.overlap}: neighbours would share "
                f"{blending.shared} px (2 margins and the overlap); expected at most half of window={window}"
            )
        grid = source.scale.grid(source.info, window, blending)
        # a part is counted in rows of the raster, margins and overlap are in pixels of the model
        shared_rows = round(blending.shared * source.scale.rows / source.scale.unit)
        plan = MapPlan(
            window=window,
            margin=blending.margin,
            overlap=blending.overlap,
            blend=blending.blend,
            precision=precision,
            batch_size=batch,
            rows=-(-_MIN_PART_ROWS // (grid.rows.window - min(shared_rows, grid.rows.window // 2))),
            cols=math.ceil(len(grid.cols) / math.ceil(source.info.width / _MAX_PANEL_COLS)),
        )
        return replace(plan, cols=self._panel_cols(limit, source, grid, plan)) if config.max_memory else plan

    def estimate_bytes(self, source: RasterInput, part: Grid, batch_size: int) -> int:
        """Return the peak bytes of predicting a part of a raster, parameters of the model excluded."""
        classes = self._predictor.task.num_classes
        return estimate_part_bytes(source, part, classes, batch_size, self.per_pixel, self._output_bytes)

    def _margin(self, source: RasterInput, precision: str, window: int, measure: bool) -> int:
        margin = self._config.margin
        if margin is None:
            available = (_DEFAULT_SHARED * window - self._config.overlap) / 2
            return max(_MIN_DEFAULT_MARGIN, int(available // 16 * 16))
        if margin == "auto":
            if not measure:
                return max(min(DEFAULT_MARGIN, (window // 2 - self._config.overlap) // 2), 0)
            if self._measured_margin is None:
                self._measured_margin = measure_margin(self._predictor, source, precision, self._notify)
            return self._measured_margin
        return int(margin)

    def _window(self, budget: float, scale: ResolutionScale) -> tuple[int, int]:
        """Return side and batch size of the windows for a budget of bytes."""
        window, batch = self._config.window, self._config.batch_size
        pixels = budget / self.per_pixel
        if window == "auto":
            max_pixels = pixels / (1 if batch == "auto" else int(batch))
            # for finer rasters, the buffer of blended rows grows with the square of the scale
            candidates = (
                side
                for side in _WINDOW_SIDES
                if side**2 <= max_pixels and side * scale.max_downsampling <= _MAX_WINDOW_ROWS
            )
            largest = next(candidates, _WINDOW_SIDES[-1])
            window = max(largest, -(-self._training_window // OUTPUT_STRIDE) * OUTPUT_STRIDE)
        if batch == "auto":
            # on a CPU, larger batches only exceed the caches
            batch = (
                1 if self._predictor.device.type == "cpu" else int(np.clip(pixels / int(window) ** 2, 1, 8))
            )
        return int(window), int(batch)

    def _panel_cols(self, limit: float, source: RasterInput, grid: Grid, plan: MapPlan) -> int:
        """Return the largest number of columns of windows whose peak stays within a limit in bytes."""
        peak_bytes = 0
        for cols in range(plan.cols, 0, -1):
            peak_bytes = max(
                self.estimate_bytes(source, part, plan.batch_size) for part in grid.split(plan.rows, cols)
            )
            if peak_bytes <= limit:
                return cols
        raise ConfigError(
            f"max_memory={limit / 1e9:g}: one column of windows of {plan.window} takes "
            f"{peak_bytes / 1e9:.2f} GB; expected a larger max_memory, or a smaller window"
        )


def split_into_parts(source: RasterInput, plan: MapPlan) -> tuple[Grid, ...]:
    """Return the parts of a raster, panel by panel and from the top down; each is predicted on its own."""
    blending = BlendSpec(plan.margin, plan.overlap, plan.blend)
    grid = source.scale.grid(source.info, plan.window, blending)
    return grid.split(plan.rows, plan.cols)
