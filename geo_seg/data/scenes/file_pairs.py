"""Files of each scene, matched by globs (equal text for the wildcards) or listed in a manifest."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pyogrio

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.scenes.manifest import Row, read_manifest
from geo_seg.errors import DataError, GeoSegError, OnError, raise_error
from geo_seg.raster.paths import container_of, is_raster_file, relocate
from geo_seg.runtime.redaction import short_names

VECTORS = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".gml", ".kml", ".sqlite", ".zip", ".tab")
"""Suffixes of vector files in a folder; a file that is named may have any that GDAL opens."""

_IS_VECTOR_BY_SUFFIX = {
    **dict.fromkeys((".gpkg", ".geojson", ".json", ".shp", ".fgb"), True),
    ".tif": False,
    ".png": False,
}
_WILDCARDS = r"(\*\*/|\*|\?|\[[^\]/]+\])"


@dataclass(frozen=True)
class SceneFiles:
    """The files of one scene.

    Attributes:
        name: path of the (first) image below root; outside of root its file name, with as many parent
            folders as make it unique. A second scene of the same name ends in #2.
        images: rasters, or a STAC item; several if the bands lie in several files.
        mask: a raster or a vector file.
        aoi: a vector file; labels outside of its polygons are ignored. None: no area of interest.
        split: "train", "val" or "test" if a manifest assigns it, else None.
    """

    name: str
    images: tuple[str, ...]
    mask: str
    aoi: str | None = None
    split: str | None = None


def find_scene_files(config: DatasetConfig, on_error: OnError = raise_error) -> list[SceneFiles]:
    """Return the files of each scene, in the order of their names or of the manifest.

    Args:
        config: the data set.
        on_error: called with an error for images without a mask, a band or an area of interest.

    Raises:
        DataError: there are no images, an image lacks its mask or a band, or a row of the manifest can't be
            read.
    """
    root = _root(config)
    if config.manifest is not None:
        rows = read_manifest(root, config.manifest, config.allow_outside)
        first_images = [row.images[0] for row in rows]
        outside = short_names(
            [name for name in first_images if not Path(container_of(name)).is_relative_to(root)]
        )
        return _with_unique_names([_scene_files(root, row, outside) for row in rows])
    return _with_unique_names(_by_globs(root, config, on_error))


def first_image(config: DatasetConfig) -> tuple[str, ...] | None:
    """Return the files of one image without listing all, or None if that needs a full listing.

    Raises:
        DataError: the folder or an image doesn't exist, or a row of the manifest can't be read.
    """
    root = _root(config)
    if config.manifest is not None:
        return read_manifest(root, config.manifest, config.allow_outside)[0].images
    globs = config.images if isinstance(config.images, list) else [config.images]
    if len(globs) > 1:
        return None  # bands in several files are matched over all files
    return (_first_match(root, globs[0]),)


def _root(config: DatasetConfig) -> Path:
    root = Path(config.root)
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; set dataset.root=, or GEO_SEG_DATA for the data sets that use it"
        )
    return root


def is_vector(path: str) -> bool:
    """Return whether a mask is a vector file, that is, has a layer with geometries."""
    by_suffix = _IS_VECTOR_BY_SUFFIX.get(Path(path).suffix.lower())
    return _has_vector_layer(path) if by_suffix is None else by_suffix


@cache  # called several times for a file, and some formats are read as a whole to list layers
def _has_vector_layer(path: str) -> bool:
    try:
        return any(geometry_type is not None for _, geometry_type in pyogrio.list_layers(path))
    except (RuntimeError, ValueError):  # what pyogrio raises derives from RuntimeError
        return False


def _scene_files(root: Path, row: Row, outside: Mapping[str, str]) -> SceneFiles:
    first = row.images[0]
    name = outside[first] if first in outside else _relative_name(root, first)
    return SceneFiles(name, row.images, row.mask, row.aoi, row.split)


def _relative_name(root: Path, name: str) -> str:
    """Return the path of a file relative to root."""
    return relocate(name, Path(container_of(name)).relative_to(root).as_posix())


def _with_unique_names(sources: list[SceneFiles]) -> list[SceneFiles]:
    """Append a number to names that are not unique; raise an error for duplicate scenes."""
    if len(set(sources)) < len(sources):
        duplicate = next(source for source, count in Counter(sources).items() if count > 1)
        raise DataError(f"{duplicate.name} with {duplicate.mask} is listed twice; see dataset.manifest")
    counts: Counter[str] = Counter()
    renamed = []
    for source in sources:
        counts[source.name] += 1
        number = counts[source.name]
        renamed.append(source if number == 1 else replace(source, name=f"{source.name}#{number}"))
    return renamed


def _by_globs(root: Path, config: DatasetConfig, on_error: OnError) -> list[SceneFiles]:
    globs = config.images if isinstance(config.images, list) else [config.images]
    bands = [_matches(root, glob) for glob in globs]
    if not bands[0]:
        raise _no_images_error(root, globs[0])
    for glob, files in zip(globs, bands, strict=True):
        _check_complete(root, bands[0], files, glob, f"no file {glob}", on_error)
    skip = config.unlabelled == "skip"
    on_error = _skip if skip else on_error
    masks = _match_files(root, bands[0], str(config.masks), "no mask", on_error)
    areas = (
        _match_files(root, bands[0], config.aoi, "no area of interest", on_error) if config.aoi else bands[0]
    )
    complete = set(bands[0]).intersection(masks, areas, *bands)
    if skip and not complete:
        raise DataError(f"no image has a mask: none matches {root / str(config.masks)}; see dataset.masks")
    return [
        SceneFiles(
            _relative_name(root, path),
            tuple(files[key] for files in bands),
            masks[key],
            areas[key] if config.aoi else None,
        )
        for key, path in sorted(bands[0].items())
        if key in complete
    ]


def _skip(error: GeoSegError) -> None:
    """Leave a scene out without a message."""


_Matches = dict[tuple[str, ...], str]  # path by the text of the wildcards


def _match_files(root: Path, images: _Matches, pattern: str, missing: str, on_error: OnError) -> _Matches:
    """Return the file of each image; a pattern without wildcards is one file for all images."""
    if not re.search(_WILDCARDS, pattern):
        path = root / container_of(pattern)
        if not path.exists():
            raise DataError(f"{path}: no such file; see dataset.masks and dataset.aoi")
        return dict.fromkeys(images, relocate(pattern, path))
    files = _matches(root, pattern)
    _check_complete(root, images, files, pattern, missing, on_error)
    return files


def _check_complete(
    root: Path, images: _Matches, files: _Matches, pattern: str, missing: str, on_error: OnError
) -> None:
    incomplete = [path for key, path in images.items() if key not in files]
    if incomplete:
        on_error(
            DataError(
                f"{incomplete[0]}: {missing} for this image ({len(incomplete)} of {len(images)} images have "
                f"none); it would match {root / pattern} with the same text for the wildcards"
            )
        )


def _hint(root: Path, pattern: str) -> str:
    """Return a hint if the glob is a folder, or its folder holds files with other suffixes."""
    path = root / pattern
    if path.is_dir():
        return f", which is a folder; {pattern.rstrip('/')}/*.tif names the files in it"
    if re.search(_WILDCARDS, str(path.parent)) or not path.parent.is_dir():
        return ""
    suffixes = Counter(file.suffix for file in path.parent.iterdir() if file.is_file())
    if not suffixes:
        return ""
    return f"; available: {', '.join(f'{n} *{suffix}' for suffix, n in suffixes.most_common(4))}"


def _no_images_error(root: Path, glob: str) -> DataError:
    return DataError(f"no images match {root / glob}{_hint(root, glob)}; see dataset.root and dataset.images")


def _first_match(root: Path, pattern: str) -> str:
    glob, regex = _pattern(root, container_of(pattern))
    for path in root.glob(glob):
        if regex.fullmatch(path.relative_to(root).as_posix()) and is_raster_file(path):
            return relocate(pattern, path)
    raise _no_images_error(root, pattern)


def _matches(root: Path, pattern: str) -> _Matches:
    """Return the rasters and vector files that match a glob, keyed by the text of its wildcards."""
    glob, regex = _pattern(root, container_of(pattern))
    files = {}
    for path in sorted(root.glob(glob)):
        match = regex.fullmatch(path.relative_to(root).as_posix())
        if match and is_raster_file(path):
            files[match.groups()] = relocate(pattern, path)
    return files


def _pattern(root: Path, pattern: str) -> tuple[str, re.Pattern[str]]:
    """Return a glob relative to root, and as a regular expression whose groups are its wildcards."""
    if Path(pattern).is_absolute():
        pattern = os.path.relpath(pattern, root.resolve())  # Path.glob accepts relative patterns only
    pattern = os.path.normpath(pattern)  # removes ./, which is in no path that Path.glob yields
    return pattern, re.compile("".join(_expression(part) for part in re.split(_WILDCARDS, pattern)))


def _expression(part: str) -> str:
    """Convert a part of a glob to a regular expression."""
    if re.fullmatch(r"\[.+\]", part):
        return f"([^{part[2:]})" if part[1] == "!" else f"({part})"
    return {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "([^/])"}.get(part, re.escape(part))
