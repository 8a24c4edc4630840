"""Predicting at another resolution than the raster's: windows become smaller or larger, logits go back."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from geo_seg.errors import DataError
from geo_seg.raster.reader import RasterInfo
from geo_seg.tiling import OUTPUT_STRIDE, Axis, BlendSpec, Grid, place_windows

_UNITS = (OUTPUT_STRIDE, 2 * OUTPUT_STRIDE, 4 * OUTPUT_STRIDE)
_CLOSE = 0.005  # relative error of the resolution, for which a longer unit isn't tried
_MOST = 32  # times that a resolution may be coarser or finer than the raster's
_TRACE = 1e-4  # share of valid pixels below which there is nothing to average


@dataclass(frozen=True)
class ResolutionScale:
    """How many pixels of a raster become how many of the model's.

    Windows begin and end at multiples of a unit, so that they lie on the output stride of the model and on
    whole pixels of the raster at once.

    Attributes:
        rows: of the raster in a unit.
        cols: of the raster in a unit.
        unit: rows and columns of the model in a unit, a multiple of the stride.
    """

    rows: int = OUTPUT_STRIDE
    cols: int = OUTPUT_STRIDE
    unit: int = OUTPUT_STRIDE

    @property
    def is_identity(self) -> bool:
        """Whether the model sees the raster's own pixels."""
        return self.rows == self.cols == self.unit

    @property
    def pixel_ratio(self) -> float:
        """Pixels of the model for a pixel of the raster."""
        return self.unit**2 / (self.rows * self.cols)

    @property
    def max_downsampling(self) -> float:
        """Pixels of the raster along a side of a pixel of the model, at most."""
        return max(self.rows, self.cols) / self.unit

    def grid(self, info: RasterInfo, window: int, seams: BlendSpec) -> Grid:
        """Windows over a raster, in its own pixels.

        Args:
            info: the raster's header.
            window: largest side in pixels of the model.
            seams: in pixels of the model.
        """
        rows = self._axis(info.height, self.rows, window, seams)
        return Grid(rows, self._axis(info.width, self.cols, window, seams))

    def _axis(self, length: int, step: int, window: int, seams: BlendSpec) -> Axis:
        margin, overlap = (math.ceil(n * step / self.unit) for n in (seams.margin, seams.overlap))
        near = BlendSpec(margin, overlap, seams.blend)
        units = max(window // self.unit, 1 + math.ceil(near.shared / step))
        return place_windows(length, units * step, near, step)

    def model_shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the model for whole units of the raster's."""
        return height // self.rows * self.unit, width // self.cols * self.unit

    def apply(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Makes pixels of the model out of the valid pixels of a window.

        Args:
            image: (bands, height, width), whole units.
            valid: (height, width).

        Returns:
            The same at the model's resolution, in float32, unless that is the raster's.
        """
        if self.is_identity:
            return image, valid
        size = self.model_shape(*valid.shape)
        inside = torch.from_numpy(valid.astype(np.float32))
        # what is nodata may hold anything, NaN too; it takes no part in the mean
        pixels = torch.from_numpy(np.where(valid, image, 0).astype(np.float32))
        both = torch.cat([pixels, inside[None]])[None]
        means = interpolate(both, size, mode="bilinear", align_corners=False, antialias=True)[0]
        there = means[-1] > _TRACE
        return (means[:-1] / means[-1].clamp(min=_TRACE)).numpy(), there.numpy()

    def inverse(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Logits (N, channels, ...) of a window, on the pixels of the raster."""
        if self.is_identity:
            return logits
        return interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)


def scale_for(info: RasterInfo, resolution: float | None) -> ResolutionScale:
    """The scale at which a model sees pixels of a size.

    Args:
        info: the raster's header.
        resolution: side of the model's pixels in map units; None for the raster's own.

    Raises:
        DataError: the raster has no georeference, or its pixels are of quite another size.
    """
    if resolution is None:
        return ResolutionScale()
    if info.transform is None:
        raise DataError(
            f"resolution={resolution:g}: {info.path} has no georeference, so that its pixels have no size; "
            "leave it out"
        )
    a, b, _, d, e, _ = info.transform
    ratios = [resolution / size for size in (math.hypot(b, e), math.hypot(a, d))]
    if not all(1 / _MOST <= ratio <= _MOST for ratio in ratios):
        raise DataError(
            f"resolution={resolution:g}: the pixels of {info.path} are {math.hypot(a, d):g} x "
            f"{math.hypot(b, e):g} map units; expected at most {_MOST} times more or less"
        )
    for unit in _UNITS:
        rows, cols = (max(round(unit * ratio), 1) for ratio in ratios)
        found = ResolutionScale(rows, cols, unit)
        errors = [abs(n / (unit * ratio) - 1) for n, ratio in zip((rows, cols), ratios, strict=True)]
        if max(errors) <= _CLOSE:
            break
    return found
