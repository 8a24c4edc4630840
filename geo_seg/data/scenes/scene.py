"""A scene: an image and its labels on one grid."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geo_seg.raster.reader import RasterInfo
from geo_seg.tiling import Window


@dataclass(frozen=True)
class Scene:
    """An image and its mask on the same grid.

    Both are rasters that GDAL opens, also where the files of the data set are others (bands in several files,
    polygons): those have been converted.

    Attributes:
        name: the image's path below root, unique.
        image: header of the image.
        mask: header of the mask.
        bands: numbers of the image's bands, in the order of the model.
        split: "train", "val" or "test" if a manifest assigns it, else None.
        notes: warnings about its files.
        blocks: blocks for validation or test; () is the whole scene.
        excluded: rectangles that no training window may reach, in a split by blocks.
    """

    name: str
    image: RasterInfo
    mask: RasterInfo
    bands: tuple[int, ...]
    split: str | None = None
    notes: tuple[str, ...] = ()
    blocks: tuple[Window, ...] = ()
    excluded: tuple[Window, ...] = ()

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands in that order; "" for a band without a name."""
        names = dict(zip(self.image.bands, self.image.names, strict=True))
        return tuple(names.get(band, "") for band in self.bands)


def mark_of(image: RasterInfo, name: str) -> str:
    """Return a short hash that identifies a raster without revealing its location.

    Args:
        image: header of the raster; size and georeference identify it.
        name: of the file, which identifies rasters without georeference.
    """
    georeference = (image.crs, image.transform) if image.transform else (Path(name).stem,)
    return hashlib.sha256(repr((image.height, image.width, *georeference)).encode()).hexdigest()[:16]


def first_of(names: Sequence[str]) -> str:
    """Return the first name and the number of the others, for a message."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
