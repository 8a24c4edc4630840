"""What a model needs on a raster, measured on a few windows of it: precision, margin, time."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_seg.models.precision import supports_bf16
from geo_seg.prediction.predictor import Predictor
from geo_seg.prediction.window_reader import RasterInput, read_reflected
from geo_seg.raster.reader import RasterReader
from geo_seg.tiling import OUTPUT_STRIDE, Window

_AGREEMENT = 0.999  # of the classes, between a faster precision and float32
_TOLERANCE = 0.0002  # share of pixels that a window may see otherwise than a larger one
_MARGINS = (0, 16, 32, 48, 64, 96, 128)
_SAMPLE = 256  # side of the windows that precisions are measured on
_LARGE = 768  # side of those that margins are measured on; their middle, half as wide, is a window itself

DEFAULT_MARGIN = 32
"""Pixels where there is nothing to measure a margin on."""

Notify = Callable[[str], None]
WindowSample = tuple[NDArray[Any], NDArray[np.bool_]]


def measure_precision(predictor: Predictor, source: RasterInput, say: Notify) -> str:
    """The fastest precision that agrees with float32 about the classes of a few windows of the raster.

    Raises:
        DataError: the raster can't be read.
    """
    device = predictor.device.type
    candidates = (("bf16",) if supports_bf16(device) else ()) + (("fp16",) if device != "cpu" else ())
    if not candidates:
        return "fp32"
    windows = list(sample_windows(source, _SAMPLE))
    if not windows:
        return "fp32"
    truth, slowest = timed_predict(predictor, windows, "fp32")
    best, fastest, told = "fp32", slowest, []
    for name in candidates:
        found, seconds = timed_predict(predictor, windows, name)
        same = float(
            np.mean(np.concatenate([(f == t)[v] for f, t, (_, v) in zip(found, truth, windows, strict=True)]))
        )
        told.append(
            f"{name} {slowest / seconds:.2f} times as fast as fp32, {same:.2%} of the classes the same"
        )
        if same >= _AGREEMENT and seconds < fastest:
            best, fastest = name, seconds
    say(f"precision: {best} ({'; '.join(told)})")
    return best


def measure_margin(predictor: Predictor, source: RasterInput, precision: str, say: Notify) -> int:
    """The smallest margin beyond which windows say the same as the larger windows around them.

    Raises:
        DataError: the raster can't be read.
    """
    quarter = _LARGE // 4 // OUTPUT_STRIDE * OUTPUT_STRIDE
    middle = slice(quarter, 3 * quarter)
    differs, distance = [], []
    for image, valid in sample_windows(source, _LARGE):
        if min(valid.shape) < _LARGE:
            continue
        (large,), _ = timed_predict(predictor, [(image, valid)], precision)
        small_window = (image[:, middle, middle].copy(), valid[middle, middle].copy())
        (small,), _ = timed_predict(predictor, [small_window], precision)
        line = np.minimum(np.arange(2 * quarter), np.arange(2 * quarter)[::-1])
        inside = small_window[1]
        differs.append((small != large[middle, middle])[inside])
        distance.append(np.minimum(line[:, None], line)[inside])
    if not differs:
        say(f"margin: {DEFAULT_MARGIN} (the raster holds no {_LARGE} x {_LARGE} pixels to measure it on)")
        return DEFAULT_MARGIN
    wrong, away = np.concatenate(differs), np.concatenate(distance)
    shares = {margin: float(wrong[away >= margin].mean()) for margin in _MARGINS}
    chosen = next((margin for margin, share in shares.items() if share <= _TOLERANCE), _MARGINS[-1])
    told = ", ".join(f"{margin} px {share:.3%}" for margin, share in shares.items())
    say(f"margin: {chosen} (pixels that differ from a larger window at least so far from the edge: {told})")
    return chosen


def sample_windows(source: RasterInput, side: int, count: int = 3) -> Iterator[WindowSample]:
    """Some windows with valid pixels as the model sees them, spread over a raster.

    Args:
        source: the raster.
        side: of the windows in pixels of the model; less where the raster has less.
        count: of windows at most.

    Yields:
        image: (bands, height, width).
        valid: (height, width).
    """
    info, scale = source.info, source.scale
    axes = ((info.height, scale.rows), (info.width, scale.cols))
    height, width = (min(max(side // scale.unit, 1), -(-length // step)) * step for length, step in axes)
    steps = 3 * count  # some places may hold nothing
    with RasterReader(info.path, source.bands, source.nodata, source.zero_is_nodata) as reader:
        for place in np.random.default_rng(0).permutation(steps):
            # a diagonal through the raster; the model's output stride holds here, too
            row, col = (
                int(max(length - size, 0) * (place + 0.5) / steps) // step * step
                for (length, step), size in zip(axes, (height, width), strict=True)
            )
            image, valid = scale.apply(*read_reflected(reader, Window(row, col, height, width)))
            if valid.any():
                yield image, valid
                count -= 1
            if count == 0:
                return


def timed_predict(
    predictor: Predictor, windows: list[WindowSample], precision: str
) -> tuple[list[NDArray[Any]], float]:
    """Classes of some windows, and the seconds that the fastest of two rounds took."""
    times = []
    for _ in range(2):  # the first one also prepares kernels and buffers
        begin = time.perf_counter()
        found = [
            predictor.predict_windows(image[None], valid[None], precision)[0] for image, valid in windows
        ]
        times.append(time.perf_counter() - begin)
    return found, min(times)
