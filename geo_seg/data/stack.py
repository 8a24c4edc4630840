"""Images whose bands lie in several files, and STAC items: a VRT that GDAL reads as one raster."""

import hashlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyogrio.errors
import pyogrio.raw

from geo_seg.bands import match
from geo_seg.containers import absolute
from geo_seg.data.folder import keep
from geo_seg.data.grids import describe_grid, same_grid
from geo_seg.data.manifest import check_below, gdal_path, is_remote
from geo_seg.data.scale_offset import scale_offset
from geo_seg.errors import DataError, first_line, nearest
from geo_seg.raster import Band, RasterInfo, inspect, resolve_bands

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


@dataclass(frozen=True)
class _Asset:
    """A file of a STAC item.

    Attributes:
        path: of the file.
        names: what its one band is called there; the first is the name that it gets.
        scale: what the item says that its values are multiplied with.
        offset: what is then added.
    """

    path: str
    names: tuple[str, ...]
    scale: float = 1.0
    offset: float = 0.0


def open_image(
    images: Sequence[str],
    bands: Sequence[Band] | None,
    folder: Path,
    look: Callable[[str], RasterInfo] = inspect,
    root: Path | None = None,
) -> tuple[RasterInfo, tuple[int, ...]]:
    """The header of an image and the bands that are wanted; where it isn't one raster, a VRT makes one of it.

    Args:
        images: one raster, one STAC item, or several rasters that line up.
        bands: numbers or names, in the order wanted; None takes every data band. Only the assets of a STAC
            item that hold them are opened.
        folder: where VRTs go; their names follow from their content.
        look: reads the header of a raster.
        root: the folder that assets of a STAC item must lie below; None lets them lie anywhere.

    Raises:
        DataError: a file can't be opened, lies elsewhere, or doesn't line up, or there is no such band.
    """
    if len(images) == 1 and images[0].lower().endswith(".json"):
        assets = _chosen(_assets(images[0]), bands, images[0])
        if root is not None:
            for asset in assets:
                check_below(asset.path, root, f"{images[0]}: the asset {asset.path}")
        headers = [_scaled(look_at_image(asset.path, look), asset) for asset in assets]
        header = look(_stack(headers, [asset.names[0] for asset in assets], folder))
        return header, header.bands
    headers = [look_at_image(image, look) for image in images]
    header = headers[0] if len(headers) == 1 else look(_stack(headers, None, folder))
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


def look_at_image(path: str, look: Callable[[str], RasterInfo] = inspect) -> RasterInfo:
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


def _stack(headers: Sequence[RasterInfo], names: Sequence[str] | None, folder: Path) -> str:
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
    for header in headers if names else ():
        if len(header.bands) != 1:
            raise DataError(
                f"{header.path}: {len(header.bands)} bands, but the STAC item lists one; name the file itself"
            )
    content = _vrt(headers, names)
    file = folder / "images" / f"{hashlib.sha256(content).hexdigest()[:24]}.vrt"
    if not file.exists():
        keep(file, content)
    return str(file)


def _vrt(headers: Sequence[RasterInfo], names: Sequence[str] | None) -> bytes:
    first = headers[0]
    root = ET.Element("VRTDataset", rasterXSize=str(first.width), rasterYSize=str(first.height))
    if first.crs:
        ET.SubElement(root, "SRS").text = first.crs
    if first.transform:
        a, b, c, d, e, f = first.transform
        ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, (c, a, b, f, d, e)))
    number = 0
    for index, header in enumerate(headers):
        own = (header.bands, header.names, header.nodata, header.masks)
        for band, name, nodata, mask in zip(*own, strict=True):
            number += 1
            made = ET.SubElement(root, "VRTRasterBand", dataType=_type(header), band=str(number))
            title = names[index] if names else name
            if title:
                ET.SubElement(made, "Description").text = title
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
    file.text = path if is_remote(path) else absolute(path)
    ET.SubElement(source, "SourceBand").text = number


def _type(header: RasterInfo) -> str:
    if header.dtype not in _TYPES:
        raise DataError(f"{header.path}: holds {header.dtype}; expected one of {', '.join(_TYPES)}")
    return _TYPES[header.dtype]


def _assets(item: str) -> list[_Asset]:
    try:
        assets = _remote_assets(item) if is_remote(item) else json.loads(Path(item).read_bytes())["assets"]
        return [_asset(item, key, asset) for key, asset in assets.items() if _holds_data(asset)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{item}: not a STAC item ({type(error).__name__}: {error})") from error


def _remote_assets(item: str) -> Any:
    """The assets of an item that GDAL fetches, as it fetches rasters: same retries, same credentials."""
    try:
        fields, _, _, columns = pyogrio.raw.read(
            gdal_path(item), columns=["assets"], read_geometry=False, FOREIGN_MEMBERS="ALL"
        )
    except pyogrio.errors.DataSourceError as error:
        raise DataError(f"{item}: cannot be read as a STAC item ({first_line(error)})") from error
    if list(fields["fields"]) != ["assets"] or len(columns[0]) != 1:
        raise DataError(f"{item}: not a STAC item; expected one GeoJSON feature with assets")
    return json.loads(columns[0][0])


def _holds_data(asset: Mapping[str, Any]) -> bool:
    roles = asset.get("roles")
    return "data" in roles if roles else str(asset.get("type", "")).startswith("image/tiff")


def _asset(item: str, key: str, asset: Mapping[str, Any]) -> _Asset:
    names = [key]
    bands = asset.get("eo:bands") or asset.get("bands") or []
    if len(bands) == 1:  # else the names say nothing about the one band that is expected
        names += [bands[0].get(word) for word in ("name", "common_name", "eo:common_name")]
    # of the asset, of its one band, or of that band as the raster extension once said it
    said = [asset, *bands[:1]] + [
        {f"raster:{key}": value for key, value in band.items()} for band in asset.get("raster:bands", [])[:1]
    ]
    scale, offset = (
        next((float(band[key]) for band in said if key in band), usual)
        for key, usual in (("raster:scale", 1.0), ("raster:offset", 0.0))
    )
    path = _place(item, str(asset["href"]))
    return _Asset(path, tuple(name for name in names if name), scale, offset)


def _scaled(header: RasterInfo, asset: _Asset) -> RasterInfo:
    """The header with the scale and offset of the item, where the file declares none."""
    if set(scale_offset(header, header.bands)) != {(1.0, 0.0)}:
        return header
    count = len(header.bands)
    return replace(header, scales=(asset.scale,) * count, offsets=(asset.offset,) * count)


def _place(item: str, href: str) -> str:
    """Where an asset lies, relative to its item unless it says otherwise."""
    if is_remote(href):
        return gdal_path(href)
    if not is_remote(item):
        return str(Path(item).parent / href)
    folder = gdal_path(item).rpartition("/")[0]
    for part in href.split("/"):  # os.path would make one slash of the two in http://
        if part == "..":
            folder = folder.rpartition("/")[0]
        elif part != ".":
            folder += f"/{part}"
    return folder


def _chosen(assets: list[_Asset], bands: Sequence[Band] | None, item: str) -> list[_Asset]:
    if not assets:
        raise DataError(f"{item}: the STAC item has no asset with the role data")
    if bands is None:
        return assets
    by_name = {name.lower(): asset for asset in reversed(assets) for name in asset.names}
    meant = _meant([band for band in bands if isinstance(band, str)], assets)
    chosen = []
    for band in bands:
        if isinstance(band, int) and 1 <= band <= len(assets):
            chosen.append(assets[band - 1])
        elif isinstance(band, str) and (asset := by_name.get(band.lower(), meant.get(band))):
            chosen.append(replace(asset, names=(band,)))
        else:
            raise DataError(f"{item}: no band {band!r} among its assets; {nearest(str(band), by_name)}")
    return chosen


def _meant(wanted: Sequence[str], assets: Sequence[_Asset]) -> dict[str, _Asset]:
    """The assets that bands are by the meaning of a name: by keys, else by names, else by common names."""
    found: dict[str, _Asset] = {}
    for names in zip_longest(*(asset.names for asset in assets), fillvalue=""):
        for band, place in zip(wanted, match(wanted, names), strict=True):
            if place is not None:
                found.setdefault(band, assets[place])
    return found
