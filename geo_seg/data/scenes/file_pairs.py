"""Which files a scene consists of: globs whose wildcards stand for the same text, or rows of a manifest."""

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
"""Ends of vector files, which are taken from a folder; named ones may have any that GDAL opens."""

_SURE = {**dict.fromkeys((".gpkg", ".geojson", ".json", ".shp", ".fgb"), True), ".tif": False, ".png": False}
_WILDCARDS = r"(\*\*/|\*|\?|\[[^\]/]+\])"


@dataclass(frozen=True)
class SceneFiles:
    """The files of one scene.

    Attributes:
        name: path of the (first) image below root; of one that lies elsewhere the name, with as many folders
            before it as tell it from others. A second scene of the same name ends in #2.
        images: rasters, or a STAC item; several where the bands lie in several files.
        mask: a raster or a vector file.
        aoi: a vector file; labels outside of its polygons are ignored. None: all count.
        split: what a manifest says: "train", "val", "test", or None.
    """

    name: str
    images: tuple[str, ...]
    mask: str
    aoi: str | None = None
    split: str | None = None


def find_scene_files(config: DatasetConfig, on_error: OnError = raise_error) -> list[SceneFiles]:
    """The scenes of a data set, in the order of their names or of the manifest.

    Args:
        config: the data set.
        on_error: is told of images that lack a mask, a band or an area of interest.

    Raises:
        DataError: there are none, an image lacks its mask or a band, or a row of the manifest can't be read.
    """
    root = _root(config)
    if config.manifest is not None:
        rows = read_manifest(root, config.manifest, config.allow_outside)
        first = [row.images[0] for row in rows]
        outside = short_names([name for name in first if not Path(container_of(name)).is_relative_to(root)])
        return _named([_source(root, row, outside) for row in rows])
    return _named(_by_globs(root, config, on_error))


def first_image(config: DatasetConfig) -> tuple[str, ...] | None:
    """Return the files of some image, without a look at all of them; None where that takes one.

    Raises:
        DataError: there is no such folder or no image, or a row of the manifest can't be read.
    """
    root = _root(config)
    if config.manifest is not None:
        return read_manifest(root, config.manifest, config.allow_outside)[0].images
    globs = config.images if isinstance(config.images, list) else [config.images]
    if len(globs) > 1:
        return None  # which files belong together is seen when all are known
    return (_first(root, globs[0]),)


def _root(config: DatasetConfig) -> Path:
    root = Path(config.root)
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; set dataset.root=, or GEO_SEG_DATA for the data sets that use it"
        )
    return root


def is_vector(path: str) -> bool:
    """Whether a mask is a vector file: GDAL finds a layer of shapes in it."""
    sure = _SURE.get(Path(path).suffix.lower())
    return _has_shapes(path) if sure is None else sure


@cache  # a file is asked several times, and to look into some is to read all of them
def _has_shapes(path: str) -> bool:
    try:
        return any(kind is not None for _, kind in pyogrio.list_layers(path))
    except (RuntimeError, ValueError):  # what pyogrio raises derives from RuntimeError
        return False


def _source(root: Path, row: Row, outside: Mapping[str, str]) -> SceneFiles:
    first = row.images[0]
    name = outside[first] if first in outside else _below(root, first)
    return SceneFiles(name, row.images, row.mask, row.aoi, row.split)


def _below(root: Path, name: str) -> str:
    """What a file below root is called there."""
    return relocate(name, Path(container_of(name)).relative_to(root).as_posix())


def _named(sources: list[SceneFiles]) -> list[SceneFiles]:
    """Names that are not unique get a number; the same scene twice is an error."""
    if len(set(sources)) < len(sources):
        twice = next(source for source, count in Counter(sources).items() if count > 1)
        raise DataError(f"{twice.name} with {twice.mask} is there twice; see dataset.manifest")
    seen: Counter[str] = Counter()
    named = []
    for source in sources:
        seen[source.name] += 1
        number = seen[source.name]
        named.append(source if number == 1 else replace(source, name=f"{source.name}#{number}"))
    return named


def _by_globs(root: Path, config: DatasetConfig, wrong: OnError) -> list[SceneFiles]:
    globs = config.images if isinstance(config.images, list) else [config.images]
    bands = [_matches(root, glob) for glob in globs]
    if not bands[0]:
        raise _no_images(root, globs[0])
    for glob, found in zip(globs, bands, strict=True):
        _complete(root, bands[0], found, glob, f"no file {glob}", wrong)
    skips = config.unlabelled == "skip"
    wrong = _skip if skips else wrong
    masks = _partners(root, bands[0], str(config.masks), "no mask", wrong)
    areas = _partners(root, bands[0], config.aoi, "no area of interest", wrong) if config.aoi else bands[0]
    whole = set(bands[0]).intersection(masks, areas, *bands)
    if skips and not whole:
        raise DataError(f"no image has a mask: none matches {root / str(config.masks)}; see dataset.masks")
    return [
        SceneFiles(
            _below(root, path),
            tuple(found[key] for found in bands),
            masks[key],
            areas[key] if config.aoi else None,
        )
        for key, path in sorted(bands[0].items())
        if key in whole
    ]


def _skip(error: GeoSegError) -> None:
    """Leaves a scene out without a word."""


_Found = dict[tuple[str, ...], str]


def _partners(root: Path, images: _Found, pattern: str, lacking: str, wrong: OnError) -> _Found:
    """The file of each image; a pattern without wildcards is one file for all of them."""
    if not re.search(_WILDCARDS, pattern):
        path = root / container_of(pattern)
        if not path.exists():
            raise DataError(f"{path}: no such file; see dataset.masks and dataset.aoi")
        return dict.fromkeys(images, relocate(pattern, path))
    found = _matches(root, pattern)
    _complete(root, images, found, pattern, lacking, wrong)
    return found


def _complete(root: Path, images: _Found, found: _Found, pattern: str, lacking: str, wrong: OnError) -> None:
    bare = [path for key, path in images.items() if key not in found]
    if bare:
        wrong(
            DataError(
                f"{bare[0]}: {lacking} for this image ({len(bare)} of {len(images)} images have none); it "
                f"would match {root / pattern} with the same text for the wildcards"
            )
        )


def _what_is_there(root: Path, pattern: str) -> str:
    """What there is in place of images: a folder of that name, or files of other types."""
    whole = root / pattern
    if whole.is_dir():
        return f", which is a folder; {pattern.rstrip('/')}/*.tif names the files in it"
    if re.search(_WILDCARDS, str(whole.parent)) or not whole.parent.is_dir():
        return ""
    kinds = Counter(path.suffix for path in whole.parent.iterdir() if path.is_file())
    return f"; there is: {', '.join(f'{n} *{kind}' for kind, n in kinds.most_common(4))}" if kinds else ""


def _no_images(root: Path, glob: str) -> DataError:
    return DataError(
        f"no images match {root / glob}{_what_is_there(root, glob)}; see dataset.root and dataset.images"
    )


def _first(root: Path, pattern: str) -> str:
    glob, regex = _pattern(root, container_of(pattern))
    for path in root.glob(glob):
        if regex.fullmatch(path.relative_to(root).as_posix()) and is_raster_file(path):
            return relocate(pattern, path)
    raise _no_images(root, pattern)


def _matches(root: Path, pattern: str) -> _Found:
    """Rasters and vector files that match a glob, by the text that its wildcards stand for."""
    glob, regex = _pattern(root, container_of(pattern))
    found = {}
    for path in sorted(root.glob(glob)):
        match = regex.fullmatch(path.relative_to(root).as_posix())
        if match and is_raster_file(path):
            found[match.groups()] = relocate(pattern, path)
    return found


def _pattern(root: Path, pattern: str) -> tuple[str, re.Pattern[str]]:
    """A glob as a folder takes it, and as a regular expression whose groups are its wildcards."""
    if Path(pattern).is_absolute():
        pattern = os.path.relpath(pattern, root.resolve())  # the glob of a folder takes no others
    pattern = os.path.normpath(pattern)  # its ./ would be in no path that is found
    return pattern, re.compile("".join(_expression(part) for part in re.split(_WILDCARDS, pattern)))


def _expression(part: str) -> str:
    """A part of a glob as a regular expression."""
    if re.fullmatch(r"\[.+\]", part):
        return f"([^{part[2:]})" if part[1] == "!" else f"({part})"
    return {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "([^/])"}.get(part, re.escape(part))
