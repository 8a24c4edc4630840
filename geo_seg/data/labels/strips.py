"""Labels in strips of rows of the image's grid: reprojected or coloured rasters, and polygons."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import rasterio
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

_WIDER: dict[int, type[np.signedinteger[Any]]] = {
    1: np.int16,
    2: np.int32,
    4: np.int64,
    8: np.int64,
}  # by bytes: has room for a value that is none
_LISTED = 8  # strange values that a message names


class LabelStrips(Protocol):
    """Labels, strip by strip.

    Attributes:
        dtype: of the values.
        nodata: value of pixels without a label.
    """

    dtype: np.dtype[Any]
    nodata: int

    def read(self, top: int, bottom: int) -> NDArray[Any]:
        """(rows, width) values of the image's rows from top to below bottom."""

    def close(self) -> list[str]:
        """Closes the files; what the user should know, or DataError for values that no class has."""


class RasterLabelStrips:
    """A label raster.

    Args:
        mask: its header.
        image: gives the grid.
        table: the classes.
        colored: whether its three bands, or the colours of its palette, are those of classes.
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
                src_nodata=None,  # the class table says what a value means, also where it is called nodata
                add_alpha=not mask.transparent,
            )
            # which also says what lies beyond the mask's edges, or under its mask band
            self._alpha, self._masks = mask.transparent or self._raster.count, set()
        self._palette: NDArray[np.uint8] | None = None  # (3, 256)
        if colored and len(mask.bands) == 1:
            shades = self._source.colormap(mask.bands[0])
            black = (0, 0, 0)  # a palette may be short
            self._palette = np.array([shades.get(value, black)[:3] for value in range(256)], np.uint8).T
        self._strange: Counter[str] = Counter()
        self._fractions = 0  # pixels
        self._lenient = table.ignore_unlisted
        self._remedy = table.remedy
        self._colors = table.colors_of_masks if colored else None
        listed = {value for values in table.values for value in values}
        self._empty = [nodata_span(v, mask.dtype) for v in set(mask.nodata) if v not in listed]
        kind = _WIDER[np.dtype(mask.dtype).itemsize]
        none = max(int(np.iinfo(kind).min), -(1 << 53))  # of larger ones rasterio makes another number
        self.dtype, self.nodata = table.mask_dtype if colored else (np.dtype(kind), none)

    def read(self, top: int, bottom: int) -> NDArray[Any]:
        """(rows, width) values of the image's rows from top to below bottom."""
        window = Window(0, top, self._width, bottom - top)
        try:
            found = self._raster.read(self._mask.bands, window=window)
            outside = self._outside(window)
        except RasterioError as error:
            raise DataError(
                f"{self._mask.path}: cannot be read; the file is truncated or corrupt "
                f"({error.__cause__ or error})"
            ) from error
        if self._palette is not None:
            found = self._palette[:, found[0]]
        colors = self._colors
        made = self._whole(found[0], outside) if colors is None else self._decoded(found, colors, outside)
        if outside is not None:
            made[outside] = self.nodata
        return made

    def _outside(self, window: Window) -> NDArray[np.bool_] | None:
        """Where the raster has no label: beyond its edges, and where its mask or alpha band says so."""
        found = [self._raster.read_masks(band, window=window) == 0 for band in self._masks]
        if self._alpha:
            found.append(self._raster.read(self._alpha, window=window) == 0)
        return np.logical_or.reduce(found) if found else None

    def close(self) -> list[str]:
        """Closes the files.

        Raises:
            DataError: there were colours that no class has, or fractions.
        """
        if self._raster is not self._source:
            self._raster.close()
        self._source.close()
        if self._fractions:
            raise DataError(
                f"{self._mask.path}: the mask holds {self._mask.dtype}, and {self._fractions} px can't be "
                "class values; expected whole numbers"
            )
        if self._strange:
            raise DataError(
                f"{self._mask.path}: colours of no class: {_listing(self._strange)}; the class table has "
                f"{', '.join(self._colors or ())}; {self._remedy} (a lossy format such as JPG spoils the "
                "colours of masks)"
            )
        return []

    def _whole(self, found: NDArray[Any], outside: NDArray[np.bool_] | None) -> NDArray[Any]:
        """Values of a mask; programs that burn polygons often write them as floats."""
        empty = np.logical_or.reduce([in_span(found, limits) for limits in self._empty])
        if found.dtype.kind == "f":
            empty |= np.isnan(found)
            fit = (found == np.rint(found)) & (abs(found) < np.iinfo(self.dtype).max)
            strange = ~(fit | empty)
            self._fractions += int(np.count_nonzero(strange if outside is None else strange & ~outside))
            empty |= ~fit
            found = np.where(empty, 0, found)
        made = found.astype(self.dtype)
        made[empty] = self.nodata
        return made

    def _decoded(
        self, found: NDArray[Any], colors: Mapping[str, int | None], outside: NDArray[np.bool_] | None
    ) -> NDArray[Any]:
        red, green, blue = found.astype(np.uint32)
        packed = red << 16 | green << 8 | blue
        known = np.array(sorted(int(key[1:], 16) for key in colors), np.uint32)
        stored = [colors[f"#{color:06x}"] for color in known.tolist()]
        place = np.minimum(np.searchsorted(known, packed), len(known) - 1)
        made = np.array([self.nodata if v is None else v for v in stored], self.dtype)[place]
        strange = known[place] != packed
        made[strange] = self.nodata
        if outside is not None:
            strange &= ~outside
        if not self._lenient and strange.any():
            kinds, counts = np.unique(packed[strange], return_counts=True)
            self._strange.update(
                {f"#{color:06x}": n for color, n in zip(kinds.tolist(), counts.tolist(), strict=True)}
            )
        return made


class PolygonLabelStrips:
    """Polygons with a class each.

    Args:
        polygons: of a vector file.
        image: gives the grid.
        table: the classes.
        config: order, uncovered pixels and all_touched.
        uncovered: value of the pixels that no polygon covers; None leaves them without a label.
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
        self._strange: Counter[str] = Counter()
        self.dtype, self.nodata = table.mask_dtype
        self._fill = self.nodata if uncovered is None else uncovered
        self._rank = {v: rank for rank, values in enumerate(table.values) for v in values}

    def read(self, top: int, bottom: int) -> NDArray[Any]:
        """(rows, width) values of the image's rows from top to below bottom."""
        shapes = []
        strange: dict[str, list[tuple[Any, int]]] = {}
        for shape, key in self._polygons.read_rows(top, bottom):
            code = self._table.codes.get(key)
            shapes.append((shape, self.nodata if code is None else code))
            if key not in self._table.codes and not self._table.ignore_unlisted:
                strange.setdefault(key, []).append((shape, 1))
        for key, found in strange.items():
            covered = rasterize_polygons(
                found, self._image, top, bottom, np.dtype(np.uint8), 0, self._config.all_touched
            )
            self._strange[key] += int(covered.sum())
        if self._config.order == "class":  # what is ignored lies on top of all classes
            shapes.sort(key=lambda item: self._rank.get(item[1], len(self._rank)))
        return rasterize_polygons(
            shapes, self._image, top, bottom, self.dtype, self._fill, self._config.all_touched
        )

    def close(self) -> list[str]:
        """What the user should know.

        Raises:
            DataError: there were values that no class has.
        """
        path, attribute = self._polygons.path, self._config.attribute
        if self._strange:
            named = f"values of {attribute!r}" if attribute else "no dataset.label.attribute, so that value"
            raise DataError(
                f"{path}: {named} in no class: {_listing(self._strange)}; the class table has "
                f"{', '.join(map(repr, self._table.codes))}; {self._table.remedy}"
            )
        return describe_polygons(self._polygons)


def describe_polygons(polygons: PolygonFile) -> list[str]:
    """What the user should know about the polygons that have been read."""
    if not polygons.read:
        return [f"no polygon of {polygons.path} lies in this image"]
    if polygons.mended:
        return [
            f"{len(polygons.mended)} of {len(polygons.read)} polygons of {polygons.path} here were invalid "
            "and have been mended"
        ]
    return []


def _listing(strange: Counter[str]) -> str:
    few = [f"{key!r} ({count} px)" for key, count in strange.most_common(_LISTED)]
    more = f" and {len(strange) - _LISTED} more" if len(strange) > _LISTED else ""
    return ", ".join(few) + more
