"""Finished rows of a map: blended probabilities, and the classes decoded from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.prediction.tta import decode_probabilities


@dataclass(frozen=True)
class BlendedRows:
    """Finished rows of a map.

    Attributes:
        probabilities: (classes, rows, width) on the device; a view, valid until the next rows.
        confidence: (rows, width) probability of the class.
        classes: (rows, width) class ids as integers.
        valid: (rows, width), False for nodata.
    """

    probabilities: Tensor
    confidence: Tensor
    classes: NDArray[Any]
    valid: NDArray[np.bool_]


def decode_rows(sums: Tensor, valid: NDArray[np.bool_], binary: bool, threshold: float) -> BlendedRows:
    """Decode blended probabilities.

    Args:
        sums: (classes, rows, width) blended probabilities.
        valid: (rows, width), False for nodata.
        binary: whether the task is binary, so that the threshold applies.
        threshold: probability above which a pixel is foreground.
    """
    ids, confidence = decode_probabilities(sums, binary, threshold)
    id_dtype = torch.uint8 if len(sums) <= 256 else torch.int32
    return BlendedRows(sums, confidence, ids.to(id_dtype).cpu().numpy(), valid.copy())
