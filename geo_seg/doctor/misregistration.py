"""Misregistration of labels: correlation of the edges of image and labels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

REACH = 16
"""Largest shift in pixels that is searched for."""

_MIN_PEAK_DEVIATIONS = 6.0  # standard deviations of the other shifts' correlations
_MIN_PEAK_RATIO = 1.25  # to the correlation without a shift


def edge_correlation(
    image: NDArray[Any], labels: NDArray[np.integer[Any]], labelled: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Correlate the edges of an image with those of its labels, for every shift of the labels.

    Args:
        image: (bands, H, W) raw values.
        labels: (H, W) class ids.
        labelled: (H, W) bool, False where labels are ignored; edges at its border don't count.

    Returns:
        (2 REACH + 1, 2 REACH + 1) correlations; at [REACH + r, REACH + c] for labels that lie r rows below
        and c columns right of the image's edges. All 0 if image or labels have no edges.
    """
    size = 2 * REACH + 1
    inner = _inner(labelled)
    pixels = np.where(labelled, image.astype(np.float64), 0)
    brightness = sum(_scaled(band, labelled) for band in pixels)
    gradient = np.hypot(*np.gradient(brightness)) * inner
    class_borders = np.zeros(labels.shape)
    class_borders[:, 1:] = labels[:, 1:] != labels[:, :-1]
    class_borders[1:] = np.maximum(class_borders[1:], labels[1:] != labels[:-1])
    class_borders *= inner
    if not class_borders.any() or not gradient.any():
        return np.zeros((size, size))
    correlation = np.fft.irfft2(
        np.fft.rfft2(_centred(class_borders, inner)) * np.conj(np.fft.rfft2(_centred(gradient, inner))),
        labels.shape,
    )
    near_shifts = np.roll(correlation, (REACH, REACH), (0, 1))[:size, :size]
    return near_shifts / np.sqrt((class_borders**2).sum() * (gradient**2).sum())


def shift_of(correlation: NDArray[np.float64]) -> tuple[int, int] | None:
    """Return the rows and columns that labels are shifted by; None unless the peak is clear."""
    row, col = np.unravel_index(correlation.argmax(), correlation.shape)
    best, unshifted = correlation[row, col], correlation[REACH, REACH]
    others = np.delete(correlation.ravel(), correlation.argmax())
    shift = int(row) - REACH, int(col) - REACH
    stands_out = best - np.median(others) > _MIN_PEAK_DEVIATIONS * _spread(others)
    # a peak at the edge of the search range may be the slope of something else
    if not 2 <= max(map(abs, shift)) < REACH or not stands_out or best < _MIN_PEAK_RATIO * unshifted:
        return None
    return shift


def _spread(values: NDArray[np.float64]) -> float:
    """Return a standard deviation that is robust against a few large values."""
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) + 1e-12


def _scaled(band: NDArray[np.float64], labelled: NDArray[np.bool_]) -> NDArray[np.float64]:
    spread = band[labelled].std() if labelled.any() else 0.0
    scaled: NDArray[np.float64] = band / spread if spread else np.zeros_like(band)
    return scaled


def _centred(values: NDArray[np.float64], inner: NDArray[np.bool_]) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = np.where(inner, values - values[inner].mean(), 0)
    return centred


def _inner(labelled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the labelled pixels whose neighbours are labelled, too."""
    inner = labelled.copy()
    inner[[0, -1]] = inner[:, [0, -1]] = False
    inner[1:-1, 1:-1] &= labelled[:-2, 1:-1] & labelled[2:, 1:-1] & labelled[1:-1, :-2] & labelled[1:-1, 2:]
    return inner
