"""One Cloud Optimized GeoTIFF out of the parts of a map."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.shutil
from rasterio.dtypes import typename_fwd

from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.overviews import write_overviews
from geo_seg.raster.pixel_areas import PixelAreas
from geo_seg.raster.reader import RasterReader
from geo_seg.raster.sidecars import Color, write_class_sidecars, write_gray_style
from geo_seg.raster.writer import TEMP_SUFFIX, WRITE_ERRORS, commit, remove_leftovers, write_error
from geo_seg.tiling import Window

_CACHE = 64 << 20  # bytes of decoded blocks: parts are read, and the map is written, once from the top down
_BLOCK = 512


@dataclass(frozen=True)
class RasterSpec:
    """What a raster of a map holds.

    Attributes:
        suffix: of its file.
        dtype: NumPy name of the type of its pixels.
        nodata: value that means "nothing here".
        bands: names of its bands.
        classes: names of the classes whose ids are its pixels; none for other things.
        colors: of these classes, red, green and blue from 0 to 255.
        scale: what its pixels are multiplied with to get what they mean.
        tags: of the whole file.
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


def write_cog(file: Path, layer: RasterSpec, geometry: GeoBox, parts: Sequence[tuple[Window, Path]]) -> None:
    """Joins parts to a Cloud Optimized GeoTIFF; memory doesn't depend on its size.

    Overviews show the most frequent class of the raster's own pixels, or the mean of anything else.

    Args:
        file: where it goes; nothing has that name before it is complete.
        layer: what it holds.
        geometry: its grid.
        parts: rasters in the folder of the file, and where each lies.

    Raises:
        DataError: it can't be written, or a part can't be read.
    """
    frame, hidden = file.with_suffix(".vrt"), file.with_name(f"{file.name}{TEMP_SUFFIX}")
    try:
        remove_leftovers(hidden)
        described = build_vrt(layer, geometry, parts)
        ET.ElementTree(described).write(frame, encoding="utf-8")
        with rasterio.Env(GDAL_CACHEMAX=_CACHE, GDAL_PAM_ENABLED=False):
            if layer.classes:
                _add_overviews(described, write_overviews(frame, int(layer.nodata), _BLOCK))
                ET.ElementTree(described).write(frame, encoding="utf-8")
            rasterio.shutil.copy(
                frame,
                hidden,
                driver="COG",
                compress="deflate",
                blocksize=_BLOCK,
                bigtiff="if_safer",
                **(
                    {"overviews": "force_use_existing"}
                    if layer.classes
                    else {"overview_resampling": "average"}
                ),
                **({"nbits": 16} if layer.float16 else {}),
            )
        commit(hidden, file)
        if layer.classes:
            write_class_sidecars(file, layer.classes, layer.colors)
        else:
            write_gray_style(file, 1 / layer.scale)
    except WRITE_ERRORS as error:
        raise write_error(file, error) from error


def class_histogram(path: Path, classes: int, ground: PixelAreas | None) -> tuple[Any, Any]:
    """Pixels and area of each class in a part.

    Args:
        path: raster of the part.
        classes: number of classes.
        ground: square metres of the pixels of the part, if known.

    Returns:
        (classes,) pixels, int64; and (classes,) square metres, or None.

    Raises:
        DataError: it can't be read.
    """
    with RasterReader(path) as reader:
        info = reader.info
        counts, square = np.zeros(classes, np.int64), np.zeros(classes)
        panels, panel = (1, np.intp(0)) if ground is None else (ground.areas.shape[1], ground.panel)
        for row in range(0, info.height, _BLOCK):
            height = min(_BLOCK, info.height - row)
            pixels, _ = reader.read(Window(row, 0, height, info.width))
            places = np.arange(height)[:, None] * panels + panel
            cells = np.minimum(pixels[0], classes) + places * (classes + 1)  # nodata last
            found = np.bincount(cells.ravel(), minlength=height * panels * (classes + 1))
            by_place = found.reshape(-1, classes + 1)[:, :classes]
            counts += by_place.sum(axis=0)
            if ground is not None:
                square += ground.areas[row : row + height].ravel() @ by_place
    return counts, None if ground is None else square


def build_vrt(layer: RasterSpec, geometry: GeoBox, parts: Sequence[tuple[Window, Path]]) -> ET.Element:
    """A virtual raster of GDAL's that shows the parts as one."""
    root = ET.Element("VRTDataset", rasterXSize=str(geometry.width), rasterYSize=str(geometry.height))
    if geometry.crs:
        ET.SubElement(root, "SRS").text = geometry.crs.to_wkt()
    if not geometry.transform.is_identity:
        numbers = geometry.transform.to_gdal()
        ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, numbers))
    _add_metadata(root, layer.tags)
    for number, name in enumerate(layer.bands, 1):
        band = ET.SubElement(
            root,
            "VRTRasterBand",
            dataType=typename_fwd[rasterio.dtypes.dtype_rev[layer.dtype]],
            band=str(number),
        )
        ET.SubElement(band, "Description").text = name
        ET.SubElement(band, "NoDataValue").text = str(layer.nodata)
        if layer.scale != 1:
            ET.SubElement(band, "Scale").text = repr(layer.scale)
        if layer.colors:
            _add_metadata(band, {f"CLASS_{index}": text for index, text in enumerate(layer.classes)})
            ET.SubElement(band, "ColorInterp").text = "Palette"
            table = ET.SubElement(band, "ColorTable")
            for red, green, blue in layer.colors:
                ET.SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4="255")
        else:  # three bands of bytes are not red, green and blue
            ET.SubElement(band, "ColorInterp").text = "Gray" if number == 1 else "Undefined"
        for window, path in parts:
            _add_source(band, number, window, path)
    return root


def _add_overviews(root: ET.Element, files: Sequence[Path]) -> None:
    band = root.find("VRTRasterBand")
    assert band is not None  # noqa: S101 - class rasters have one
    for file in files:
        overview = ET.SubElement(band, "Overview")
        ET.SubElement(overview, "SourceFilename", relativeToVRT="1").text = file.name
        ET.SubElement(overview, "SourceBand").text = "1"


def _add_metadata(parent: ET.Element, tags: Mapping[str, str]) -> None:
    metadata = ET.SubElement(parent, "Metadata")
    for key, value in tags.items():
        ET.SubElement(metadata, "MDI", key=key).text = value


def _add_source(band: ET.Element, number: int, window: Window, path: Path) -> None:
    source = ET.SubElement(band, "SimpleSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="1").text = path.name
    ET.SubElement(source, "SourceBand").text = str(number)
    for name, col, row in (("SrcRect", 0, 0), ("DstRect", window.col, window.row)):
        size = {"xSize": str(window.width), "ySize": str(window.height)}
        ET.SubElement(source, name, {"xOff": str(col), "yOff": str(row), **size})
