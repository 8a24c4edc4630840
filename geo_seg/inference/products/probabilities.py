"""Probabilities: of the chosen class, or of all."""

from collections.abc import Sequence
from typing import Any, Self

from numpy.typing import NDArray

from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.config.inference import InferenceConfig
from geo_seg.inference.products.product import register_product
from geo_seg.inference.products.unit_values import UnitRaster
from geo_seg.prediction.decode import BlendedRows


@register_product
class Probabilities(UnitRaster):
    """A band with the probability of the class, or one for each class."""

    suffix = "_probabilities.tif"

    @classmethod
    def of(cls, config: InferenceConfig, checkpoints: Sequence[Checkpoint]) -> Self | None:
        """Return it for probabilities=top and all."""
        if config.probabilities == "none":
            return None
        bands = {"top": ("probability of the class",), "all": checkpoints[0].class_names}
        return cls(cls.spec_of(bands[config.probabilities], config.probability_type, checkpoints))

    def rows(self, blended: BlendedRows) -> NDArray[Any]:
        """Return the probabilities."""
        is_top = len(self.spec.bands) == 1  # a task has two classes or more
        return self.stored(blended.confidence[None] if is_top else blended.probabilities)
