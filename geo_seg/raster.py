"""Rasters through rasterio: what a file holds, its pixels window by window, and which of them are valid."""

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geo_seg.bands import match
from geo_seg.errors import DataError, nearest
from geo_seg.tiling import Window

Band = int | str

os.environ.setdefault("GDAL_HTTP_MAX_RETRY", "4")  # of remote rasters: a busy server is asked again
os.environ.setdefault("GDAL_HTTP_RETRY_DELAY", "1")  # seconds, growing

# masks and world files are asked for by name: listing a folder of thousands takes as long as all else
os.environ.setdefault("GDAL_DISABLE_READDIR_ON_OPEN", "TRUE")

# megabytes of decoded blocks that a process keeps, whatever its memory: windows are hardly ever read twice
os.environ.setdefault("GDAL_CACHEMAX", "512")

# rasters without georeference (PNG, JPG, plain TIFF) are welcome, and their maps are written the same way
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # it logs what it raises, too


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
        nodata: per data band the value that means "no measurement", or None.
        names: per data band its description, or "".
        block: rows and columns of the blocks that the file is read in.
        masked: whether a mask band or an alpha band says which pixels are valid.
        palette: whether it is one band of uint8 whose values stand for colours.
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
    masked: bool
    palette: bool
    alpha: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    types: tuple[str, ...] = ()


class RasterReader:
    """One open raster, read in windows. A handle belongs to one thread.

    A pixel is valid unless a mask band or alpha band says otherwise, any band is NaN or infinite, or any
    band holds its nodata value. Zero is a measurement as well as the usual nodata value, so a pixel is
    nodata at 0 only where all the bands are 0. An alpha band that is asked for is a measurement: GDAL marks
    near infrared so that is written as the fourth band of uint8.

    Args:
        path: the file, or anything else that GDAL opens (VRT, /vsicurl/ ...).
        bands: 1-based numbers or names, in the order wanted; None takes every data band.
        nodata: overrides the value that the file declares.
        zero_is_nodata: a pixel whose bands are all 0 is nodata, whatever else is.
        whole: all pixels are known to be valid.

    Raises:
        DataError: the file can't be opened, or has no such band.
    """

    def __init__(
        self,
        path: str | Path,
        bands: Sequence[Band] | None = None,
        nodata: float | None = None,
        zero_is_nodata: bool = False,
        whole: bool = False,
    ) -> None:
        try:
            self._source = rasterio.open(path)
        except RasterioError as error:
            reason = _absence(path) or str(error).split(": ")[-1]
            raise DataError(f"{path}: cannot be opened as a raster ({reason})") from error
        kinds = {MaskFlags.alpha, MaskFlags.per_dataset}
        masked = [bool(kinds & set(flags)) for flags in self._source.mask_flag_enums]
        self.info = _header(self._source, str(path), masked)
        self.bands = resolve_bands(self.info, bands)
        declared = dict(zip(self.info.bands, self.info.nodata, strict=True))
        self.nodata = tuple(nodata if nodata is not None else declared.get(band) for band in self.bands)
        self._whole = whole
        self._dark = zero_is_nodata or all(value == 0 for value in self.nodata)
        measured = set(self.info.alpha) & set(self.bands)
        self._mask_band = next((b for b in self.bands if masked[b - 1] and not measured), None)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Reads a window, which may reach past the raster.

        Args:
            window: rows and columns of the raster.

        Returns:
            image: (bands, height, width) in the file's own dtype; 0 outside the raster.
            valid: (height, width), False for nodata and outside the raster.

        Raises:
            DataError: the file is truncated or corrupt there.
        """
        image = np.empty((len(self.bands), window.height, window.width), self.info.dtype)
        valid = np.empty((window.height, window.width), bool)
        self.read_into(window, image, valid)
        return image, valid

    def read_into(self, window: Window, image: NDArray[Any], valid: NDArray[np.bool_] | None) -> None:
        """Reads a window, which may reach past the raster, into arrays that are there already.

        Args:
            window: rows and columns of the raster.
            image: (bands, height, width) of a type that holds the file's values; 0 outside the raster.
            valid: (height, width), False for nodata and outside the raster; None if nobody asks.

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
            inside = _valid_pixels(pixels, self.nodata, self._dark)
            if self._mask_band is not None:
                inside &= self._source.read_masks(self._mask_band, window=part) > 0
            valid[rows, cols] = inside
        except RasterioError as error:
            raise DataError(
                f"{self.info.path}: rows {top}-{bottom - 1}, columns {left}-{right - 1} cannot be read; the "
                f"file is truncated or corrupt ({error.__cause__ or error})"
            ) from error

    @property
    def decodes(self) -> bool:
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


def inspect(path: str | Path) -> RasterInfo:
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
        bands: 1-based numbers, or names, which are found as geo_seg.bands.match does; None takes every data
            band.

    Raises:
        DataError: the raster has no such band.
    """
    if bands is None:
        return info.bands
    places = match([band if isinstance(band, str) else "" for band in bands], info.names)
    found = []
    for band, place in zip(bands, places, strict=True):
        if place is not None:
            found.append(info.bands[place])
        elif isinstance(band, int) and band in (*info.bands, *info.alpha):
            found.append(band)
        else:
            named = [name for name in info.names if name]
            names = ", ".join(named) or "none"
            hint = f"; {nearest(band, named)}" if isinstance(band, str) and named else ""
            raise DataError(
                f"{info.path}: no band {band!r}; it has {len(info.bands)} "
                f"(numbers {info.bands[0]} to {info.bands[-1]}, names: {names}){hint}"
            )
    return tuple(found)


def _header(source: Any, path: str, masked: Sequence[bool]) -> RasterInfo:
    kinds = dict(zip(source.indexes, source.colorinterp, strict=True))
    alpha = tuple(band for band, kind in kinds.items() if kind == ColorInterp.alpha)
    bands = tuple(band for band in kinds if band not in alpha) or alpha
    referenced = source.crs is not None or not source.transform.is_identity
    dtype = str(np.result_type(*(source.dtypes[b - 1] for b in bands)))
    return RasterInfo(
        path=path,
        width=source.width,
        height=source.height,
        bands=bands,
        dtype=dtype,
        crs=source.crs.to_wkt() if source.crs else None,
        transform=tuple(source.transform)[:6] if referenced else None,
        nodata=tuple(source.nodatavals[b - 1] for b in bands),
        names=tuple(source.descriptions[b - 1] or "" for b in bands),
        block=source.block_shapes[bands[0] - 1],
        masked=bands != alpha and any(masked[b - 1] for b in bands),
        palette=source.colorinterp == (ColorInterp.palette,) and dtype == "uint8",
        alpha=alpha,
        scales=tuple(source.scales[b - 1] for b in bands),
        offsets=tuple(source.offsets[b - 1] for b in bands),
        types=tuple(source.dtypes[b - 1] for b in bands),
    )


def _valid_pixels(pixels: NDArray[Any], nodata: Sequence[float | None], dark: bool) -> NDArray[np.bool_]:
    valid = np.ones(pixels.shape[1:], bool)
    if pixels.dtype.kind in "fc":
        valid &= np.isfinite(pixels).all(axis=0)
    if dark:
        lit = pixels[0] != 0
        for band in pixels[1:]:
            lit |= band != 0
        valid &= lit
    for band, value in zip(pixels, nodata, strict=True):
        if value is not None and value != 0 and not np.isnan(value):
            valid &= band != value
    return valid


def _absence(path: str | Path) -> str:
    """Why there is nothing to read in a file, or ""."""
    if str(path).startswith("/vsi") or "://" in str(path):
        return ""
    if not Path(path).exists():
        return "no such file"
    return "the file is empty" if Path(path).is_file() and not Path(path).stat().st_size else ""
