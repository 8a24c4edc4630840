"""A scene: one place with an image and its labels."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from geo_seg.raster.reader import RasterInfo
from geo_seg.tiling import Window


@dataclass(frozen=True)
class Scene:
    """One place: an image and its mask on the same grid.

    Both are rasters that GDAL opens; what the user has (bands in several files, polygons ...) has become one.

    Attributes:
        name: the image's path below root, unique.
        image: header of the image.
        mask: header of the mask.
        bands: numbers of the image's bands, in the order that the model sees them.
        split: what a manifest says: "train", "val", "test", or None.
        notes: what the user should know about its files.
        blocks: the blocks that are validated or tested on; () is all of it.
        excluded: where no training window may reach; in a split by blocks.
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
        """Names of its bands in that order, "" for one without a name."""
        names = dict(zip(self.image.bands, self.image.names, strict=True))
        return tuple(names.get(band, "") for band in self.bands)


def mark_of(image: RasterInfo, name: str) -> str:
    """Return a short hash by which a raster is known again, without saying where it lies.

    Args:
        image: its header; size and georeference are those of one raster alone.
        name: of its file, which tells rasters without georeference apart.
    """
    place = (image.crs, image.transform) if image.transform else (Path(name).stem,)
    return hashlib.sha256(repr((image.height, image.width, *place)).encode()).hexdigest()[:16]
