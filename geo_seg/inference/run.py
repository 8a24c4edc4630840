"""Maps of rasters: from the configuration of inference to finished GeoTIFFs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from geo_seg.checkpoint import Checkpoint, load
from geo_seg.config import InferenceConfig
from geo_seg.errors import ConfigError, DataError
from geo_seg.inference.inputs import CLASSES, find_rasters, fitting_bands
from geo_seg.inference.maps import open_map
from geo_seg.inference.predict import Predictor, Settings, choose_bf16, choose_device
from geo_seg.inference.reading import Source
from geo_seg.raster import inspect
from geo_seg.terminal import shows_bars
from geo_seg.tiling import STRIDE, Grid
from geo_seg.writing import Geometry, prepare_folder

_WINDOW = 512  # wide windows cost less at their seams than any blending gains


@dataclass(frozen=True)
class Mapped:
    """One finished map.

    Attributes:
        file: the class raster.
        counts: (classes,) pixels of each class.
        pixels: of the raster, nodata included.
        seconds: that it took.
    """

    file: Path
    counts: NDArray[np.int64]
    pixels: int
    seconds: float


def run(config: InferenceConfig) -> list[Mapped]:
    """Maps every raster of the input; one that fails doesn't stop the others.

    Args:
        config: what to do, checked.

    Returns:
        The maps that were made, in order; those that were skipped are not in it.

    Raises:
        ConfigError: the configuration doesn't fit the model or the machine.
        CheckpointError: there is no model in the checkpoint.
        DataError: there is nothing to map, nothing can be written, or a raster failed.
    """
    errors = Console(stderr=True, highlight=False)
    output = Path(config.output)
    rasters = find_rasters(config.input, output)
    mapper = _Mapper(config, load(config.checkpoint))
    prepare_folder(output)
    made, failed = [], 0
    for name, path in rasters.items():
        try:
            mapped = mapper.map(path, output / f"{name}{CLASSES}")
        except DataError as error:
            if len(rasters) == 1:
                raise
            failed += 1
            errors.print(f"error: {error}", markup=False, soft_wrap=True)
        else:
            made += [] if mapped is None else [mapped]
    if failed:
        raise DataError(f"{failed} of {len(rasters)} rasters were not mapped, for the reasons above")
    return made


class _Mapper:
    """What all rasters of a run share."""

    def __init__(self, config: InferenceConfig, checkpoint: Checkpoint) -> None:
        self._config = config
        self._checkpoint = checkpoint
        self._console = Console(highlight=False)
        self._window = config.window or max(_WINDOW, -(-checkpoint.window // STRIDE) * STRIDE)
        if config.overlap > self._window // 2:
            raise ConfigError(f"overlap={config.overlap}: expected at most half of window={self._window}")
        device = choose_device(config.accelerator)
        settings = Settings(
            device=device,
            bf16=choose_bf16(config.precision, device),
            # on a CPU, larger batches only leave the caches
            batch_size=config.batch_size or (1 if device.type == "cpu" else 8),
            probabilities=config.probabilities,
        )
        self._predictor = Predictor(checkpoint, settings)

    def map(self, path: str, file: Path) -> Mapped | None:
        """Maps one raster; None if its map is there and exists=skip."""
        if file.exists() and self._config.exists != "overwrite":
            if self._config.exists == "error":
                raise DataError(f"{file}: exists already; choose exists=overwrite or exists=skip")
            self._say(f"{file}: is there already, skipped")
            return None
        begin = time.monotonic()
        info = inspect(path)
        bands = fitting_bands(info, self._checkpoint)
        source = Source(info, bands, self._checkpoint.nodata, self._checkpoint.zero_is_nodata)
        geometry = Geometry.of(path)
        for note in self._notes(info.dtype, geometry):
            self._say(f"note: {path}: {note}")
        grid = Grid(info.height, info.width, self._window, self._config.overlap)
        with (
            self._progress(path, len(grid)) as advance,
            open_map(file, geometry, self._checkpoint, self._config.probabilities) as files,
        ):
            for strip in self._predictor.strips(source, grid, advance):
                files.append(strip)
        mapped = Mapped(file, files.counts, info.width * info.height, time.monotonic() - begin)
        self._say(self._summary(mapped))
        return mapped

    def _notes(self, dtype: str, geometry: Geometry) -> Iterator[str]:
        if dtype != self._checkpoint.dtype:
            yield (
                f"holds {dtype}, the model learnt from {self._checkpoint.dtype}; the map is only right if "
                "the values mean the same"
            )
        if geometry.ignored:
            yield f"its {geometry.ignored} are not carried over to the map"

    @contextmanager
    def _progress(self, path: str, total: int) -> Iterator[Callable[[int], object]]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        shown = shows_bars(self._console)
        with Progress(*columns, console=self._console, transient=True, disable=not shown) as progress:
            task = progress.add_task(Path(path).name, total=total)
            yield lambda windows: progress.advance(task, windows)

    def _summary(self, mapped: Mapped) -> str:
        total = int(mapped.counts.sum())
        counts = zip(self._checkpoint.class_names, mapped.counts.tolist(), strict=True)
        shares = [f"{name} {count / total:.1%}" for name, count in counts if count]
        parts = [", ".join(shares) or "no valid pixel"]
        if total < mapped.pixels:
            parts.append(f"{1 - total / mapped.pixels:.1%} of the raster is nodata")
        millions = mapped.pixels / 1e6
        speed = f"{millions:.2f} Mpx in {mapped.seconds:.1f} s"
        return f"{mapped.file}: {speed}; {'; '.join(parts)}"

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
