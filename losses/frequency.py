"""Class weights from how often the classes occur."""

from collections.abc import Sequence
from statistics import median

from losses.registry import LossError, checked_weights, nearest

METHODS = ("inverse", "median", "effective")


def class_weights(
    counts: Sequence[int], method: str = "inverse", *, beta: float = 0.999999, cap: float | None = None
) -> list[float]:
    """Weights that make rare classes count more.

    With n_c the pixels of class c, n their sum and K the number of classes that occur:

    * inverse: w_c = n / (K n_c);
    * median: w_c = median(n_k) / n_c over the classes that occur (Eigen and Fergus 2015, arXiv 1411.4734);
    * effective: w_c proportional to (1 - beta) / (1 - beta^n_c), with mean 1 over the classes that occur
      (Cui et al. 2019, arXiv 1901.05555). The samples are pixels here, so beta has to be much closer to 1
      than for images: 1 / (1 - beta) is the number of pixels from which on more of them say nothing new.

    Args:
        counts: pixels per class.
        method: "inverse", "median" or "effective".
        beta: of effective, in [0, 1).
        cap: the largest weight may be this many times the smallest; larger ones are cut to it, and then all
            are scaled to mean 1 over the classes that occur. None leaves the formula as it is.

    Returns:
        One weight per class, 0 for a class that does not occur.

    Raises:
        LossError: no pixels at all, an unknown method, beta or cap out of range.
    """
    numbers = checked_weights(counts, len(counts), "class counts")
    if method not in METHODS:
        raise LossError(f"unknown class weights {method!r}{nearest(method, METHODS)}")
    if not 0 <= beta < 1:
        raise LossError(f"beta must be in [0, 1), got {beta}")
    if cap is not None and cap < 1:
        raise LossError(f"cap is the ratio of largest to smallest weight, at least 1, got {cap}")
    present = [n for n in numbers if n > 0]
    if method == "inverse":
        scale = sum(present) / len(present)
        weights = [scale / n if n else 0.0 for n in numbers]
    elif method == "median":
        middle = median(present)
        weights = [middle / n if n else 0.0 for n in numbers]
    else:
        weights = _mean_one([(1 - beta) / (1 - beta**n) if n else 0.0 for n in numbers])
    if cap is None:
        return weights
    ceiling = cap * min(w for w in weights if w > 0)
    return _mean_one([min(w, ceiling) for w in weights])


def _mean_one(weights: list[float]) -> list[float]:
    scale = sum(1 for w in weights if w > 0) / sum(weights)
    return [scale * w for w in weights]
