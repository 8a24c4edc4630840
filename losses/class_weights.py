"""Class weights from how often the classes occur."""

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from torch import Tensor

from losses.errors import LossError, did_you_mean


def validate_class_weights(values: Any, length: int, what: str) -> tuple[float, ...]:
    """A tuple of one number per class: finite, not negative, not all 0; anything else is a LossError."""
    if isinstance(values, Tensor):
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise LossError(f"{what} must be a list of {length} numbers, got {values!r}")
    numbers = list(values)
    if len(numbers) != length:
        raise LossError(f"{what} must be one number for each of {length} classes, got {numbers}")
    if not all(_is_weight(v) for v in numbers) or not any(numbers):
        raise LossError(f"{what} must be finite, not negative and not all 0, got {numbers}")
    return tuple(numbers)


def _is_weight(value: object) -> bool:
    number = isinstance(value, float | int) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0  # type: ignore[arg-type,operator]


METHODS = ("inverse", "median", "effective")
BETA = 0.999999
"""Of effective, unless said otherwise."""


def class_weights(
    counts: Sequence[int],
    method: str = "inverse",
    *,
    beta: float = BETA,
    cap: float | None = None,
    image_pixels: Sequence[int] | None = None,
) -> list[float]:
    """Weights that make rare classes count more.

    With n_c the pixels of class c, n their sum and K the number of classes that occur:

    * inverse: w_c = n / (K n_c);
    * median: w_c = median(f_k) / f_c over the classes that occur, f_c being n_c divided by the pixels of the
      images that hold class c alone (Eigen and Fergus 2015, arXiv 1411.4734): a class that is common where it
      occurs at all isn't rare;
    * effective: w_c proportional to (1 - beta) / (1 - beta^n_c), with mean 1 over the classes that occur
      (Cui et al. 2019, arXiv 1901.05555). The samples are pixels here, so beta has to be much closer to 1
      than for images: 1 / (1 - beta) is the number of pixels from which on more of them say nothing new.

    Args:
        counts: pixels per class.
        method: "inverse", "median" or "effective".
        beta: of effective, in [0, 1).
        cap: the largest weight may be this many times the smallest; larger ones are cut to it, and then all
            are scaled to mean 1 over the classes that occur. None leaves the formula as it is.
        image_pixels: of median: per class, the pixels of all images that hold it, the class among them.

    Returns:
        One weight per class, 0 for a class that does not occur.

    Raises:
        LossError: no pixels at all, an unknown method, beta or cap out of range, median without image_pixels
            or with fewer than the class has.
    """
    numbers = validate_class_weights(counts, len(counts), "class counts")
    if method not in METHODS:
        raise LossError(f"unknown class weights {method!r}{did_you_mean(method, METHODS)}")
    if not 0 <= beta < 1:
        raise LossError(f"beta must be in [0, 1), got {beta}")
    if cap is not None and cap < 1:
        raise LossError(f"cap is the ratio of largest to smallest weight, at least 1, got {cap}")
    present = [n for n in numbers if n > 0]
    if method == "inverse":
        scale = sum(present) / len(present)
        weights = [scale / n if n else 0.0 for n in numbers]
    elif method == "median":
        shares = _shares(numbers, image_pixels)
        middle = median(share for share in shares if share > 0)
        weights = [middle / share if share else 0.0 for share in shares]
    else:
        weights = _mean_one([(1 - beta) / (1 - beta**n) if n else 0.0 for n in numbers])
    if cap is None:
        return weights
    ceiling = cap * min(w for w in weights if w > 0)
    return _mean_one([min(w, ceiling) for w in weights])


def _shares(numbers: Sequence[float], image_pixels: Sequence[int] | None) -> list[float]:
    """How much of the images that hold a class it takes, per class."""
    if image_pixels is None:
        raise LossError(
            "class weights 'median' need image_pixels: per class, the pixels of images that hold it"
        )
    held = validate_class_weights(image_pixels, len(numbers), "image_pixels")
    if any(part > whole for part, whole in zip(numbers, held, strict=True)):
        raise LossError(f"image_pixels must be no fewer than those of the class, got {held} for {numbers}")
    return [part / whole if part else 0.0 for part, whole in zip(numbers, held, strict=True)]


def _mean_one(weights: list[float]) -> list[float]:
    scale = sum(1 for w in weights if w > 0) / sum(weights)
    return [scale * w for w in weights]
