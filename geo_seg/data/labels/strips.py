"""Labels in strips of rows on the image's grid, from reprojected or coloured rasters or from polygons."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from geo_seg.config.dataset import LabelConfig
from geo_seg.data.class_table import ClassTable
from geo_seg.data.labels.polygons import PolygonFile, rasterize_polygons
from geo_seg.errors import DataError
from geo_seg.raster.georeference import affine_of, same_grid
from geo_seg.raster.reader import RasterInfo
from geo_seg.raster.validity import in_span, nodata_span

_SIGNED_DTYPES: dict[int, type[np.signedinteger[Any]]] = {
    1: np.int16,
    2: np.int32,
    4: np.int64,
    8: np.int64,
}  # by item size in bytes: with room for a nodata value
_MAX_LISTED = 8  # unknown values in a message


class LabelStrips(Protocol):
    """Interface of labels that are read strip by strip.

    Attributes:
        dtype: data type of the values.
        nodata: value of pixels without a label.
    """

    dtype: np.dtype[Any]
    nodata: int

    def read(self, top: int, bottom: int) -> NDArray[Any]:
        """Return (rows, width) the mask values of the image's rows [top, bottom)."""

    def close(self) -> list[str]:
        """Close the files and return warnings; raise DataError if there were values of no class."""


class RasterLabelStrips:
    """Labels from a raster, reprojected if its grid differs from the image's.

    Args:
        mask: header of the raster.
        image: header of the image, which defines the grid.
        table: the classes.
        colored: whether its three bands, or the colours of its palette, are class colours.
    """

    def __init__(self, mask: RasterInfo, image: RasterInfo, table: ClassTable, colored: bool) -> None:
        self._mask = mask
        self._width = image.width
        self._source = rasterio.open(mask.path)
        self._raster = self._source
        self._alpha = mask.transparent
        self._masks = {band for band in mask.masks if band}
        if not same_grid(image, mask):
            self._raster = WarpedVRT(
                self._source,
                crs=CRS.from_wkt(image.crs),
                transform=affine_of(image),
                width=image.width,
                height=image.height,
                resampling=Resampling.nearest,
                tolerance=0.001,  # pixels: GDAL's own 0.125 moves labels; rasterio can't take 0
                src_nodata=None,  # the class table decides on values, even on declared nodata
                add_alpha=not mask.transparent,
            )
            # which is 0 beyond the mask's edges and under its mask band, too
            self._alpha, self._masks = mask.transparent or self._raster.count, set()
        self._palette: NDArray[np.uint8] | None = None  # (3, 256)
        if colored and len(mask.bands) == 1:
            shades = self._source.colormap(mask.bands[0])
            black = (0, 0, 0)  # a palette may be short
            self._palette = np.array([shades.get(value, black)[:3] for value in range(256)], np.uint8).T
        self._unknown: Counter[str] = Counter()
        self._fractions = 0  # pixels
        self._lenient = table.ignore_unlisted
        self._remedy = table.remedy
        self._colors = table.colors_of_masks if colored else None
        listed = {value for values in table.values for value in values}
        self._empty = [nodata_span(v, mask.dtype) for v in set(mask.nodata) if v not in listed]
        dtype = _SIGNED_DTYPES[np.dtype(mask.dtype).itemsize]
        nodata = max(int(np.iinfo(dtype).min), -(1 << 53))  # rasterio alters integers of larger magnitude
        self.dtype, self.nodata = table.mask_dtype if colored else (np.dtype(dtype), nodata)

    def read(self, top: int, bottom: int) -> NDArray[Any]:
        """Return (rows, width) the mask values of the image's rows [top, bottom)."""
        window = Window(0, top, self._width, bottom - top)
        try:
            bands = self._raster.read(self._mask.bands, window=window)
            outside = self._outside(window)
        except RasterioError as error:
            raise DataError(
                f"{self._mask.path}: cannot be read; the file is truncated or corrupt "
                f"({error.__cause__ or error})"
            ) from error
        if self._palette is not None:
            bands = self._palette[:, bands[0]]
        colors = self._colors
        if colors is None:
            labels = self._parse_values(bands[0], outside)
        else:
            labels = self._decode_colors(bands, colors, outside)
        if outside is not None:
            labels[outside] = self.nodata
        return labels

    def _outside(self, window: Window) -> NDArray[np.bool_] | None:
        """Return where the raster has no label: beyond its edges, or by its mask or alpha band; or None."""
        masks = [self._raster.read_masks(band, window=window) == 0 for band in self._masks]
        if self._alpha:
            masks.append(self._raster.read(self._alpha, window=window) == 0)
        return np.logical_or.reduce(masks) if masks else None

    def close(self) -> list[str]:
        """Close the files and return warnings.

        Raises:
            DataError: there were colours of no class, or values that are not whole numbers.
        """
        if self._raster is not self._source:
            self._raster.close()
        self._source.close()
        if self._fractions:
            raise DataError(
                f"{self._mask.path}: the mask holds {self._mask.dtype}, and {self._fractions} px can't be "
                "class values; expected whole numbers"
            )
        if self._unknown:
            raise DataError(
                f"{self._mask.path}: colours of no class: {_list_values(self._unknown)}; the class table has "
                f"{', '.join(self._colors or ())}; {self._remedy} (a lossy format such as JPG spoils the "
                "colours of masks)"
            )
        return []

    def _parse_values(self, values: NDArray[Any], outside: NDArray[np.bool_] | None) -> NDArray[Any]:
        """Convert mask values to integers; programs that rasterize polygons often write floats."""
        empty = np.logical_or.reduce([in_span(values, limits) for limits in self._empty])
        if values.dtype.kind == "f":
            empty |= np.isnan(values)
            fit = (values == np.rint(values)) & (abs(values) < np.iinfo(self.dtype).max)
            fractions = ~(fit | empty)
            self._fractions += int(np.count_nonzero(fractions if outside is None else fractions & ~outside))
            empty |= ~fit
            values = np.where(empty, 0, values)
        labels = values.astype(self.dtype)
        labels[empty] = self.nodata
        return labels

    def _decode_colors(
        self, bands: NDArray[Any], colors: Mapping[str, int | None], outside: NDArray[np.bool_] | None
    ) -> NDArray[Any]:
        red, green, blue = bands.astype(np.uint32)
        packed = red << 16 | green << 8 | blue
        listed = np.array(sorted(int(key[1:], 16) for key in colors), np.uint32)
        codes = [colors[f"#{color:06x}"] for color in listed.tolist()]
        index = np.minimum(np.searchsorted(listed, packed), len(listed) - 1)
        labels = np.array([self.nodata if v is None else v for v in codes], self.dtype)[index]
        unknown = listed[index] != packed
        labels[unknown] = self.nodata
        if outside is not None:
            unknown &= ~outside
        if not self._lenient and unknown.any():
            unique, counts = np.unique(packed[unknown], return_counts=True)
            self._unknown.update(
                {f"#{color:06x}": n for color, n in zip(unique.tolist(), counts.tolist(), strict=True)}
            )
        return labels


class PolygonLabelStrips:
    """Labels from polygons, each of a class.

    Args:
        polygons: the vector file.
        image: header of the image, which defines the grid.
        table: the classes.
        config: options for vector labels: attribute, order and all_touched.
        uncovered: mask value of pixels outside of all polygons; None leaves them without a label.
    """

    def __init__(
        self,
        polygons: PolygonFile,
        image: RasterInfo,
        table: ClassTable,
        config: LabelConfig,
        uncovered: int | None,
    ) -> None:
        self._polygons = polygons
        self._image = image
        self._table = table
        self._config = config
        self._unknown: Counter[str] = Counter()
        self.dtype, self.nodata = table.mask_dtype
        self._fill = self.nodata if uncovered is None else uncovered
        self._rank = {v: rank for rank, values in enumerate(table.values) for v in values}

    def read(self, top: int, bottom: int) -> NDArray[Any]:
        """Return (rows, width) the mask values of the image's rows [top, bottom)."""
        shapes = []
        unknown: dict[str, list[tuple[shapely.Geometry, int]]] = {}
        for shape, key in self._polygons.read_rows(top, bottom):
            code = self._table.codes.get(key)
            shapes.append((shape, self.nodata if code is None else code))
            if key not in self._table.codes and not self._table.ignore_unlisted:
                unknown.setdefault(key, []).append((shape, 1))
        for key, polygons in unknown.items():
            covered = rasterize_polygons(
                polygons, self._image, top, bottom, np.dtype(np.uint8), 0, self._config.all_touched
            )
            self._unknown[key] += int(covered.sum())
        if self._config.order == "class":  # ignored polygons lie on top of all classes
            shapes.sort(key=lambda item: self._rank.get(item[1], len(self._rank)))
        return rasterize_polygons(
            shapes, self._image, top, bottom, self.dtype, self._fill, self._config.all_touched
        )

    def close(self) -> list[str]:
        """Return warnings about the polygons.

        Raises:
            DataError: there were attribute values of no class.
        """
        path, attribute = self._polygons.path, self._config.attribute
        if self._unknown:
            named = f"values of {attribute!r}" if attribute else "no dataset.label.attribute, so that value"
            raise DataError(
                f"{path}: {named} in no class: {_list_values(self._unknown)}; the class table has "
                f"{', '.join(map(repr, self._table.codes))}; {self._table.remedy}"
            )
        return describe_polygons(self._polygons)


def describe_polygons(polygons: PolygonFile) -> list[str]:
    """Return warnings about the polygons that were read: none, or invalid ones."""
    if not polygons.read:
        return [f"no polygon of {polygons.path} lies in this image"]
    if polygons.repaired:
        return [
            f"{len(polygons.repaired)} of {len(polygons.read)} polygons of {polygons.path} here were invalid "
            "and have been repaired"
        ]
    return []


def _list_values(counts: Counter[str]) -> str:
    entries = [f"{key!r} ({count} px)" for key, count in counts.most_common(_MAX_LISTED)]
    more = f" and {len(counts) - _MAX_LISTED} more" if len(counts) > _MAX_LISTED else ""
    return ", ".join(entries) + more
