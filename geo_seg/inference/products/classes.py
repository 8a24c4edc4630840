"""The class raster: ids of the most probable classes."""

from collections.abc import Sequence
from typing import Any, Self

from numpy.typing import NDArray

from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.config.inference import InferenceConfig
from geo_seg.inference.products.product import CLASSES, PredictedRaster, raster_tags, register_product
from geo_seg.prediction.decode import BlendedRows
from geo_seg.raster.cog import RasterSpec


@register_product
class Classes(PredictedRaster):
    """The class of each pixel."""

    suffix = CLASSES

    @classmethod
    def of(cls, config: InferenceConfig, checkpoints: Sequence[Checkpoint]) -> Self:
        """Return it for every map, with the colours of the first checkpoint."""
        names, colors = checkpoints[0].class_names, checkpoints[0].class_colors
        nodata, dtype = class_dtype(len(names))
        tags = raster_tags(checkpoints)
        return cls(RasterSpec(cls.suffix, dtype, nodata, ("class",), names, colors, 1, tags))

    def rows(self, blended: BlendedRows) -> NDArray[Any]:
        """Return the class ids."""
        return blended.classes[None]

    @property
    def bytes_per_pixel(self) -> int:
        """None: estimate_part_bytes counts the ids with the decoding."""
        return 0


def class_dtype(num_classes: int) -> tuple[int, str]:
    """Return nodata and dtype of a class raster: the narrowest dtype with a value that is no class."""
    return (255, "uint8") if num_classes <= 255 else (65535, "uint16")
