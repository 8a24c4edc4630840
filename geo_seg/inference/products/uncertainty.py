"""Uncertainty of the probabilities: margin and entropy."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.config.inference import InferenceConfig
from geo_seg.inference.products.product import register_product
from geo_seg.inference.products.unit_values import UnitRaster
from geo_seg.prediction.decode import BlendedRows


@register_product
class Uncertainty(UnitRaster):
    """Margin between the two most probable classes, and entropy relative to its maximum.

    Certain pixels have a margin of 1 and an entropy of 0.
    """

    suffix = "_uncertainty.tif"

    @classmethod
    def of(cls, config: InferenceConfig, checkpoints: Sequence[Checkpoint]) -> Self | None:
        """Return it for uncertainty=true."""
        bands = ("margin", "entropy")
        return cls(cls.spec_of(bands, config.probability_type, checkpoints)) if config.uncertainty else None

    def rows(self, blended: BlendedRows) -> NDArray[Any]:
        """Return margin and entropy."""
        probabilities = blended.probabilities
        top = probabilities.max(dim=0)
        without_top = probabilities.scatter(0, top.indices[None], -1.0)
        entropy = torch.special.entr(probabilities.clamp(0, 1)).sum(dim=0) / float(np.log(len(probabilities)))
        return self.stored(torch.stack([top.values - without_top.max(dim=0).values, entropy]))
