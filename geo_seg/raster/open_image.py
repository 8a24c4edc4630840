"""Sources of images: files, band stacks, STAC items and a user's own, each opened as one raster."""

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from geo_seg.errors import DataError
from geo_seg.raster.georeference import affine_of, describe_grid, same_grid
from geo_seg.raster.paths import absolute_path, is_remote
from geo_seg.raster.reader import Band, RasterInfo, read_info, resolve_bands
from geo_seg.raster.stac_items import item_bands
from geo_seg.raster.vrt import VRT_TYPES, VrtBand, VrtSource, vrt_xml
from geo_seg.runtime.cache_dir import write_cache_file


@dataclass(frozen=True)
class SourceContext:
    """What a source opens an image with.

    Attributes:
        folder: for VRTs, which are named by a hash of their content.
        read_info: reads the header of a raster.
        root: folder that files of an image must be inside of; None for anywhere.
    """

    folder: Path
    read_info: Callable[[str], RasterInfo]
    root: Path | None


class RasterSource(Protocol):
    """A kind of image; what it opens is a raster of GDAL, from which pixels are read."""

    def accepts(self, images: Sequence[str]) -> bool:
        """Return whether an image, given as one path or several, is of this kind."""

    def open(
        self, images: Sequence[str], bands: Sequence[Band] | None, context: SourceContext
    ) -> tuple[RasterInfo, tuple[int, ...]]:
        """Return the header of an image and the chosen bands; see open_image."""


class StacItem:
    """A STAC item; only the assets that hold the bands are opened."""

    def accepts(self, images: Sequence[str]) -> bool:
        """Return whether an image is a JSON file."""
        return len(images) == 1 and images[0].lower().endswith(".json")

    def open(
        self, images: Sequence[str], bands: Sequence[Band] | None, context: SourceContext
    ) -> tuple[RasterInfo, tuple[int, ...]]:
        """Return the header of the stacked bands, and all of them."""
        headers = item_bands(
            images[0], bands, lambda path: read_image_info(path, context.read_info), context.root
        )
        header = context.read_info(_stack(headers, context.folder))
        return header, header.bands


class RasterFiles:
    """One raster that GDAL opens, such as a VRT, or several on the same grid."""

    def accepts(self, images: Sequence[str]) -> bool:
        """Return True: anything else is a path that GDAL may know."""
        return True

    def open(
        self, images: Sequence[str], bands: Sequence[Band] | None, context: SourceContext
    ) -> tuple[RasterInfo, tuple[int, ...]]:
        """Return the header of the raster, or of the stack of several."""
        headers = [read_image_info(image, context.read_info) for image in images]
        header = headers[0] if len(headers) == 1 else context.read_info(_stack(headers, context.folder))
        chosen = resolve_bands(header, bands)
        check_types(header, chosen)
        return header, chosen


_SOURCES: list[RasterSource] = [StacItem(), RasterFiles()]
S = TypeVar("S", bound=type[RasterSource])


def register_source(source: S) -> S:
    """Register a class of sources; a decorator. Later ones are asked first."""
    _SOURCES.insert(0, source())
    return source


def source_of(images: Sequence[str]) -> RasterSource:
    """Return the source that opens an image."""
    return next(source for source in _SOURCES if source.accepts(images))


def open_image(
    images: Sequence[str],
    bands: Sequence[Band] | None,
    folder: Path,
    read_info: Callable[[str], RasterInfo] = read_info,
    root: Path | None = None,
) -> tuple[RasterInfo, tuple[int, ...]]:
    """Return the header of an image and the chosen bands; several files become one VRT.

    Args:
        images: one raster, one STAC item, several rasters on the same grid, or paths of a registered source.
        bands: numbers or names, in output order; None for all data bands.
        folder: see SourceContext, like the following.
        read_info: reads the header of a raster.
        root: folder that files of the image must be inside of; None for anywhere.

    Raises:
        DataError: a file can't be opened, is outside of root or on another grid, or a band is missing.
    """
    return source_of(images).open(images, bands, SourceContext(folder, read_info, root))


def check_types(info: RasterInfo, bands: Sequence[int]) -> None:
    """Check that bands which are read together have the same type.

    Raises:
        DataError: they differ; names two of them.
    """
    types = {band: dtype for band, dtype in zip(info.bands, info.types, strict=False) if band in bands}
    for band, dtype in types.items():
        first = next(iter(types))
        if dtype != types[first]:
            raise DataError(
                f"{info.path}: band {first} holds {types[first]}, band {band} holds {dtype}; the bands of an "
                "image must hold one type; gdal_translate -ot Float32 is one way to convert them"
            )


def read_image_info(path: str, read_info: Callable[[str], RasterInfo] = read_info) -> RasterInfo:
    """Read the header of a raster whose values are measurements.

    Raises:
        DataError: it can't be opened, or its values are indices of a palette.
    """
    header = read_info(path)
    if header.palette:
        raise DataError(
            f"{path}: its values are numbers of the colours of a palette, no measurements; expand them to "
            "red, green and blue (gdal_translate -expand rgb), or remove the palette if they are measurements"
        )
    return header


def _stack(headers: Sequence[RasterInfo], folder: Path) -> str:
    """Return the path of a VRT of rasters on the same grid, written unless it exists."""
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
    bands = []
    for header in headers:
        if header.dtype not in VRT_TYPES:
            raise DataError(f"{header.path}: holds {header.dtype}; expected one of {', '.join(VRT_TYPES)}")
        path = header.path if is_remote(header.path) else absolute_path(header.path)
        columns = (header.bands, header.names, header.nodata, header.masks)
        for number, name, nodata, mask in zip(*columns, strict=True):
            (pair,) = header.scale_offset([number])
            scale, offset = pair if pair != (1, 0) else (None, None)
            mask_band = f"mask,{mask}" if mask else str(header.transparent)
            bands.append(
                VrtBand(
                    dtype=header.dtype,
                    sources=[VrtSource(path, str(number))],
                    name=name,
                    nodata=nodata,
                    scale=scale,
                    offset=offset,
                    mask=VrtSource(path, mask_band) if mask or header.transparent else None,
                )
            )
    transform = affine_of(first).to_gdal() if first.transform else None
    return ET.tostring(vrt_xml(first.width, first.height, bands, first.crs, transform))
