"""What is written of a map, decided from the blended probabilities of some rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.prediction.tta import decode_probabilities

SCALE = 254
"""Probability 1 in 8-bit rasters of probabilities; 255 is left for nodata."""

UNCERTAINTY = ("margin", "entropy")
"""Bands of the raster of uncertainty."""


@dataclass(frozen=True)
class OutputOptions:
    """What of the probabilities is written beside the classes, and how.

    Attributes:
        probabilities: "none", "top" (of the chosen class) or "all".
        uncertainty: whether margin and entropy are.
        kind: "uint8" (times SCALE), "float16" or "float32".
    """

    probabilities: str = "none"
    uncertainty: bool = False
    kind: str = "uint8"

    def bytes_per_pixel(self, classes: int) -> int:
        """That wait in memory to be written.

        Args:
            classes: number of classes.
        """
        bands = {"none": 0, "top": 1, "all": classes}[self.probabilities]
        return (bands + len(UNCERTAINTY) * self.uncertainty) * (1 if self.kind == "uint8" else 4)


@dataclass(frozen=True)
class OutputRows:
    """Finished rows of a map.

    Attributes:
        classes: (rows, width) class ids as integers.
        valid: (rows, width), False for nodata.
        probabilities: (bands, rows, width) as they are stored; no bands unless asked for.
        uncertainty: the same of margin and entropy.
    """

    classes: NDArray[Any]
    valid: NDArray[np.bool_]
    probabilities: NDArray[Any]
    uncertainty: NDArray[Any]


def decode_rows(
    sums: Tensor, valid: NDArray[np.bool_], binary: bool, threshold: float, shown: OutputOptions
) -> OutputRows:
    """Chooses classes, and makes what else is shown.

    Args:
        sums: (classes, rows, width) probabilities, blended.
        valid: (rows, width).
        binary: whether the threshold decides.
        threshold: probability above which a pixel is foreground.
        shown: what is written.
    """
    ids, sure = decode_probabilities(sums, binary, threshold)
    picked = {"none": sums[:0], "top": sure[None], "all": sums}[shown.probabilities]
    unsure = _uncertainty(sums) if shown.uncertainty else sums[:0]
    small = torch.uint8 if len(sums) <= 256 else torch.int32
    return OutputRows(
        ids.to(small).cpu().numpy(), valid.copy(), _stored(picked, shown.kind), _stored(unsure, shown.kind)
    )


def _uncertainty(probabilities: Tensor) -> Tensor:
    """How much more probable the first class is than the second, and the entropy as a share of the largest.

    Args:
        probabilities: (classes, rows, width).

    Returns:
        (2, rows, width) from 0 to 1: margin, 1 where the model is sure; entropy, 0 where it is.
    """
    best = probabilities.max(dim=0)
    others = probabilities.scatter(0, best.indices[None], -1.0)
    entropy = torch.special.entr(probabilities.clamp(0, 1)).sum(dim=0) / float(np.log(len(probabilities)))
    return torch.stack([best.values - others.max(dim=0).values, entropy])


def _stored(values: Tensor, kind: str) -> NDArray[Any]:
    if kind == "uint8":
        return (values * SCALE).round_().clamp_(0, SCALE).to(torch.uint8).cpu().numpy()
    return values.clamp(0, 1).cpu().numpy()
