"""Rasters through rasterio: what a file holds, its pixels window by window, and which of them are valid."""

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

from geo_seg.errors import DataError, did_you_mean
from geo_seg.raster.band_names import match_bands
from geo_seg.raster.paths import open_source
from geo_seg.raster.validity import Validity, mask_from_flags, nodata_as_pixel
from geo_seg.tiling import Window

Band = int | str


@dataclass(frozen=True)
class RasterInfo:
    """The header of a raster.

    Attributes:
        path: the file, or anything else that GDAL opens.
        width: columns.
        height: rows.
        bands: 1-based numbers of the bands that hold data (an alpha band does not).
        dtype: NumPy name of the narrowest type that holds all of these bands.
        crs: coordinate reference system as WKT, or None.
        transform: the six coefficients a, b, c, d, e, f of the affine transform from (column, row) to
            map coordinates, or None without georeference.
        nodata: per data band the value that means "no measurement", as pixels hold it, or None.
        names: per data band its description, or "".
        block: rows and columns of the blocks that the file is read in.
        masks: per data band the band whose mask says which of its pixels are valid: one for all in most
            files; 0 for none. Alpha bands are none of them.
        palette: whether the values of its one data band stand for colours.
        alpha: 1-based numbers of its alpha bands.
        scales: per data band what its values are multiplied with to give what they mean; they are read as
            they are stored.
        offsets: per data band what is then added.
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

    @property
    def transparent(self) -> int:
        """The alpha band that says which pixels are valid; 0 for none."""
        return self.alpha[0] if self.alpha and self.alpha != self.bands else 0

    @property
    def masked(self) -> bool:
        """Whether a mask band or an alpha band says which pixels are valid."""
        return any(self.masks) or bool(self.transparent)


class RasterReader:
    """One open raster, read in windows. A handle belongs to one thread.

    A pixel is valid unless a mask band or alpha band says otherwise, any band holds its nodata value (see
    geo_seg.raster.validity: as GDAL compares it), or any band is NaN, infinite or beyond LARGEST. Zero is a
    measurement as well as the usual nodata value, so a pixel is nodata at 0 only where all the bands are 0.
    An alpha band that is asked for is a measurement: GDAL marks near infrared so that is written as the
    fourth band of uint8.

    Attributes:
        validity: decides that, and counts strays.

    Args:
        path: the file, or anything else that GDAL opens (VRT, /vsicurl/ ...).
        bands: 1-based numbers or names, in the order wanted; None takes every data band.
        nodata: overrides the value that the file declares.
        zero_is_nodata: a pixel whose bands are all 0 is nodata, whatever else is.
        whole: all pixels are known to be valid.

    Raises:
        DataError: the file can't be opened, is no raster of real numbers, or has no such band.
    """

    def __init__(
        self,
        path: str | Path,
        bands: Sequence[Band] | None = None,
        nodata: float | None = None,
        zero_is_nodata: bool = False,
        whole: bool = False,
    ) -> None:
        self._source = open_source(path)
        self.info = _header(self._source, str(path))
        self.bands = resolve_bands(self.info, bands)
        declared = dict(zip(self.info.bands, self.info.nodata, strict=True))
        types = [self._source.dtypes[band - 1] for band in self.bands]
        self.nodata = tuple(
            declared.get(band) if nodata is None else nodata_as_pixel(nodata, kind)
            for band, kind in zip(self.bands, types, strict=True)
        )
        self._whole = whole
        masks = dict(zip(self.info.bands, self.info.masks, strict=True))
        self.validity = Validity(
            self._source,
            self.nodata,
            types,
            zero_is_nodata,
            masks={masks.get(band, 0) for band in self.bands} - {0},
            alpha=0 if self.info.transparent in self.bands else self.info.transparent,
        )

    def read(self, window: Window, own: Window | None = None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Reads a window, which may reach past the raster.

        Args:
            window: rows and columns of the raster.
            own: the part of it in which strays are counted; None is all of it.

        Returns:
            image: (bands, height, width) in the file's own dtype; 0 outside the raster.
            valid: (height, width), False for nodata and outside the raster.

        Raises:
            DataError: the file is truncated or corrupt there.
        """
        image = np.empty((len(self.bands), window.height, window.width), self.info.dtype)
        valid = np.empty((window.height, window.width), bool)
        self.read_into(window, image, valid, own)
        return image, valid

    def read_into(
        self,
        window: Window,
        image: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        own: Window | None = None,
    ) -> None:
        """Reads a window, which may reach past the raster, into arrays that are there already.

        Args:
            window: rows and columns of the raster.
            image: (bands, height, width) of a type that holds the file's values; 0 outside the raster.
            valid: (height, width), False for nodata and outside the raster; None if nobody asks.
            own: as of read.

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
            if self._whole:
                valid[rows, cols] = True
                return
            counted = own or window
            apart = Window(counted.row - top, counted.col - left, counted.height, counted.width)
            valid[rows, cols] = self.validity.of(pixels, part, apart)
        except RasterioError as error:
            raise DataError(
                f"{self.info.path}: rows {top}-{bottom - 1}, columns {left}-{right - 1} cannot be read; the "
                f"file is truncated or corrupt ({error.__cause__ or error})"
            ) from error

    @property
    def needs_decoding(self) -> bool:
        """Whether a window costs more than its bytes: compressed, in strips, or not a GeoTIFF at all."""
        height, width = self._source.block_shapes[0]
        striped = width == self.info.width and height < self.info.height
        return self._source.driver != "GTiff" or self._source.compression is not None or striped

    @property
    def tags(self) -> dict[str, str]:
        """Metadata of the file."""
        return dict(self._source.tags())

    def close(self) -> None:
        """Closes the file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_info(path: str | Path) -> RasterInfo:
    """Reads the header of a raster.

    Raises:
        DataError: the file can't be opened.
    """
    with RasterReader(path) as reader:
        return reader.info


def resolve_bands(info: RasterInfo, bands: Sequence[Band] | None) -> tuple[int, ...]:
    """Band numbers for a choice of numbers and names.

    Args:
        info: the raster's header.
        bands: 1-based numbers, or names, which are matched as band_names.match does; None takes every data
            band.

    Raises:
        DataError: the raster has no such band.
    """
    if bands is None:
        return info.bands
    places = match_bands([band if isinstance(band, str) else "" for band in bands], info.names)
    found = []
    for band, place in zip(bands, places, strict=True):
        if place is not None:
            found.append(info.bands[place])
        elif isinstance(band, int) and band in (*info.bands, *info.alpha):
            found.append(band)
        else:
            named = [name for name in info.names if name]
            names = ", ".join(named) or "none"
            hint = f"; {did_you_mean(band, named)}" if isinstance(band, str) and named else ""
            raise DataError(
                f"{info.path}: no band {band!r}; it has {len(info.bands)} "
                f"(numbers {info.bands[0]} to {info.bands[-1]}, names: {names}){hint}"
            )
    return tuple(found)


def _header(source: Any, path: str) -> RasterInfo:
    kinds = dict(zip(source.indexes, source.colorinterp, strict=True))
    alpha = tuple(band for band, kind in kinds.items() if kind == ColorInterp.alpha)
    bands = tuple(band for band in kinds if band not in alpha) or alpha
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
        palette=len(bands) == 1 and kinds[bands[0]] == ColorInterp.palette,
        alpha=alpha,
        scales=tuple(source.scales[b - 1] for b in bands),
        offsets=tuple(source.offsets[b - 1] for b in bands),
        types=types,
    )
