"""Reading rasters: header, pixels window by window, and the mask of valid pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from geo_seg.errors import DataError, did_you_mean
from geo_seg.raster.band_names import match_bands
from geo_seg.raster.paths import open_source
from geo_seg.raster.validity import Validity, mask_from_flags, nodata_as_pixel
from geo_seg.tiling import Window

Band = int | str

ScaleOffset = tuple[tuple[float, float], ...]
"""Per band the factor of its stored values, and what is then added."""


@dataclass(frozen=True)
class RasterInfo:
    """The header of a raster.

    Attributes:
        path: the file, or anything else that GDAL opens.
        width: columns.
        height: rows.
        bands: 1-based numbers of the bands that hold data (an alpha band does not).
        dtype: NumPy name of the smallest type for all of these bands.
        crs: coordinate reference system as WKT, or None.
        transform: a, b, c, d, e, f of the affine transform, or None without georeference.
        nodata: per data band its nodata value in the type of its pixels, or None.
        names: per data band its description, or "".
        block: rows and columns of the file's blocks.
        masks: per data band the number of the band whose mask applies to it; 0 for none, or an alpha band.
        palette: whether the values of its one data band are indices of a palette.
        alpha: 1-based numbers of its alpha bands.
        scales: per data band the factor of its values, which are read as stored.
        offsets: per data band the offset that is then added.
        types: per data band NumPy's name of its type.
    """

    path: str
    width: int
    height: int
    bands: tuple[int, ...]
    dtype: str
    crs: str | None
    transform: tuple[float, ...] | None
    nodata: tuple[float | None, ...]
    names: tuple[str, ...]
    block: tuple[int, int]
    masks: tuple[int, ...]
    palette: bool
    alpha: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    types: tuple[str, ...] = ()

    def scale_offset(self, bands: Sequence[int]) -> ScaleOffset:
        """Return the declared scale and offset of each of some bands; 1 and 0 where none is declared."""
        declared = dict(zip(self.bands, zip(self.scales, self.offsets, strict=True), strict=False))
        return tuple(declared.get(band, (1.0, 0.0)) for band in bands)

    @property
    def transparent(self) -> int:
        """Number of the alpha band that decides which pixels are valid; 0 for none."""
        return self.alpha[0] if self.alpha and self.alpha != self.bands else 0

    @property
    def masked(self) -> bool:
        """Whether a mask band or an alpha band says which pixels are valid."""
        return any(self.masks) or bool(self.transparent)


class RasterReader:
    """One open raster, read in windows; for use in one thread.

    A pixel is invalid if a mask or alpha band marks it, any band has its nodata value (see validity), or
    any band is NaN, infinite or beyond LARGEST. Zero is a measurement as well as the usual nodata value: it
    is nodata only where all bands are 0. An alpha band that is read is a measurement: GDAL takes near
    infrared for alpha in the fourth band of uint8.

    Attributes:
        validity: computes the mask of valid pixels, and counts strays.

    Args:
        path: the file, or anything else that GDAL opens (VRT, /vsicurl/ ...).
        bands: 1-based numbers or names, in output order; None for all data bands.
        nodata: overrides the nodata value of the file.
        zero_is_nodata: pixels whose bands are all 0 are nodata, too.
        all_valid: all pixels are known to be valid.

    Raises:
        DataError: the file can't be opened, is no raster of real numbers, or has no such band.
    """

    def __init__(
        self,
        path: str | Path,
        bands: Sequence[Band] | None = None,
        nodata: float | None = None,
        zero_is_nodata: bool = False,
        all_valid: bool = False,
    ) -> None:
        self._source = open_source(path)
        self.info = _header(self._source, str(path))
        self.bands = resolve_bands(self.info, bands)
        declared = dict(zip(self.info.bands, self.info.nodata, strict=True))
        types = [self._source.dtypes[band - 1] for band in self.bands]
        self.nodata = tuple(
            declared.get(band) if nodata is None else nodata_as_pixel(nodata, dtype)
            for band, dtype in zip(self.bands, types, strict=True)
        )
        self._all_valid = all_valid
        masks = dict(zip(self.info.bands, self.info.masks, strict=True))
        self.validity = Validity(
            self._source,
            self.nodata,
            types,
            zero_is_nodata,
            masks={masks.get(band, 0) for band in self.bands} - {0},
            alpha=0 if self.info.transparent in self.bands else self.info.transparent,
        )

    def read(
        self, window: Window, stray_window: Window | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window, which may extend beyond the raster.

        Args:
            window: rows and columns of the raster.
            stray_window: the part of it in which strays are counted; None for all of it.

        Returns:
            image: (bands, height, width) in the file's own dtype; 0 outside the raster.
            valid: (height, width), False for nodata and outside the raster.

        Raises:
            DataError: the file is truncated or corrupt there.
        """
        image = np.empty((len(self.bands), window.height, window.width), self.info.dtype)
        valid = np.empty((window.height, window.width), bool)
        self.read_into(window, image, valid, stray_window)
        return image, valid

    def read_into(
        self,
        window: Window,
        image: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        stray_window: Window | None = None,
    ) -> None:
        """Read a window, which may extend beyond the raster, into existing arrays.

        Args:
            window: rows and columns of the raster.
            image: (bands, height, width) of a type for the file's values; 0 outside the raster.
            valid: (height, width), False for nodata and outside the raster; None to leave it out.
            stray_window: see read.

        Raises:
            DataError: the file is truncated or corrupt there.
        """
        top, left = max(window.row, 0), max(window.col, 0)
        bottom = min(window.row + window.height, self.info.height)
        right = min(window.col + window.width, self.info.width)
        if (bottom - top, right - left) != (window.height, window.width):
            image[...] = 0
            if valid is not None:
                valid[...] = False
            if bottom <= top or right <= left:
                return
        part = rasterio.windows.Window(left, top, right - left, bottom - top)
        rows = slice(top - window.row, bottom - window.row)
        cols = slice(left - window.col, right - window.col)
        try:
            pixels = self._source.read(self.bands, window=part, out=image[:, rows, cols])
            if valid is None:
                return
            if self._all_valid:
                valid[rows, cols] = True
                return
            counted = stray_window or window
            relative = Window(counted.row - top, counted.col - left, counted.height, counted.width)
            valid[rows, cols] = self.validity.mask(pixels, part, relative)
        except RasterioError as error:
            raise DataError(
                f"{self.info.path}: rows {top}-{bottom - 1}, columns {left}-{right - 1} cannot be read; the "
                f"file is truncated or corrupt ({error.__cause__ or error})"
            ) from error

    @property
    def needs_decoding(self) -> bool:
        """Whether reading a window costs more than its bytes: compressed, in strips, or no GeoTIFF."""
        height, width = self._source.block_shapes[0]
        striped = width == self.info.width and height < self.info.height
        return self._source.driver != "GTiff" or self._source.compression is not None or striped

    @property
    def tags(self) -> dict[str, str]:
        """Metadata of the file."""
        return dict(self._source.tags())

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_info(path: str | Path) -> RasterInfo:
    """Read the header of a raster.

    Raises:
        DataError: the file can't be opened.
    """
    with RasterReader(path) as reader:
        return reader.info


def resolve_bands(info: RasterInfo, bands: Sequence[Band] | None) -> tuple[int, ...]:
    """Return the band numbers for a choice of numbers and names.

    Args:
        info: the raster's header.
        bands: 1-based numbers, or names, see match_bands; None for all data bands.

    Raises:
        DataError: the raster has no such band.
    """
    if bands is None:
        return info.bands
    indices = match_bands([band if isinstance(band, str) else "" for band in bands], info.names)
    numbers = []
    for band, index in zip(bands, indices, strict=True):
        if index is not None:
            numbers.append(info.bands[index])
        elif isinstance(band, int) and band in (*info.bands, *info.alpha):
            numbers.append(band)
        else:
            named = [name for name in info.names if name]
            names = ", ".join(named) or "none"
            hint = f"; {did_you_mean(band, named)}" if isinstance(band, str) and named else ""
            raise DataError(
                f"{info.path}: no band {band!r}; it has {len(info.bands)} "
                f"(numbers {info.bands[0]} to {info.bands[-1]}, names: {names}){hint}"
            )
    return tuple(numbers)


def _header(source: DatasetReader, path: str) -> RasterInfo:
    interpretations = dict(zip(source.indexes, source.colorinterp, strict=True))
    alpha = tuple(band for band, color in interpretations.items() if color == ColorInterp.alpha)
    bands = tuple(band for band in interpretations if band not in alpha) or alpha
    types = tuple(source.dtypes[band - 1] for band in bands)
    referenced = source.crs is not None or not source.transform.is_identity
    return RasterInfo(
        path=path,
        width=source.width,
        height=source.height,
        bands=bands,
        dtype=str(np.result_type(*types)),
        crs=source.crs.to_wkt() if source.crs else None,
        transform=tuple(source.transform)[:6] if referenced else None,
        nodata=tuple(nodata_as_pixel(source.nodatavals[b - 1], source.dtypes[b - 1]) for b in bands),
        names=tuple(source.descriptions[b - 1] or "" for b in bands),
        block=source.block_shapes[bands[0] - 1],
        masks=tuple(mask_from_flags(source.mask_flag_enums[b - 1], b, bands[0]) for b in bands),
        palette=len(bands) == 1 and interpretations[bands[0]] == ColorInterp.palette,
        alpha=alpha,
        scales=tuple(source.scales[b - 1] for b in bands),
        offsets=tuple(source.offsets[b - 1] for b in bands),
        types=types,
    )
