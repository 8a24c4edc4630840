"""Cloud Optimized GeoTIFFs from the parts of a map, and their class histograms."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio.shutil
from numpy.typing import NDArray

from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.overviews import write_overviews
from geo_seg.raster.pixel_areas import PixelAreas
from geo_seg.raster.reader import RasterReader
from geo_seg.raster.sidecars import Color, write_class_sidecars, write_gray_style
from geo_seg.raster.vrt import VrtBand, VrtSource, vrt_xml
from geo_seg.raster.writer import TEMP_SUFFIX, WRITE_ERRORS, commit, remove_leftovers, write_error
from geo_seg.tiling import Window

_CACHE_BYTES = 64 << 20  # of decoded blocks: parts are read, and the map is written, once from top to bottom
_BLOCK_SIZE = 512


@dataclass(frozen=True)
class RasterSpec:
    """Content and metadata of a raster of a map.

    Attributes:
        suffix: of its file name.
        dtype: NumPy name of the type of its pixels.
        nodata: nodata value.
        bands: names of its bands.
        classes: names of the classes whose ids are its pixels; empty for other rasters.
        colors: of these classes, red, green and blue from 0 to 255.
        scale: factor from stored pixels to their values.
        tags: metadata of the file.
        float16: whether floating-point pixels take 16 bits in the file.
    """

    suffix: str
    dtype: str
    nodata: float
    bands: tuple[str, ...]
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    scale: float
    tags: Mapping[str, str]
    float16: bool = False

    @property
    def bytes_per_value(self) -> int:
        """Bytes of a pixel in each band."""
        return 2 if self.float16 else np.dtype(self.dtype).itemsize


def write_cog(file: Path, spec: RasterSpec, geobox: GeoBox, parts: Sequence[tuple[Window, Path]]) -> None:
    """Write parts as one Cloud Optimized GeoTIFF, atomically; memory doesn't depend on its size.

    Overviews show the most frequent class of the full-resolution pixels, or the mean of other rasters.

    Args:
        file: the GeoTIFF to write.
        spec: its content.
        geobox: its grid.
        parts: window and path of each part; the parts are in the folder of the file.

    Raises:
        DataError: it can't be written, or a part can't be read.
    """
    vrt_file, temporary = file.with_suffix(".vrt"), file.with_name(f"{file.name}{TEMP_SUFFIX}")
    try:
        remove_leftovers(temporary)
        vrt = build_vrt(spec, geobox, parts)
        ET.ElementTree(vrt).write(vrt_file, encoding="utf-8")
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_PAM_ENABLED=False):
            if spec.classes:
                _add_overviews(vrt, write_overviews(vrt_file, int(spec.nodata), _BLOCK_SIZE))
                ET.ElementTree(vrt).write(vrt_file, encoding="utf-8")
            rasterio.shutil.copy(
                vrt_file,
                temporary,
                driver="COG",
                compress="deflate",
                blocksize=_BLOCK_SIZE,
                bigtiff="if_safer",
                **(
                    {"overviews": "force_use_existing"}
                    if spec.classes
                    else {"overview_resampling": "average"}
                ),
                **({"nbits": 16} if spec.float16 else {}),
            )
        commit(temporary, file)
        if spec.classes:
            write_class_sidecars(file, spec.classes, spec.colors)
        else:
            write_gray_style(file, 1 / spec.scale)
    except WRITE_ERRORS as error:
        raise write_error(file, error) from error


def class_histogram(
    path: Path, classes: int, ground: PixelAreas | None
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Return the number of pixels and the area of each class in a part.

    Args:
        path: class raster of the part.
        classes: number of classes.
        ground: square metres of the pixels of the part; None if unknown.

    Returns:
        (classes,) pixels, int64; and (classes,) square metres, or None.

    Raises:
        DataError: it can't be read.
    """
    with RasterReader(path) as reader:
        info = reader.info
        counts, square_metres = np.zeros(classes, np.int64), np.zeros(classes)
        panels, panel = (1, np.intp(0)) if ground is None else (ground.areas.shape[1], ground.panel)
        for row in range(0, info.height, _BLOCK_SIZE):
            height = min(_BLOCK_SIZE, info.height - row)
            pixels, _ = reader.read(Window(row, 0, height, info.width))
            rows_and_panels = np.arange(height)[:, None] * panels + panel
            cells = np.minimum(pixels[0], classes) + rows_and_panels * (classes + 1)  # nodata last
            histogram = np.bincount(cells.ravel(), minlength=height * panels * (classes + 1))
            histogram = histogram.reshape(-1, classes + 1)[:, :classes]  # per row and panel
            counts += histogram.sum(axis=0)
            if ground is not None:
                square_metres += ground.areas[row : row + height].ravel() @ histogram
    return counts, None if ground is None else square_metres


def build_vrt(spec: RasterSpec, geobox: GeoBox, parts: Sequence[tuple[Window, Path]]) -> ET.Element:
    """Return the XML of a virtual raster that mosaics the parts."""
    bands = []
    for number, name in enumerate(spec.bands, 1):
        # three bands of bytes are not red, green and blue
        interpretation = "Palette" if spec.colors else "Gray" if number == 1 else "Undefined"
        bands.append(
            VrtBand(
                dtype=spec.dtype,
                sources=[VrtSource(path.name, str(number), True, window) for window, path in parts],
                name=name,
                nodata=spec.nodata,
                scale=spec.scale if spec.scale != 1 else None,
                tags={f"CLASS_{n}": name for n, name in enumerate(spec.classes)} if spec.colors else None,
                color_interp=interpretation,
                colors=spec.colors,
            )
        )
    transform = None if geobox.transform.is_identity else geobox.transform.to_gdal()
    crs = geobox.crs.to_wkt() if geobox.crs else None
    return vrt_xml(geobox.width, geobox.height, bands, crs, transform, spec.tags)


def _add_overviews(root: ET.Element, files: Sequence[Path]) -> None:
    band = root.find("VRTRasterBand")
    assert band is not None  # noqa: S101 - class rasters have one
    for file in files:
        overview = ET.SubElement(band, "Overview")
        ET.SubElement(overview, "SourceFilename", relativeToVRT="1").text = file.name
        ET.SubElement(overview, "SourceBand").text = "1"
