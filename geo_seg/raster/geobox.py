"""The grid of a raster: CRS, affine transform and shape."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import rasterio.windows
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from geo_seg.errors import DataError


@dataclass(frozen=True)
class GeoBox:
    """Grid of a raster.

    Attributes:
        width: columns.
        height: rows.
        crs: coordinate reference system of rasterio, or None.
        transform: affine transform of rasterio; the identity without georeference.
        dropped: other georeference of the raster that maps do not keep, such as RPCs; "" for none.
    """

    width: int
    height: int
    crs: CRS | None
    transform: Affine
    dropped: str

    @classmethod
    def from_raster(cls, path: str | Path) -> Self:
        """Return the grid of a raster file.

        Raises:
            DataError: the raster can't be opened.
        """
        try:
            with rasterio.open(path) as source:
                others = (("ground control points", source.gcps[0]), ("RPCs", source.rpcs))
                dropped = " and ".join(name for name, content in others if content)
                return cls(source.width, source.height, source.crs, source.transform, dropped)
        except RasterioError as error:
            raise DataError(f"{path}: cannot be opened as a raster ({error})") from error
