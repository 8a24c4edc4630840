"""Input rasters: finding and opening them, names of their maps, and matching of bands."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.errors import ConfigError, DataError
from geo_seg.inference.products.product import Raster, registered_products
from geo_seg.raster.band_names import assign_bands, match_bands
from geo_seg.raster.open_image import RasterFiles, check_types, open_image, read_image_info, source_of
from geo_seg.raster.paths import container_of, display_name, rasters_at
from geo_seg.raster.reader import RasterInfo
from geo_seg.runtime.cache_dir import cache_dir

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg")
"""File name suffixes of rasters in a folder."""

_MAX_NAME_BYTES = 255 - len("_difference.tif.aux.xml")  # of a map, so that all its files have valid names


def find_rasters(value: str | list[str], output: Path) -> dict[str, str]:
    """Find the input rasters.

    Args:
        value: a file, a folder (not recursive), a glob, a STAC item, any other path that GDAL opens
            (/vsicurl/..., s3://..., NETCDF:...), or a list of these.
        output: the output folder; maps in it are not used as input.

    Returns:
        Paths by name of the map: the file name without suffix (and the name inside a container), prefixed by
        names of folders if it isn't unique.

    Raises:
        DataError: no raster is found.
        ConfigError: value is neither a path nor a list of paths.
    """
    patterns = value if isinstance(value, list) else [value]
    paths: list[str] = []
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise ConfigError(f"input={value!r}: expected a file, a folder, a glob or a list of these")
        paths += [path for path in _expand(pattern) if path not in paths and not _is_map(Path(path), output)]
    if not paths:
        raise DataError(f"input={value}: no raster found")
    names = _map_names(paths)
    for name, path in zip(names, paths, strict=True):
        _check_name(name, path)
    return dict(zip(names, paths, strict=True))


def open_raster(path: str, checkpoint: Checkpoint) -> tuple[RasterInfo, tuple[int, ...], list[str]]:
    """Return the header of a raster, the bands of the model in its order, and notes about them.

    Args:
        path: a path of find_rasters; the required assets of a STAC item are stacked into one raster.
        checkpoint: of the model.

    Raises:
        DataError: the raster can't be opened, or a band is missing.
    """
    if isinstance(source_of((path,)), RasterFiles):
        info = read_image_info(path)
        return info, *bands_for(info, checkpoint)
    band_names = checkpoint.band_names if all(checkpoint.band_names) else None
    info, bands = open_image((path,), band_names or checkpoint.bands, cache_dir(None))
    if len(bands) != checkpoint.in_channels:
        raise DataError(
            f"{path}: has {len(bands)} bands in its assets, the model takes {checkpoint.in_channels} bands "
            "without names; give a list of files, or a VRT of the required ones"
        )
    return info, bands, []


def bands_for(info: RasterInfo, checkpoint: Checkpoint) -> tuple[tuple[int, ...], list[str]]:
    """Return the bands of the model in its order, and notes about them.

    Bands are matched by their names in training or synonyms of these, else by number.

    Raises:
        DataError: a band is missing, or names and order contradict each other.
    """
    names = checkpoint.band_names
    available = {**dict.fromkeys(info.alpha, ""), **dict(zip(info.bands, info.names, strict=True))}
    if checkpoint.bands is None:
        numbers_in_file = list(info.bands)
        available = {band: available[band] for band in info.bands}
        if len(numbers_in_file) != checkpoint.in_channels and None in match_bands(
            names, list(available.values())
        ):
            raise DataError(
                f"{info.path}: has {len(numbers_in_file)} bands, the model takes {checkpoint.in_channels} "
                f"({', '.join(checkpoint.metadata.band_names)}); give a raster with just these, or name its "
                "bands"
            )
        numbers = [*numbers_in_file, *[None] * len(names)][: len(names)]
    else:
        numbers = [band if isinstance(band, int) else None for band in checkpoint.bands]
    assigned = assign_bands(info.path, names, numbers, available)
    check_types(info, assigned.bands)
    notes = []
    if assigned.renamed:
        listed = ", ".join(f"{name} = {band_name}" for name, band_name in assigned.renamed)
        notes.append(f"bands matched by other names than in training: {listed}")
    if assigned.numbered:
        listed = ", ".join(f"{name} = {number}" for name, number in assigned.numbered)
        notes.append(f"bands matched by number, as they have no known names: {listed}")
    return assigned.bands, notes


def _expand(pattern: str) -> Sequence[str]:
    paths = rasters_at(pattern, SUFFIXES)
    if not paths and Path(pattern).is_dir():
        raise DataError(f"input={pattern}: no raster found there; use a glob for other files of a folder")
    if not paths:
        raise DataError(f"input={pattern}: no such file or folder, and no file matches it as a glob")
    return paths


def _is_map(path: Path, output: Path) -> bool:
    return (
        path.name.endswith(tuple(each.suffix for each in registered_products() if issubclass(each, Raster)))
        and path.parent.absolute() == output.absolute()
    )


def _check_name(name: str, path: str) -> None:
    """Raise a DataError if a name is not valid for the files of a map."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"input={path!a}: its name is not UTF-8, which GDAL needs; rename it") from error
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise DataError(
            f"input={path}: its name has {len(name.encode())} bytes, expected {_MAX_NAME_BYTES} at most: "
            "the files of its map have longer names; rename it"
        )


def _map_names(paths: Sequence[str]) -> list[str]:
    stems = [display_name(path) for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    absolute_paths = [Path(container_of(path)).absolute() for path in paths]
    n_shared_parts = len(Path(os.path.commonpath(absolute_paths)).parts)
    names = [
        "_".join((*path.parent.parts[n_shared_parts:], stem))
        for path, stem in zip(absolute_paths, stems, strict=True)
    ]
    duplicate = next((name for name, count in Counter(names).items() if count > 1), None)
    if duplicate is not None:
        conflicting = " and ".join(path for path, name in zip(paths, names, strict=True) if name == duplicate)
        raise DataError(f"{conflicting}: their maps would have the same name; map them one at a time")
    return names
