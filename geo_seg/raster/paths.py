"""Paths of rasters: in containers such as ZIP and netCDF, remote ones, and those that GDAL takes."""

import os
import re
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

import rasterio
from rasterio.errors import RasterioError

from geo_seg.errors import DataError

_LISTED = 8  # subdatasets that a message names
_DRIVERS = (
    "netcdf|hdf5(?:image)?|zarr|gtiff_(?:dir|raw)|hdf4_\\w+|gpkg|nitf_im|sentinel[12]_\\w+|tiledb|bag|s10[24]|s111|"
    "derived_subdataset"
)
_BEFORE = rf'((?:{_DRIVERS}):(?:[^:"/.\\]*:)*'
_NAMES = tuple(
    re.compile(_BEFORE + rest, re.IGNORECASE)
    for rest in (r'")([^"]+)(".*)', r')((?!//)[^:"]*[./][^:"]*)((?::.*)?)')
)  # with the path in quotation marks, and without


class Subdataset(NamedTuple):
    """A name of GDAL's for a raster in a container.

    Attributes:
        before: driver, and what else stands before the path, an opening quote, too.
        path: of the container; may hold wildcards.
        after: what stands after it.
    """

    before: str
    path: str
    after: str

    def at(self, path: str) -> str:
        """The name of what is called the same in another container."""
        return f"{self.before}{path}{self.after}"

    @property
    def inside(self) -> str:
        """What the raster is called in its container, in letters that any file name may have."""
        said = self.before.partition(":")[2] + self.after
        return re.sub(r"\W+", "_", said).strip("_")


def subdataset(name: str) -> Subdataset | None:
    """The parts of a name of GDAL's; None for a path or an address."""
    found = next(filter(None, (kind.fullmatch(name) for kind in _NAMES)), None)
    return Subdataset(*found.groups()) if found and not Path(name).exists() else None


def has_sure_path(name: str) -> bool:
    """Whether a driver opens the path that container() finds in a name, and no other."""
    found = subdataset(name)
    return found is None or re.fullmatch(r'(NETCDF|HDF5|ZARR):"?', found.before, re.IGNORECASE) is not None


def container_of(name: str) -> str:
    """The path of the file or folder that holds a raster: the name itself, but for one inside a container."""
    found = subdataset(name)
    return found.path if found else name


def relocate(name: str, path: str | Path) -> str:
    """The name of a raster whose container lies at another path."""
    found = subdataset(name)
    return found.at(str(path)) if found else str(path)


def absolute_path(name: str) -> str:
    """The name of a raster with an absolute path in it."""
    return relocate(name, Path(container_of(name)).absolute())


def display_name(name: str) -> str:
    """What to call a raster: its file's name without suffix, and what it is called inside."""
    found = subdataset(name)
    return f"{Path(found.path).stem}_{found.inside}" if found else Path(name).stem


def is_raster_file(path: Path) -> bool:
    """Whether there is a file, or a folder that GDAL takes for a raster or a container, as of Zarr."""
    if not path.is_dir():
        return path.is_file()
    try:
        with rasterio.open(path):
            return True
    except RasterioError:
        return False


def rasters_at(pattern: str, suffixes: Sequence[str]) -> list[str]:
    """The rasters that a path stands for.

    Args:
        pattern: a file, a folder that is a raster or holds some, a glob, what GDAL opens otherwise
            (/vsicurl/..., s3://...), or a name of GDAL's with any of these as its path.
        suffixes: of files that are taken from a folder.

    Returns:
        Their names in order; none where there is nothing.
    """
    inner = container_of(pattern)
    if inner.startswith("/vsi") or "://" in inner or is_raster_file(Path(inner)):
        return [pattern]
    if Path(inner).is_dir():
        files = sorted(Path(inner).iterdir())
        found = [path for path in files if path.is_dir() or path.suffix.lower() in suffixes]
    else:
        found = sorted(map(Path, glob(inner, recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute ones
    return [relocate(pattern, path) for path in found if is_raster_file(path)]


def open_source(path: str | Path) -> Any:
    """Opens a raster of real numbers.

    Raises:
        DataError: there is none: nothing can be opened, or only a container of others, or complex numbers.
    """
    try:
        source = rasterio.open(path)
    except RasterioError as error:
        reason = _describe_missing(path) or str(error).split(": ")[-1]
        raise DataError(f"{path}: cannot be opened as a raster ({reason})") from error
    wrong = _describe_unreadable(source)
    if wrong:
        source.close()
        raise DataError(f"{path}: {wrong}")
    return source


def _describe_unreadable(source: Any) -> str:
    """What speaks against a raster, or ""."""
    if not source.count:
        names = source.subdatasets
        listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if names[_LISTED:] else "")
        return "holds no band of its own" + (f"; name what is meant of its {listed}" if names else "")
    complex_type = next((kind for kind in source.dtypes if kind.startswith("complex")), None)
    if complex_type:
        return (
            f"holds complex numbers ({complex_type}), of which a model would see the real part only; make "
            "bands of their amplitude, or of real and imaginary part"
        )
    return ""


def _describe_missing(path: str | Path) -> str:
    """Why there is nothing to read in a file, or ""."""
    place = container_of(str(path))
    if place.startswith("/vsi") or "://" in place:
        return ""
    if not Path(place).exists():
        return "no such file"
    return "the file is empty" if Path(place).is_file() and not Path(place).stat().st_size else ""


_STORES = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}


def gdal_path(path: str) -> str:
    """A path as GDAL takes it: http://, https://, s3://, gs:// and az:// become /vsi paths."""
    found = subdataset(path)
    if found:
        return found.at(gdal_path(found.path))
    scheme, mark, rest = path.partition("://")
    if not mark or path.startswith("/vsi"):
        return path
    return f"{_STORES[scheme]}{rest}" if scheme in _STORES else f"/vsicurl/{path}"


def is_remote(path: str) -> bool:
    """Whether a path is GDAL's own, not one of the file system."""
    place = container_of(path)
    return place.startswith("/vsi") or "://" in place


def check_below_root(path: str | Path, root: Path, named: str) -> None:
    """Raise unless a file lies below a folder, wherever symbolic links lead.

    Args:
        path: of the file.
        root: the folder of the data set.
        named: who named it, and how; it begins the message.

    Raises:
        DataError: it lies elsewhere, or is remote.
    """
    inner = container_of(str(path))
    if is_remote(inner) or not has_sure_path(str(path)):
        place = ""
    elif (resolved := Path(os.path.realpath(inner))).is_relative_to(os.path.realpath(root)):
        return
    else:
        place = "" if str(resolved) in named else f" but at {resolved}"
    raise DataError(
        f"{named} is not below dataset.root={root}{place}; dataset.allow_outside=true takes what manifests "
        "and STAC items name there"
    )
