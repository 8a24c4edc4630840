"""Scale and offset that a raster or a STAC item declares."""

from collections.abc import Sequence

from geo_seg.raster.reader import RasterInfo

ScaleOffset = tuple[tuple[float, float], ...]
"""Per band what its values are multiplied with, and what is then added."""


def scale_offset(info: RasterInfo, bands: Sequence[int]) -> ScaleOffset:
    """Return what a raster declares for each of some bands."""
    known = dict(zip(info.bands, zip(info.scales, info.offsets, strict=True), strict=False))
    return tuple(known.get(band, (1.0, 0.0)) for band in bands)
