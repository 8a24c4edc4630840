"""Measurements on sample windows of a raster: fastest precision, smallest margin, prediction time."""

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

_MIN_AGREEMENT = 0.999  # share of pixels for which a faster precision predicts the class of float32
_MAX_DISAGREEMENT = 0.0002  # share of pixels whose class may differ from that of a larger window
_MARGIN_CANDIDATES = (0, 16, 32, 48, 64, 96, 128)
_PRECISION_WINDOW = 256  # side of the windows for measuring precisions
_MARGIN_WINDOW = 768  # side of the windows for margins; their centre, half as wide, is predicted again

DEFAULT_MARGIN = 32
"""Margin in pixels where nothing can be measured."""

Notify = Callable[[str], None]
WindowSample = tuple[NDArray[Any], NDArray[np.bool_]]


def measure_precision(predictor: Predictor, source: RasterInput, notify: Notify) -> str:
    """Return the fastest precision whose classes agree with float32 on a few windows of the raster.

    Raises:
        DataError: the raster can't be read.
    """
    device = predictor.device.type
    candidates = (("bf16",) if supports_bf16(device) else ()) + (("fp16",) if device != "cpu" else ())
    if not candidates:
        return "fp32"
    windows = list(sample_windows(source, _PRECISION_WINDOW))
    if not windows:
        return "fp32"
    reference, fp32_seconds = timed_predict(predictor, windows, "fp32")
    best, best_seconds, report = "fp32", fp32_seconds, []
    for name in candidates:
        predicted, seconds = timed_predict(predictor, windows, name)
        agreement = float(
            np.mean(
                np.concatenate(
                    [(p == r)[v] for p, r, (_, v) in zip(predicted, reference, windows, strict=True)]
                )
            )
        )
        report.append(
            f"{name} {fp32_seconds / seconds:.2f} times as fast as fp32, "
            f"{agreement:.2%} of the classes identical"
        )
        if agreement >= _MIN_AGREEMENT and seconds < best_seconds:
            best, best_seconds = name, seconds
    notify(f"precision: {best} ({'; '.join(report)})")
    return best


def measure_margin(predictor: Predictor, source: RasterInput, precision: str, notify: Notify) -> int:
    """Return the smallest margin inside which windows predict the same classes as larger windows around them.

    Raises:
        DataError: the raster can't be read.
    """
    quarter = _MARGIN_WINDOW // 4 // OUTPUT_STRIDE * OUTPUT_STRIDE
    middle = slice(quarter, 3 * quarter)
    disagreement, edge_distance = [], []
    for image, valid in sample_windows(source, _MARGIN_WINDOW):
        if min(valid.shape) < _MARGIN_WINDOW:
            continue
        (large,), _ = timed_predict(predictor, [(image, valid)], precision)
        small_window = (image[:, middle, middle].copy(), valid[middle, middle].copy())
        (small,), _ = timed_predict(predictor, [small_window], precision)
        axis_distance = np.minimum(np.arange(2 * quarter), np.arange(2 * quarter)[::-1])
        small_valid = small_window[1]
        disagreement.append((small != large[middle, middle])[small_valid])
        edge_distance.append(np.minimum(axis_distance[:, None], axis_distance)[small_valid])
    if not disagreement:
        notify(
            f"margin: {DEFAULT_MARGIN} (default; the raster has no {_MARGIN_WINDOW} x {_MARGIN_WINDOW} "
            "window to measure it on)"
        )
        return DEFAULT_MARGIN
    differs, distance = np.concatenate(disagreement), np.concatenate(edge_distance)
    shares = {candidate: float(differs[distance >= candidate].mean()) for candidate in _MARGIN_CANDIDATES}
    margin = next(
        (candidate for candidate, share in shares.items() if share <= _MAX_DISAGREEMENT),
        _MARGIN_CANDIDATES[-1],
    )
    report = ", ".join(f"{candidate} px {share:.3%}" for candidate, share in shares.items())
    notify(
        f"margin: {margin} (share of pixels that differ from a larger window beyond this "
        f"distance from the edge: {report})"
    )
    return margin


def sample_windows(source: RasterInput, side: int, count: int = 3) -> Iterator[WindowSample]:
    """Yield windows with valid pixels at the resolution of the model, spread over a raster.

    Args:
        source: the raster.
        side: of the windows in pixels of the model; less if the raster is smaller.
        count: maximum number of windows.

    Yields:
        image: (bands, height, width).
        valid: (height, width).
    """
    info, scale = source.info, source.scale
    axes = ((info.height, scale.rows), (info.width, scale.cols))
    height, width = (
        min(max(side // scale.unit, 1), -(-length // stride)) * stride for length, stride in axes
    )
    steps = 3 * count  # some positions may hold nodata only
    with RasterReader(info.path, source.bands, source.nodata, source.zero_is_nodata) as reader:
        for step_index in np.random.default_rng(0).permutation(steps):
            # a diagonal through the raster; the model's output stride holds here, too
            row, col = (
                int(max(length - size, 0) * (step_index + 0.5) / steps) // stride * stride
                for (length, stride), size in zip(axes, (height, width), strict=True)
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
    """Return the class ids of windows, and the seconds of the faster of two runs."""
    times = []
    for _ in range(2):  # the first run also prepares kernels and buffers
        begin = time.perf_counter()
        predicted = [
            predictor.predict_windows(image[None], valid[None], precision)[0] for image, valid in windows
        ]
        times.append(time.perf_counter() - begin)
    return predicted, min(times)
