"""How far labels lie beside what they label: edges of image and label, correlated."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

REACH = 16
"""Largest shift in pixels that is looked for."""

_CLEAR = 6.0  # standard deviations of all other shifts that the best one stands out by
_GAIN = 1.25  # and what it is to that of no shift


def edge_correlation(
    image: NDArray[Any], labels: NDArray[np.integer[Any]], counted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The correlation of an image's edges with those of its labels, for every shift of the labels.

    Args:
        image: (bands, H, W).
        labels: (H, W).
        counted: (H, W), where there are labels; no edge is taken from its border.

    Returns:
        (2 REACH + 1, 2 REACH + 1), no shift in the middle: at [REACH + r, REACH + c] the labels lie r rows
        below and c columns right of the image's edges. 0 where there is nothing to correlate.
    """
    size = 2 * REACH + 1
    inner = _inner(counted)
    pixels = np.where(counted, image.astype(np.float64), 0)
    brightness = sum(_scaled(band, counted) for band in pixels)
    strength = np.hypot(*np.gradient(brightness)) * inner
    borders = np.zeros(labels.shape)
    borders[:, 1:] = labels[:, 1:] != labels[:, :-1]
    borders[1:] = np.maximum(borders[1:], labels[1:] != labels[:-1])
    borders *= inner
    if not borders.any() or not strength.any():
        return np.zeros((size, size))
    found = np.fft.irfft2(
        np.fft.rfft2(_centred(borders, inner)) * np.conj(np.fft.rfft2(_centred(strength, inner))),
        labels.shape,
    )
    near = np.roll(found, (REACH, REACH), (0, 1))[:size, :size]
    return near / np.sqrt((borders**2).sum() * (strength**2).sum())


def shift_of(correlation: NDArray[np.float64]) -> tuple[int, int] | None:
    """Rows and columns that labels are shifted by, where the correlation says so clearly."""
    row, col = np.unravel_index(correlation.argmax(), correlation.shape)
    best, middle = correlation[row, col], correlation[REACH, REACH]
    others = np.delete(correlation.ravel(), correlation.argmax())
    shift = int(row) - REACH, int(col) - REACH
    clear = best - np.median(others) > _CLEAR * _spread(others)
    # at the edge of what is looked at it may be the slope of something else
    if not 2 <= max(map(abs, shift)) < REACH or not clear or best < _GAIN * middle:
        return None
    return shift


def _spread(values: NDArray[np.float64]) -> float:
    """A standard deviation that a few large values don't change."""
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) + 1e-12


def _scaled(band: NDArray[np.float64], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    spread = band[counted].std() if counted.any() else 0.0
    scaled: NDArray[np.float64] = band / spread if spread else np.zeros_like(band)
    return scaled


def _centred(values: NDArray[np.float64], inner: NDArray[np.bool_]) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = np.where(inner, values - values[inner].mean(), 0)
    return centred


def _inner(counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose neighbours count, too."""
    inner = counted.copy()
    inner[[0, -1]] = inner[:, [0, -1]] = False
    inner[1:-1, 1:-1] &= counted[:-2, 1:-1] & counted[2:, 1:-1] & counted[1:-1, :-2] & counted[1:-1, 2:]
    return inner
