"""Output values of a map: class ids, probabilities and uncertainty decoded from blended probabilities."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.prediction.tta import decode_probabilities

SCALE = 254
"""Stored value of probability 1 in 8-bit rasters; 255 is nodata."""

UNCERTAINTY = ("margin", "entropy")
"""Bands of the uncertainty raster."""


@dataclass(frozen=True)
class OutputOptions:
    """Options for the rasters that are written beside the class raster.

    Attributes:
        probabilities: "none", "top" (probability of the predicted class) or "all" (one band per class).
        uncertainty: whether margin and entropy are written.
        dtype: type of the stored values: "uint8" (scaled by SCALE), "float16" or "float32".
    """

    probabilities: str = "none"
    uncertainty: bool = False
    dtype: str = "uint8"

    def bytes_per_pixel(self, classes: int) -> int:
        """Return the bytes per pixel that are buffered until they are written, class ids excluded.

        Args:
            classes: number of classes.
        """
        bands = {"none": 0, "top": 1, "all": classes}[self.probabilities]
        return (bands + len(UNCERTAINTY) * self.uncertainty) * (1 if self.dtype == "uint8" else 4)


@dataclass(frozen=True)
class OutputRows:
    """Finished rows of a map.

    Attributes:
        classes: (rows, width) class ids as integers.
        valid: (rows, width), False for nodata.
        probabilities: (bands, rows, width) in the stored dtype; no bands if they are not written.
        uncertainty: (2 or 0, rows, width), margin and entropy likewise.
    """

    classes: NDArray[Any]
    valid: NDArray[np.bool_]
    probabilities: NDArray[Any]
    uncertainty: NDArray[Any]


def decode_rows(
    sums: Tensor, valid: NDArray[np.bool_], binary: bool, threshold: float, options: OutputOptions
) -> OutputRows:
    """Decode blended probabilities into the values of all output rasters.

    Args:
        sums: (classes, rows, width) blended probabilities.
        valid: (rows, width), False for nodata.
        binary: whether the task is binary, so that the threshold applies.
        threshold: probability above which a pixel is foreground.
        options: the rasters to write.
    """
    ids, confidence = decode_probabilities(sums, binary, threshold)
    written = {"none": sums[:0], "top": confidence[None], "all": sums}[options.probabilities]
    uncertainty = _uncertainty(sums) if options.uncertainty else sums[:0]
    id_dtype = torch.uint8 if len(sums) <= 256 else torch.int32
    return OutputRows(
        ids.to(id_dtype).cpu().numpy(),
        valid.copy(),
        _to_stored_dtype(written, options.dtype),
        _to_stored_dtype(uncertainty, options.dtype),
    )


def _uncertainty(probabilities: Tensor) -> Tensor:
    """Return the margin between the two most probable classes, and the normalized entropy.

    Args:
        probabilities: (classes, rows, width).

    Returns:
        (2, rows, width) in [0, 1]: margin (1: certain) and entropy relative to its maximum (0: certain).
    """
    top = probabilities.max(dim=0)
    without_top = probabilities.scatter(0, top.indices[None], -1.0)
    entropy = torch.special.entr(probabilities.clamp(0, 1)).sum(dim=0) / float(np.log(len(probabilities)))
    return torch.stack([top.values - without_top.max(dim=0).values, entropy])


def _to_stored_dtype(values: Tensor, dtype: str) -> NDArray[Any]:
    if dtype == "uint8":
        return (values * SCALE).round_().clamp_(0, SCALE).to(torch.uint8).cpu().numpy()
    return values.clamp(0, 1).cpu().numpy()
