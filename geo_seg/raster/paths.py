"""Paths of rasters: in containers such as ZIP and netCDF, remote ones, and those that GDAL takes."""

import os
import re
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from geo_seg.errors import DataError

_MAX_SUBDATASETS_SHOWN = 8
_DRIVERS = (
    "netcdf|hdf5(?:image)?|zarr|gtiff_(?:dir|raw)|hdf4_\\w+|gpkg|nitf_im|sentinel[12]_\\w+|tiledb|bag|s10[24]|s111|"
    "derived_subdataset"
)
_PREFIX_PATTERN = rf'((?:{_DRIVERS}):(?:[^:"/.\\]*:)*'
_NAME_PATTERNS = tuple(
    re.compile(_PREFIX_PATTERN + rest, re.IGNORECASE)
    for rest in (r'")([^"]+)(".*)', r')((?!//)[^:"]*[./][^:"]*)((?::.*)?)')
)  # with the path in quotation marks, and without


class Subdataset(NamedTuple):
    """GDAL's name of a raster in a container.

    Attributes:
        before: everything before the path: driver and opening quote.
        path: of the container; may contain wildcards.
        after: everything after the path.
    """

    before: str
    path: str
    after: str

    def at(self, path: str) -> str:
        """Return the name of the same raster in another container."""
        return f"{self.before}{path}{self.after}"

    @property
    def inside(self) -> str:
        """Name of the raster in its container, in characters that any file name may have."""
        name = self.before.partition(":")[2] + self.after
        return re.sub(r"\W+", "_", name).strip("_")


def subdataset(name: str) -> Subdataset | None:
    """Return the parts of GDAL's name of a subdataset; None for a path or an address."""
    match = next(filter(None, (pattern.fullmatch(name) for pattern in _NAME_PATTERNS)), None)
    return Subdataset(*match.groups()) if match and not Path(name).exists() else None


def has_sure_path(name: str) -> bool:
    """Return whether GDAL opens exactly the path that container_of returns."""
    parts = subdataset(name)
    return parts is None or re.fullmatch(r'(NETCDF|HDF5|ZARR):"?', parts.before, re.IGNORECASE) is not None


def container_of(name: str) -> str:
    """Return the path of the file or folder of a raster: of its container, if it is in one."""
    parts = subdataset(name)
    return parts.path if parts else name


def relocate(name: str, path: str | Path) -> str:
    """Return the name of a raster with another path of its container."""
    parts = subdataset(name)
    return parts.at(str(path)) if parts else str(path)


def absolute_path(name: str) -> str:
    """Return the name of a raster with an absolute path."""
    return relocate(name, Path(container_of(name)).absolute())


def display_name(name: str) -> str:
    """Return the file name without suffix, and the name inside its container, if it is in one."""
    parts = subdataset(name)
    return f"{Path(parts.path).stem}_{parts.inside}" if parts else Path(name).stem


def is_raster_file(path: Path) -> bool:
    """Return whether a path is a file, or a folder that GDAL opens as a raster, such as Zarr."""
    if not path.is_dir():
        return path.is_file()
    try:
        with rasterio.open(path):
            return True
    except RasterioError:
        return False


def rasters_at(pattern: str, suffixes: Sequence[str]) -> list[str]:
    """Return the rasters that a path or pattern names.

    Args:
        pattern: a file, a folder that is a raster or contains some, a glob, a remote path (/vsicurl/...,
            s3://...), or GDAL's name of a subdataset with any of these as its path.
        suffixes: of the files to use from a folder.

    Returns:
        Their names, sorted; empty if there is none.
    """
    inner = container_of(pattern)
    if inner.startswith("/vsi") or "://" in inner or is_raster_file(Path(inner)):
        return [pattern]
    if Path(inner).is_dir():
        files = sorted(Path(inner).iterdir())
        paths = [path for path in files if path.is_dir() or path.suffix.lower() in suffixes]
    else:
        paths = sorted(map(Path, glob(inner, recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute ones
    return [relocate(pattern, path) for path in paths if is_raster_file(path)]


def open_source(path: str | Path) -> DatasetReader:
    """Open a raster of real numbers.

    Raises:
        DataError: it can't be opened, is a container of other rasters, or has complex numbers.
    """
    try:
        source = rasterio.open(path)
    except RasterioError as error:
        reason = _describe_missing(path) or str(error).split(": ")[-1]
        raise DataError(f"{path}: cannot be opened as a raster ({reason})") from error
    problem = _describe_unreadable(source)
    if problem:
        source.close()
        raise DataError(f"{path}: {problem}")
    return source


def _describe_unreadable(source: DatasetReader) -> str:
    """Return why a raster can't be used, or ""."""
    if not source.count:
        names = source.subdatasets
        listed = ", ".join(names[:_MAX_SUBDATASETS_SHOWN]) + (
            f" and {len(names) - _MAX_SUBDATASETS_SHOWN} more" if names[_MAX_SUBDATASETS_SHOWN:] else ""
        )
        return "holds no band of its own" + (f"; name what is meant of its {listed}" if names else "")
    complex_type = next((dtype for dtype in source.dtypes if dtype.startswith("complex")), None)
    if complex_type:
        return (
            f"holds complex numbers ({complex_type}), of which a model would see the real part only; make "
            "bands of their amplitude, or of real and imaginary part"
        )
    return ""


def _describe_missing(path: str | Path) -> str:
    """Return why a path can't be opened, or "" if unknown."""
    container = container_of(str(path))
    if container.startswith("/vsi") or "://" in container:
        return ""
    if not Path(container).exists():
        return "no such file"
    return "the file is empty" if Path(container).is_file() and not Path(container).stat().st_size else ""


_STORES = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}


def gdal_path(path: str) -> str:
    """Return a path for GDAL: http://, https://, s3://, gs:// and az:// become /vsi paths."""
    parts = subdataset(path)
    if parts:
        return parts.at(gdal_path(parts.path))
    scheme, mark, rest = path.partition("://")
    if not mark or path.startswith("/vsi"):
        return path
    return f"{_STORES[scheme]}{rest}" if scheme in _STORES else f"/vsicurl/{path}"


def is_remote(path: str) -> bool:
    """Return whether a path is one of GDAL's virtual file systems, not a local one."""
    container = container_of(path)
    return container.startswith("/vsi") or "://" in container


def check_below_root(path: str | Path, root: Path, named: str) -> None:
    """Raise unless a file is inside a folder, with symbolic links resolved.

    Args:
        path: of the file.
        root: the folder of the data set.
        named: beginning of the message, says where the path comes from.

    Raises:
        DataError: it is elsewhere, or remote.
    """
    inner = container_of(str(path))
    if is_remote(inner) or not has_sure_path(str(path)):
        location = ""
    elif (resolved := Path(os.path.realpath(inner))).is_relative_to(os.path.realpath(root)):
        return
    else:
        location = "" if str(resolved) in named else f" but at {resolved}"
    raise DataError(
        f"{named} is not below dataset.root={root}{location}; dataset.allow_outside=true takes what "
        "manifests and STAC items name there"
    )
