"""Which rasters to map, what their maps are called, and whether the model can read them."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.errors import ConfigError, DataError
from geo_seg.raster.band_names import assign_bands, match_bands
from geo_seg.raster.open_image import check_types, open_image, read_image_info
from geo_seg.raster.paths import container_of, display_name, rasters_at
from geo_seg.raster.reader import RasterInfo
from geo_seg.runtime.cache_dir import cache_dir

CLASSES = "_classes.tif"
PROBABILITIES = "_probabilities.tif"
UNCERTAINTIES = "_uncertainty.tif"
POLYGONS = "_polygons.gpkg"
DIFFERENCE = "_difference.tif"
COMPANION_SUFFIXES = (PROBABILITIES, UNCERTAINTIES, DIFFERENCE, POLYGONS)
"""Ends of the names of what may lie beside a class raster."""

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg")
"""Of files that are taken for rasters in a folder."""

_LONGEST = 255 - len(f"{DIFFERENCE}.aux.xml")  # bytes of a name of a map that leave room for its files
_STAC_SUFFIXES = {
    ".json"
}  # STAC items; a folder may hold other JSON files, too, so that they have to be named


def find_rasters(given: Any, output: Path) -> dict[str, str]:
    """Finds the rasters that the configuration names.

    Args:
        given: a file, a folder (its rasters, not those of folders inside), a glob, a STAC item, anything else
            that GDAL opens (/vsicurl/..., s3://..., NETCDF:...), or a list of these.
        output: the folder of the maps; maps that lie there already are no input.

    Returns:
        The rasters by the name of their map: the file's name without suffix (and what it is called inside a
        container), with the names of folders before it where it would not be unique.

    Raises:
        DataError: there is nothing.
        ConfigError: given is no path.
    """
    patterns = given if isinstance(given, list) else [given]
    found: list[str] = []
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise ConfigError(f"input={given!r}: expected a file, a folder, a glob or a list of these")
        found += [path for path in _expand(pattern) if path not in found and not _is_map(Path(path), output)]
    if not found:
        raise DataError(f"input={given}: there is no raster there")
    names = _names(found)
    for name, path in zip(names, found, strict=True):
        _check_name(name, path)
    return dict(zip(names, found, strict=True))


def open_raster(path: str, checkpoint: Checkpoint) -> tuple[RasterInfo, tuple[int, ...], list[str]]:
    """The header of a raster, the bands of it that the model takes, in its order, and notes on them.

    Args:
        path: what find_rasters gives; the assets of a STAC item that the model takes become one raster.
        checkpoint: of the model.

    Raises:
        DataError: it can't be opened, or doesn't have these bands.
    """
    if Path(path).suffix.lower() not in _STAC_SUFFIXES:
        info = read_image_info(path)
        return info, *bands_for(info, checkpoint)
    names = checkpoint.band_names if all(checkpoint.band_names) else None
    info, bands = open_image((path,), names or checkpoint.bands, cache_dir(None))
    if len(bands) != checkpoint.in_channels:
        raise DataError(
            f"{path}: has {len(bands)} bands in its assets, the model takes {checkpoint.in_channels} bands "
            "without names; give a list of files, or a VRT of the ones that are meant"
        )
    return info, bands, []


def bands_for(info: RasterInfo, checkpoint: Checkpoint) -> tuple[tuple[int, ...], list[str]]:
    """The bands of a raster that the model takes, in its order, and notes on them.

    Bands are found by the names that they had in training, or by what these mean; those that no name tells
    are taken by their numbers.

    Raises:
        DataError: the raster doesn't have them, or names and order contradict each other.
    """
    wanted = checkpoint.band_names
    there = {**dict.fromkeys(info.alpha, ""), **dict(zip(info.bands, info.names, strict=True))}
    if checkpoint.bands is None:
        by_number = list(info.bands)
        there = {band: there[band] for band in info.bands}
        if len(by_number) != checkpoint.in_channels and None in match_bands(wanted, list(there.values())):
            raise DataError(
                f"{info.path}: has {len(by_number)} bands, the model takes {checkpoint.in_channels} "
                f"({', '.join(checkpoint.metadata.band_names)}); give a raster with just these, or name its "
                "bands"
            )
        numbers = [*by_number, *[None] * len(wanted)][: len(wanted)]
    else:
        numbers = [band if isinstance(band, int) else None for band in checkpoint.bands]
    found = assign_bands(info.path, wanted, numbers, there)
    check_types(info, found.bands)
    notes = []
    if found.renamed:
        listed = ", ".join(f"{name} = {other}" for name, other in found.renamed)
        notes.append(f"bands found by other names than in training: {listed}")
    if found.numbered:
        listed = ", ".join(f"{name} = {number}" for name, number in found.numbered)
        notes.append(f"bands taken by number, for no name says which they are: {listed}")
    return found.bands, notes


def _expand(pattern: str) -> Sequence[str]:
    found = rasters_at(pattern, SUFFIXES)
    if not found and Path(pattern).is_dir():
        raise DataError(f"input={pattern}: there is no raster there; name a folder's other files by a glob")
    if not found:
        raise DataError(f"input={pattern}: no such file or folder, and no file matches it as a glob")
    return found


def _is_map(path: Path, output: Path) -> bool:
    return (
        path.name.endswith((CLASSES, PROBABILITIES, UNCERTAINTIES, DIFFERENCE))
        and path.parent.absolute() == output.absolute()
    )


def _check_name(name: str, path: str) -> None:
    """Raise a DataError if files of a map can't have its name."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"input={path!a}: its name is not UTF-8, which GDAL needs; rename it") from error
    if len(name.encode()) > _LONGEST:
        raise DataError(
            f"input={path}: its name has {len(name.encode())} bytes, expected {_LONGEST} at most: the files "
            "of its map have longer ones; rename it"
        )


def _names(paths: Sequence[str]) -> list[str]:
    stems = [display_name(path) for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    places = [Path(container_of(path)).absolute() for path in paths]
    shared = len(Path(os.path.commonpath(places)).parts)
    longer = [
        "_".join((*place.parent.parts[shared:], stem)) for place, stem in zip(places, stems, strict=True)
    ]
    twice = next((name for name, count in Counter(longer).items() if count > 1), None)
    if twice is not None:
        same = " and ".join(path for path, name in zip(paths, longer, strict=True) if name == twice)
        raise DataError(f"{same}: their maps would have the same name; give them one at a time")
    return longer
