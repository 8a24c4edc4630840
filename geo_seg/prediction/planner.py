"""What is settled for each raster before it is mapped: windows, seams, precision, panels."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from geo_seg.config.inference import InferenceConfig
from geo_seg.errors import ConfigError
from geo_seg.prediction.decode import OutputOptions
from geo_seg.prediction.measure import DEFAULT_MARGIN, Notify, measure_margin, measure_precision
from geo_seg.prediction.memory import bytes_per_pixel, estimate_part_bytes, free_memory
from geo_seg.prediction.predictor import Predictor
from geo_seg.prediction.resample import ResolutionScale
from geo_seg.prediction.window_reader import RasterInput
from geo_seg.tiling import OUTPUT_STRIDE, BlendSpec, Grid

# from the largest; beyond it little is gained and much is waited for
_WINDOWS = (1536, 1280, 1024, 768, 512, 384, 256)
_ROWS = 2048  # of the raster in a window at most, where that can be chosen
_SHARED = 0.15  # of a window that it shares with a neighbour by default: at most 1.4 pixels are seen for each
_LEAST = 32  # pixels of the default margin, in windows for which that is more than this share
_PANEL = 4608  # columns of a raster that are mapped at once at most: a wider one takes no more memory
_PART = 2048  # rows of a part at least: what a crash may cost


@dataclass(frozen=True)
class MapPlan:
    """All that was chosen for a map and that its bytes depend on.

    Attributes:
        window: largest side of the windows in pixels.
        margin: pixels along their edges that don't count.
        overlap: pixels over which neighbours are blended.
        blend: "crop", "linear" or "hann".
        precision: what the model computes in.
        batch_size: windows that it sees at once.
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
    """Settles everything that is "auto"; what was measured on the first raster holds for the others.

    Args:
        config: what is asked for.
        predictor: the model.
        training: side of the training windows in pixels.
        say: prints what was measured.
        sharers: processes that share the machine's memory.
    """

    def __init__(
        self, config: InferenceConfig, predictor: Predictor, training: int, say: Notify, sharers: int
    ) -> None:
        self._sharers = sharers
        self._config = config
        self._predictor = predictor
        self._training = training
        self._say = say
        self._precision: str | None = None if config.precision == "auto" else config.precision
        if self._precision is None and config.labels is not None:
            self._precision = "fp32"  # scores are those of the run, see EvaluationConfig.precision
        self._measured: int | None = None

    @cached_property
    def per_pixel(self) -> float:
        """Bytes that the model takes at most for a pixel."""
        return bytes_per_pixel(self._predictor)

    @cached_property
    def free(self) -> float:
        """Bytes for this process, looked up once: rasters of one size get windows of one size."""
        device = self._predictor.device
        return free_memory(device) / (self._sharers if device.type == "cpu" else 1)

    def precision(self, source: RasterInput) -> str:
        """Return what the model computes in, measured on the first raster that is asked about.

        Raises:
            DataError: the raster can't be read.
        """
        if self._precision is None:
            self._precision = measure_precision(self._predictor, source, self._say)
        return self._precision

    def plan(self, source: RasterInput, measures: bool = True) -> MapPlan:
        """Settles it for a raster.

        Args:
            source: the raster.
            measures: whether what has to be measured is; else it is what holds where nothing can be.

        Raises:
            ConfigError: the numbers don't fit each other or the memory.
            DataError: the raster can't be read.
        """
        config = self._config
        limit = config.max_memory * 1e9 if config.max_memory else self.free
        window, batch = self._window(limit / 2, source.scale)
        precision = self.precision(source) if measures else self._precision or "fp32"
        margin = self._margin(source, precision, window, measures)
        seams = BlendSpec(margin, config.overlap, config.blend)
        if seams.shared > window // 2:
            raise ConfigError(
                f"margin={seams.margin} overlap={seams.overlap}: neighbours would share {seams.shared} px (2 "
                f"margins and the overlap); expected at most half of window={window}"
            )
        grid = source.scale.grid(source.info, window, seams)
        # a part is counted in rows of the raster, seams are in pixels of the model
        shared = round(seams.shared * source.scale.rows / source.scale.unit)
        made = MapPlan(
            window=window,
            margin=seams.margin,
            overlap=seams.overlap,
            blend=seams.blend,
            precision=precision,
            batch_size=batch,
            rows=-(-_PART // (grid.rows.window - min(shared, grid.rows.window // 2))),
            cols=math.ceil(len(grid.cols) / math.ceil(source.info.width / _PANEL)),
        )
        return replace(made, cols=self._panel(limit, source, grid, made)) if config.max_memory else made

    def estimate_bytes(self, source: RasterInput, part: Grid, batch_size: int) -> int:
        """Bytes beyond the model that a part of a raster takes at most."""
        config, classes = self._config, self._predictor.task.num_classes
        shown = OutputOptions(config.probabilities, config.uncertainty, config.probability_type)
        written = shown.bytes_per_pixel(classes)
        return estimate_part_bytes(source, part, classes, batch_size, self.per_pixel, written)

    def _margin(self, source: RasterInput, precision: str, window: int, measures: bool) -> int:
        given = self._config.margin
        if given is None:
            room = (_SHARED * window - self._config.overlap) / 2
            return max(_LEAST, int(room // 16 * 16))
        if given == "auto":
            if not measures:
                return max(min(DEFAULT_MARGIN, (window // 2 - self._config.overlap) // 2), 0)
            if self._measured is None:
                self._measured = measure_margin(self._predictor, source, precision, self._say)
            return self._measured
        return int(given)

    def _window(self, budget: float, scale: ResolutionScale) -> tuple[int, int]:
        """Side of the windows, and how many the model sees at once, in a budget of bytes."""
        given, batch = self._config.window, self._config.batch_size
        pixels = budget / self.per_pixel
        if given == "auto":
            room = pixels / (1 if batch == "auto" else int(batch))
            # of a finer raster, the band of rows that is blended grows with the square of the scale
            fits = (side for side in _WINDOWS if side**2 <= room and side * scale.max_downsampling <= _ROWS)
            fitting = next(fits, _WINDOWS[-1])
            given = max(fitting, -(-self._training // OUTPUT_STRIDE) * OUTPUT_STRIDE)
        if batch == "auto":
            # on a CPU, larger batches only leave the caches
            batch = (
                1 if self._predictor.device.type == "cpu" else int(np.clip(pixels / int(given) ** 2, 1, 8))
            )
        return int(given), int(batch)

    def _panel(self, limit: float, source: RasterInput, grid: Grid, made: MapPlan) -> int:
        """Columns of windows that a limit in bytes leaves room for, at most those of the raster."""
        most = 0
        for cols in range(made.cols, 0, -1):
            most = max(
                self.estimate_bytes(source, part, made.batch_size) for part in grid.split(made.rows, cols)
            )
            if most <= limit:
                return cols
        raise ConfigError(
            f"max_memory={limit / 1e9:g}: one column of windows of {made.window} takes {most / 1e9:.2f} GB; "
            "expected more memory, or a smaller window"
        )


def split_into_parts(source: RasterInput, chosen: MapPlan) -> tuple[Grid, ...]:
    """The parts of a raster, each of which can be made alone: panel by panel, from the top down."""
    seams = BlendSpec(chosen.margin, chosen.overlap, chosen.blend)
    grid = source.scale.grid(source.info, chosen.window, seams)
    return grid.split(chosen.rows, chosen.cols)
