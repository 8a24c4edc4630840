"""Virtual rasters (VRT) of GDAL: the one writer of their XML."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geo_seg.tiling import Window

VRT_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}
"""GDAL's name of a type by NumPy's, for the types that rasters may have."""


@dataclass(frozen=True)
class VrtSource:
    """A band of a file that fills a band of a VRT, or a part of it.

    Attributes:
        path: of the file.
        band: its number, or GDAL's name of a mask band.
        relative: whether the path is relative to the folder of the VRT.
        window: rows and columns of the VRT that the whole file fills; None for all.
    """

    path: str
    band: str
    relative: bool = False
    window: Window | None = None


@dataclass(frozen=True)
class VrtBand:
    """A band of a VRT.

    Attributes:
        dtype: NumPy name of its type, one of VRT_TYPES.
        sources: files that fill it.
        name: description; "" for none.
        nodata: nodata value, or None.
        scale: that values are multiplied with; None for not declared.
        offset: that is then added; None for not declared.
        tags: metadata of the band; None for none.
        color_interp: GDAL's color interpretation; "" for none.
        colors: color table, red, green and blue from 0 to 255 for each value.
        mask: the source of its mask band, or None.
    """

    dtype: str
    sources: Sequence[VrtSource]
    name: str = ""
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    tags: Mapping[str, str] | None = None
    color_interp: str = ""
    colors: Sequence[tuple[int, int, int]] = ()
    mask: VrtSource | None = None


def vrt_xml(
    width: int,
    height: int,
    bands: Sequence[VrtBand],
    crs: str | None = None,
    geo_transform: Sequence[float] | None = None,
    tags: Mapping[str, str] | None = None,
) -> ET.Element:
    """Return the XML of a VRT.

    Args:
        width: columns.
        height: rows.
        bands: in order.
        crs: as WKT, or None.
        geo_transform: the six numbers in GDAL's order, or None without georeference.
        tags: metadata of the raster; None for none.
    """
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    if crs:
        ET.SubElement(root, "SRS").text = crs
    if geo_transform:
        ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, geo_transform))
    _add_metadata(root, tags)
    for number, band in enumerate(bands, 1):
        _add_band(root, number, band)
    return root


def _add_band(root: ET.Element, number: int, band: VrtBand) -> None:
    element = ET.SubElement(root, "VRTRasterBand", dataType=VRT_TYPES[band.dtype], band=str(number))
    if band.name:
        ET.SubElement(element, "Description").text = band.name
    if band.nodata is not None:
        ET.SubElement(element, "NoDataValue").text = str(band.nodata)
    if band.offset is not None:
        ET.SubElement(element, "Offset").text = repr(band.offset)
    if band.scale is not None:
        ET.SubElement(element, "Scale").text = repr(band.scale)
    _add_metadata(element, band.tags)
    if band.color_interp:
        ET.SubElement(element, "ColorInterp").text = band.color_interp
    if band.colors:
        _add_color_table(element, band.colors)
    for source in band.sources:
        _add_source(element, source)
    if band.mask:
        _add_source(
            ET.SubElement(ET.SubElement(element, "MaskBand"), "VRTRasterBand", dataType="Byte"), band.mask
        )


def _add_color_table(band: ET.Element, colors: Sequence[tuple[int, int, int]]) -> None:
    table = ET.SubElement(band, "ColorTable")
    for red, green, blue in colors:
        ET.SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4="255")


def _add_metadata(parent: ET.Element, tags: Mapping[str, str] | None) -> None:
    if tags is None:
        return
    metadata = ET.SubElement(parent, "Metadata")
    for key, value in tags.items():
        ET.SubElement(metadata, "MDI", key=key).text = value


def _add_source(band: ET.Element, source: VrtSource) -> None:
    element = ET.SubElement(band, "SimpleSource")
    file = ET.SubElement(element, "SourceFilename", relativeToVRT=str(int(source.relative)))
    file.text = source.path
    ET.SubElement(element, "SourceBand").text = source.band
    if source.window:
        window = source.window
        for name, col, row in (("SrcRect", 0, 0), ("DstRect", window.col, window.row)):
            size = {"xSize": str(window.width), "ySize": str(window.height)}
            ET.SubElement(element, name, {"xOff": str(col), "yOff": str(row), **size})
