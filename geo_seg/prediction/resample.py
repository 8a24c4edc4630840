"""Prediction at another resolution: windows are resampled for the model, logits back to the raster."""

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

_UNIT_CANDIDATES = (OUTPUT_STRIDE, 2 * OUTPUT_STRIDE, 4 * OUTPUT_STRIDE)
_MAX_RELATIVE_ERROR = 0.005  # relative error of the resolution below which no longer unit is tried
_MAX_RATIO = 32  # maximum ratio between the resolutions of model and raster
_MIN_VALID_SHARE = 1e-4  # share of valid pixels below which a resampled pixel is nodata


@dataclass(frozen=True)
class ResolutionScale:
    """Ratio between pixels of a raster and pixels of the model.

    Windows begin and end at multiples of a unit, which is a multiple of the model's output stride and a whole
    number of pixels of the raster.

    Attributes:
        rows: rows of the raster per unit.
        cols: columns of the raster per unit.
        unit: rows and columns of the model per unit, a multiple of the output stride.
    """

    rows: int = OUTPUT_STRIDE
    cols: int = OUTPUT_STRIDE
    unit: int = OUTPUT_STRIDE

    @property
    def is_identity(self) -> bool:
        """Whether the model works at the resolution of the raster."""
        return self.rows == self.cols == self.unit

    @property
    def pixel_ratio(self) -> float:
        """Pixels of the model per pixel of the raster."""
        return self.unit**2 / (self.rows * self.cols)

    @property
    def max_downsampling(self) -> float:
        """Pixels of the raster along the longer side of a pixel of the model."""
        return max(self.rows, self.cols) / self.unit

    def grid(self, info: RasterInfo, window: int, blending: BlendSpec) -> Grid:
        """Return the windows over a raster, in pixels of the raster.

        Args:
            info: the raster's header.
            window: largest side in pixels of the model.
            blending: margin and overlap in pixels of the model.
        """
        rows = self._axis(info.height, self.rows, window, blending)
        return Grid(rows, self._axis(info.width, self.cols, window, blending))

    def _axis(self, length: int, step: int, window: int, blending: BlendSpec) -> Axis:
        margin, overlap = (math.ceil(n * step / self.unit) for n in (blending.margin, blending.overlap))
        raster_blending = BlendSpec(margin, overlap, blending.blend)
        units = max(window // self.unit, 1 + math.ceil(raster_blending.shared / step))
        return place_windows(length, units * step, raster_blending, step)

    def model_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of the model for whole units of the raster."""
        return height // self.rows * self.unit, width // self.cols * self.unit

    def apply(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Resample the valid pixels of a window to the resolution of the model.

        Args:
            image: (bands, height, width), whole units.
            valid: (height, width), False for nodata.

        Returns:
            Image in float32 and validity at the model's resolution; the arguments if that is the raster's.
        """
        if self.is_identity:
            return image, valid
        size = self.model_shape(*valid.shape)
        mask = torch.from_numpy(valid.astype(np.float32))
        # nodata pixels may hold any value, NaN too; they are left out of the mean
        pixels = torch.from_numpy(np.where(valid, image, 0).astype(np.float32))
        stacked = torch.cat([pixels, mask[None]])[None]
        means = interpolate(stacked, size, mode="bilinear", align_corners=False, antialias=True)[0]
        valid_at_scale = means[-1] > _MIN_VALID_SHARE
        return (means[:-1] / means[-1].clamp(min=_MIN_VALID_SHARE)).numpy(), valid_at_scale.numpy()

    def inverse(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Resample logits (N, channels, ...) of a window to (height, width) pixels of the raster."""
        if self.is_identity:
            return logits
        return interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)


def scale_for(info: RasterInfo, resolution: float | None) -> ResolutionScale:
    """Return the scale that resamples a raster to a resolution.

    Args:
        info: the raster's header.
        resolution: side of the model's pixels in map units; None for the raster's own.

    Raises:
        DataError: the raster has no georeference, or the ratio of the resolutions is too large.
    """
    if resolution is None:
        return ResolutionScale()
    if info.transform is None:
        raise DataError(
            f"resolution={resolution:g}: {info.path} has no georeference, so that its pixels have no size; "
            "remove resolution="
        )
    a, b, _, d, e, _ = info.transform
    ratios = [resolution / size for size in (math.hypot(b, e), math.hypot(a, d))]
    if not all(1 / _MAX_RATIO <= ratio <= _MAX_RATIO for ratio in ratios):
        raise DataError(
            f"resolution={resolution:g}: the pixels of {info.path} are {math.hypot(a, d):g} x "
            f"{math.hypot(b, e):g} map units; expected at most {_MAX_RATIO} times coarser or finer"
        )
    for unit in _UNIT_CANDIDATES:
        rows, cols = (max(round(unit * ratio), 1) for ratio in ratios)
        scale = ResolutionScale(rows, cols, unit)
        errors = [abs(n / (unit * ratio) - 1) for n, ratio in zip((rows, cols), ratios, strict=True)]
        if max(errors) <= _MAX_RELATIVE_ERROR:
            break
    return scale
