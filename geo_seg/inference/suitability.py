"""Comparison of a raster with the training images, from its header and a sample of its windows."""

from collections.abc import Iterator, Sequence

import numpy as np

from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.data.scales import SCALE_REMEDY, format_scales
from geo_seg.prediction.window_reader import RasterInput
from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.reader import RasterInfo, RasterReader, ScaleOffset
from geo_seg.tiling import Window

_WINDOW_SIDE = 128  # side of a sampled window in pixels
_MAX_WINDOWS_PER_AXIS = 4  # maximum number of windows along each axis
_MIN_RELATIVE_SPREAD = 1 / 2000  # of the range in training; below it in all bands, the scale is another one
_MAX_OUTSIDE_SHARE = 0.5  # share of the pixels; of training images, a hundredth lie outside


class Suitability:
    """Checks of rasters against the training images, and against the first raster of the run.

    Args:
        checkpoint: checkpoint of the model.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._metadata = checkpoint.metadata
        self._declared: tuple[ScaleOffset, str] | None = None  # and the name of what declares it
        if self._metadata.scale_offset is not None:
            pairs = tuple((scale, offset) for scale, offset in self._metadata.scale_offset)
            self._declared = pairs, "the training images"

    def notes(self, info: RasterInfo, bands: Sequence[int]) -> Iterator[str]:
        """Yield notes about differences between the header of a raster and the training images.

        Args:
            info: the header.
            bands: bands of the model.
        """
        if info.alpha and set(info.alpha) & set(bands):
            yield f"band {info.alpha[0]} is marked as alpha, but is used as an input band of the model"
        if info.dtype != self._metadata.dtype:
            yield (
                f"holds {info.dtype}, the training images {self._metadata.dtype}; the map is only correct "
                "if the values have the same meaning"
            )
        declared = info.scale_offset(bands)
        expected, declared_by = self._declared or (declared, info.path)
        self._declared = (expected, declared_by)
        if declared != expected:
            yield (
                f"declares another scale and offset ({format_scales(declared)}) than {declared_by} "
                f"({format_scales(expected)}); stored values are used unscaled, so that equal values differ "
                f"in meaning; {SCALE_REMEDY}"
            )
        if dropped := GeoBox.from_raster(info.path).dropped:
            yield f"its {dropped} are not copied to the map"

    def warning(self, source: RasterInput) -> str:
        """Return a warning if the values are unlike those of the training images, else "".

        Args:
            source: the raster.

        Raises:
            DataError: the raster can't be read.
        """
        seen = self._metadata.seen
        return _unlike_training(source, seen, self._metadata.band_names) if seen else ""


def _unlike_training(source: RasterInput, seen: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    info = source.info
    samples = []
    with RasterReader(info.path, source.bands, source.nodata, source.zero_is_nodata) as reader:
        for row in _window_starts(info.height):
            for col in _window_starts(info.width):
                height, width = min(_WINDOW_SIDE, info.height - row), min(_WINDOW_SIDE, info.width - col)
                image, valid = reader.read(Window(row, col, height, width))
                samples.append(image[:, valid])
    pixels = np.concatenate(samples, axis=1)  # (bands, pixels)
    if not pixels.shape[1]:
        return ""
    quantiles = np.quantile(pixels.astype(np.float64), (0.05, 0.95), axis=1).T.tolist()
    is_flat = all(
        b - a < _MIN_RELATIVE_SPREAD * (high - low)
        for (a, b), (low, high) in zip(quantiles, seen, strict=True)
    )
    problems = []
    for values, value_range, (low, high), name in zip(pixels, quantiles, seen, names, strict=True):
        share = np.mean((values < low) | (values > high))
        if share > _MAX_OUTSIDE_SHARE or is_flat:
            problem = "is nearly constant" if is_flat else f"lies outside in {share:.0%} of the pixels"
            training_range = f"{low:.6g} to {high:.6g} in training"
            problems.append(
                f"{name} {problem} ({training_range}, {value_range[0]:.6g} to {value_range[1]:.6g} here)"
            )
    if not problems:
        return ""
    return (
        f"values are unlike those of the training images: band {', '.join(problems)}; the map is "
        "not reliable; convert the raster to the values of the training images (scale, offset, dtype, "
        "processing level)"
    )


def _window_starts(length: int) -> list[int]:
    """Return the starts of windows along an axis, evenly spread, adjacent on a short axis."""
    count = min(-(-length // _WINDOW_SIDE), _MAX_WINDOWS_PER_AXIS)
    if count == 1:
        return [0]
    return np.linspace(0, length - _WINDOW_SIDE, count).round().astype(int).tolist()
