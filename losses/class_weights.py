"""Class weights from class frequencies."""

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from torch import Tensor

from losses.errors import LossError, did_you_mean

METHODS = ("inverse", "sqrt", "median", "effective")
BETA = 0.999999
"""Default beta of "effective"."""


def validate_class_weights(values: Any, length: int, name: str) -> tuple[float, ...]:
    """Return one number per class as a tuple.

    Args:
        values: a sequence or a tensor (C,).
        length: number of classes.
        name: name of the values in messages.

    Raises:
        LossError: another length, a number that is negative or not finite, all numbers 0.
    """
    if isinstance(values, Tensor):
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise LossError(f"{name} must be a list of {length} numbers, got {values!r}")
    numbers = list(values)
    if len(numbers) != length:
        raise LossError(f"{name} must be one number for each of {length} classes, got {numbers}")
    if not all(_is_weight(v) for v in numbers) or not any(numbers):
        raise LossError(f"{name} must be finite, not negative and not all 0, got {numbers}")
    return tuple(numbers)


def _is_weight(value: object) -> bool:
    is_number = isinstance(value, float | int) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0  # type: ignore[arg-type,operator]


def class_weights(
    counts: Sequence[int],
    method: str = "inverse",
    *,
    beta: float = BETA,
    cap: float | None = None,
    image_pixels: Sequence[int] | None = None,
) -> list[float]:
    """Return class weights that make rare classes count more.

    With n_c the pixels of class c, n their sum and K the number of classes that occur:

    * inverse: w_c = n / (K n_c);
    * sqrt: w_c proportional to 1 / sqrt(n_c), with mean 1 over the classes that occur: rare classes count
      more, but the common ones keep most of the loss;
    * median: w_c = median(f_k) / f_c over the classes that occur, f_c = n_c / (pixels of the images that
      contain class c) (Eigen and Fergus 2015, arXiv 1411.4734): a class that is common wherever it occurs is
      not rare;
    * effective: w_c proportional to (1 - beta) / (1 - beta^n_c), with mean 1 over the classes that occur
      (Cui et al. 2019, arXiv 1901.05555). The samples are pixels here, so beta has to be much closer to 1
      than for images: beyond 1 / (1 - beta) pixels, more of them add no information.

    Args:
        counts: pixels per class.
        method: "inverse", "sqrt", "median" or "effective".
        beta: for "effective", in [0, 1).
        cap: largest ratio of two weights; larger weights are clipped to it, and then all are scaled to mean 1
            over the classes that occur. None for no limit.
        image_pixels: for "median": per class, all pixels of the images that contain it.

    Returns:
        One weight per class, 0 for a class that does not occur.

    Raises:
        LossError: all counts 0, an unknown method, beta or cap out of range, "median" without image_pixels
            or with fewer of them than pixels of the class.
    """
    pixels = validate_class_weights(counts, len(counts), "class counts")
    if method not in METHODS:
        raise LossError(f"unknown class weights {method!r}{did_you_mean(method, METHODS)}")
    if not 0 <= beta < 1:
        raise LossError(f"beta must be in [0, 1), got {beta}")
    if cap is not None and cap < 1:
        raise LossError(f"cap is the ratio of largest to smallest weight, at least 1, got {cap}")
    present = [n for n in pixels if n > 0]
    if method == "inverse":
        mean_count = sum(present) / len(present)  # n / K
        weights = [mean_count / n if n else 0.0 for n in pixels]  # n / (K n_c)
    elif method == "sqrt":
        weights = _scale_to_mean_1([n**-0.5 if n else 0.0 for n in pixels])
    elif method == "median":
        frequencies = _image_frequencies(pixels, image_pixels)
        median_frequency = median(f for f in frequencies if f > 0)
        weights = [median_frequency / f if f else 0.0 for f in frequencies]  # median(f_k) / f_c
    else:
        # (1 - beta) / (1 - beta^n_c)
        weights = _scale_to_mean_1([(1 - beta) / (1 - beta**n) if n else 0.0 for n in pixels])
    if cap is None:
        return weights
    max_weight = cap * min(w for w in weights if w > 0)
    return _scale_to_mean_1([min(w, max_weight) for w in weights])


def _image_frequencies(pixels: Sequence[float], image_pixels: Sequence[int] | None) -> list[float]:
    """Return f_c of every class: its pixels / all pixels of the images that contain it."""
    if image_pixels is None:
        raise LossError(
            "class weights 'median' need image_pixels: per class, the pixels of the images that contain it"
        )
    totals = validate_class_weights(image_pixels, len(pixels), "image_pixels")
    if any(n > total for n, total in zip(pixels, totals, strict=True)):
        raise LossError(f"image_pixels must be no fewer than those of the class, got {totals} for {pixels}")
    return [n / total if n else 0.0 for n, total in zip(pixels, totals, strict=True)]


def _scale_to_mean_1(weights: list[float]) -> list[float]:
    """Return the weights scaled to mean 1 over those that are not 0."""
    scale = sum(1 for w in weights if w > 0) / sum(weights)
    return [scale * w for w in weights]
