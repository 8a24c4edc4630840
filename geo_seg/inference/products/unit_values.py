"""Storage of numbers from 0 to 1, such as probabilities, in the type that probability_type names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.inference.products.product import PredictedRaster, raster_tags
from geo_seg.raster.cog import RasterSpec

SCALE = 254
"""Stored value of 1 in 8-bit rasters; 255 is nodata."""

_NODATA = 255


class UnitRaster(PredictedRaster):
    """A raster of numbers from 0 to 1."""

    @classmethod
    def spec_of(cls, bands: tuple[str, ...], dtype: str, checkpoints: Sequence[Checkpoint]) -> RasterSpec:
        """Return the spec of a raster; dtype is that of probability_type."""
        tags = raster_tags(checkpoints)
        if dtype == "uint8":
            return RasterSpec(cls.suffix, dtype, _NODATA, bands, (), (), 1 / SCALE, tags)
        # GeoTIFF stores half floats as float32 with 16 bits; GDAL has a type for them only since 3.11
        return RasterSpec(cls.suffix, "float32", float("nan"), bands, (), (), 1, tags, dtype == "float16")

    def stored(self, values: Tensor) -> NDArray[Any]:
        """Return numbers from 0 to 1 in the stored type."""
        if np.dtype(self.spec.dtype) == np.uint8:
            return (values * SCALE).round_().clamp_(0, SCALE).to(torch.uint8).cpu().numpy()
        return values.clamp(0, 1).cpu().numpy()
