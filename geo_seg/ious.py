"""Mean intersection over union of counts, without torch: of windows, of draws, of a sweep's runs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mean_ious(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Mean IoU over the classes that the labels have.

    Args:
        counts: (..., 3, classes) right, labelled and predicted pixels.

    Returns:
        (...) values, 0 where there is no label at all.
    """
    right, labelled, predicted = (counts[..., row, :].astype(float) for row in range(3))
    iou = right / np.maximum(labelled + predicted - right, 1)
    present = labelled > 0
    found: NDArray[np.float64] = (iou * present).sum(-1) / np.maximum(present.sum(-1), 1)
    return found
