"""The grid of a raster: CRS, affine transform and shape."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import rasterio.windows
from rasterio.errors import RasterioError

from geo_seg.errors import DataError


@dataclass(frozen=True)
class GeoBox:
    """Where a raster's pixels lie.

    Attributes:
        width: columns.
        height: rows.
        crs: coordinate reference system of rasterio, or None.
        transform: affine transform of rasterio; the identity without georeference.
        dropped: what the raster says of its place beyond that, and no map takes over; "" for nothing.
    """

    width: int
    height: int
    crs: Any
    transform: Any
    dropped: str

    @classmethod
    def from_raster(cls, path: str | Path) -> Self:
        """Reads it from a raster.

        Raises:
            DataError: the raster can't be opened.
        """
        try:
            with rasterio.open(path) as source:
                found = (("ground control points", source.gcps[0]), ("RPCs", source.rpcs))
                ignored = " and ".join(name for name, content in found if content)
                return cls(source.width, source.height, source.crs, source.transform, ignored)
        except RasterioError as error:
            raise DataError(f"{path}: cannot be opened as a raster ({error})") from error
