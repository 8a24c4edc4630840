"""Images whose bands lie in several files, and STAC items: a VRT that GDAL reads as one raster."""

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path

from geo_seg.errors import DataError
from geo_seg.raster.georeference import describe_grid, same_grid
from geo_seg.raster.paths import absolute_path, is_remote
from geo_seg.raster.reader import Band, RasterInfo, read_info, resolve_bands
from geo_seg.raster.scale_offset import scale_offset
from geo_seg.raster.stac_items import item_bands
from geo_seg.runtime.cache_dir import write_cache_file

_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}


def open_image(
    images: Sequence[str],
    bands: Sequence[Band] | None,
    folder: Path,
    read_info: Callable[[str], RasterInfo] = read_info,
    root: Path | None = None,
) -> tuple[RasterInfo, tuple[int, ...]]:
    """The header of an image and the bands that are wanted; where it isn't one raster, a VRT makes one of it.

    Args:
        images: one raster, one STAC item, or several rasters that line up.
        bands: numbers or names, in the order wanted; None takes every data band. Only the assets of a STAC
            item that hold them are opened.
        folder: where VRTs go; their names follow from their content.
        read_info: reads the header of a raster.
        root: the folder that assets of a STAC item must lie below; None lets them lie anywhere.

    Raises:
        DataError: a file can't be opened, lies elsewhere, or doesn't line up, or there is no such band.
    """
    if len(images) == 1 and images[0].lower().endswith(".json"):
        headers = item_bands(images[0], bands, lambda path: read_image_info(path, read_info), root)
        header = read_info(_stack(headers, folder))
        return header, header.bands
    headers = [read_image_info(image, read_info) for image in images]
    header = headers[0] if len(headers) == 1 else read_info(_stack(headers, folder))
    chosen = resolve_bands(header, bands)
    check_types(header, chosen)
    return header, chosen


def check_types(info: RasterInfo, bands: Sequence[int]) -> None:
    """Check that bands which are read together hold one type.

    Raises:
        DataError: they don't; names two of them.
    """
    types = {band: kind for band, kind in zip(info.bands, info.types, strict=False) if band in bands}
    for band, kind in types.items():
        first = next(iter(types))
        if kind != types[first]:
            raise DataError(
                f"{info.path}: band {first} holds {types[first]}, band {band} holds {kind}; the bands of an "
                "image must hold one type; gdal_translate -ot Float32 is one way to convert them"
            )


def read_image_info(path: str, look: Callable[[str], RasterInfo] = read_info) -> RasterInfo:
    """Read the header of a raster whose values are measurements.

    Raises:
        DataError: it can't be opened, or its values are numbers of colours.
    """
    header = look(path)
    if header.palette:
        raise DataError(
            f"{path}: its values are numbers of the colours of a palette, no measurements; make red, green "
            "and blue of them (gdal_translate -expand rgb), or take the palette away if they are measurements"
        )
    return header


def _stack(headers: Sequence[RasterInfo], folder: Path) -> str:
    """Path of a VRT of rasters that line up; one of a kind is made once."""
    for header in headers[1:]:
        if not same_grid(headers[0], header):
            raise DataError(
                f"{header.path} has {describe_grid(header)}, {headers[0].path} has "
                f"{describe_grid(headers[0])}; the files of an image must line up"
            )
        if header.dtype != headers[0].dtype:
            raise DataError(
                f"{headers[0].path} holds {headers[0].dtype}, {header.path} holds {header.dtype}; the "
                "files of an image must hold one type; gdal_translate -ot Float32 is one way to convert them"
            )
    content = _vrt(headers)
    file = folder / "images" / f"{hashlib.sha256(content).hexdigest()[:24]}.vrt"
    if not file.exists():
        write_cache_file(file, content)
    return str(file)


def _vrt(headers: Sequence[RasterInfo]) -> bytes:
    first = headers[0]
    root = ET.Element("VRTDataset", rasterXSize=str(first.width), rasterYSize=str(first.height))
    if first.crs:
        ET.SubElement(root, "SRS").text = first.crs
    if first.transform:
        a, b, c, d, e, f = first.transform
        ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, (c, a, b, f, d, e)))
    number = 0
    for header in headers:
        own = (header.bands, header.names, header.nodata, header.masks)
        for band, name, nodata, mask in zip(*own, strict=True):
            number += 1
            made = ET.SubElement(root, "VRTRasterBand", dataType=_type(header), band=str(number))
            if name:
                ET.SubElement(made, "Description").text = name
            if nodata is not None:
                ET.SubElement(made, "NoDataValue").text = repr(nodata)
            ((scale, offset),) = scale_offset(header, [band])
            if (scale, offset) != (1, 0):
                ET.SubElement(made, "Offset").text = repr(offset)
                ET.SubElement(made, "Scale").text = repr(scale)
            _source(made, header.path, str(band))
            if mask or header.transparent:
                inside = ET.SubElement(ET.SubElement(made, "MaskBand"), "VRTRasterBand", dataType="Byte")
                _source(inside, header.path, f"mask,{mask}" if mask else str(header.transparent))
    return ET.tostring(root)


def _source(band: ET.Element, path: str, number: str) -> None:
    source = ET.SubElement(band, "SimpleSource")
    file = ET.SubElement(source, "SourceFilename", relativeToVRT="0")
    file.text = path if is_remote(path) else absolute_path(path)
    ET.SubElement(source, "SourceBand").text = number


def _type(header: RasterInfo) -> str:
    if header.dtype not in _TYPES:
        raise DataError(f"{header.path}: holds {header.dtype}; expected one of {', '.join(_TYPES)}")
    return _TYPES[header.dtype]
