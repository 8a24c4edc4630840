"""Table of the regions of a class raster, from one pass over strips of its rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geo_seg.raster.pixel_areas import PixelAreas
from geo_seg.raster.reader import RasterReader
from geo_seg.tiling import Window
from geo_seg.vectorize.regions import (
    Ids,
    Neighbours,
    border_pairs,
    connected_components,
    label_regions,
    merge_small_regions,
    shared_lengths,
)

_STRIP_PIXELS = 1 << 21  # of a strip; outlines of noisy classes take about 200 bytes for each


@dataclass(frozen=True)
class ConfidenceRaster:
    """A raster of probabilities.

    Attributes:
        file: one band, the probability of the class; or one band per class.
        scale: what its values are multiplied with.
    """

    file: Path
    scale: float


class RasterStrips:
    """The rows of a class raster, some at a time.

    Args:
        classes: class raster of one band.
        certainty: of its classes, if known.

    Raises:
        DataError: a raster can't be opened.
    """

    def __init__(self, classes: Path, certainty: ConfidenceRaster | None) -> None:
        self._classes = RasterReader(classes)
        self._certainty = RasterReader(certainty.file) if certainty else None
        self._scale = certainty.scale if certainty else 1.0
        info = self._classes.info
        rows = max(_STRIP_PIXELS // info.width, 64)
        self.spans = tuple((top, min(top + rows, info.height)) for top in range(0, info.height, rows))
        """First row of each strip, and of the next one."""
        self._width = info.width

    def classes(self, strip: int) -> NDArray[Any]:
        """Return (rows, width) class ids, including nodata.

        Raises:
            DataError: they can't be read.
        """
        return self._classes.read(self._window(strip))[0][0]

    def confidence(self, strip: int) -> NDArray[np.float64] | None:
        """Return (rows, width) probabilities of the class, arbitrary at nodata; None if unknown.

        Raises:
            DataError: it can't be read.
        """
        if self._certainty is None:
            return None
        values, _ = self._certainty.read(self._window(strip))
        if len(values) > 1:
            band = np.minimum(self.classes(strip), len(values) - 1)  # nodata is no band
            values = np.take_along_axis(values, band[None].astype(np.intp), 0)
        return np.asarray(values[0] * self._scale, np.float64)

    def _window(self, strip: int) -> Window:
        top, end = self.spans[strip]
        return Window(top, 0, end - top, self._width)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._classes.close()
        if self._certainty is not None:
            self._certainty.close()


@dataclass(frozen=True)
class RegionTable:
    """All regions of a class raster.

    Attributes:
        offsets: (strips + 1,) number of the first area of each strip in `region`.
        region: (areas of all strips,) region that each is a part of.
        classes: (regions,) class of each.
        pixels: (regions,) that each consists of.
        areas: (regions,) square metres, or pixels without a CRS.
        confidence: (regions,) mean probability of what was found there; NaN where that is not known.
        first: (regions,) strip that each begins in.
        last: (regions,) strip that each ends in.
    """

    offsets: Ids
    region: Ids
    classes: Ids
    pixels: Ids
    areas: NDArray[np.float64]
    confidence: NDArray[np.float64]
    first: Ids
    last: Ids


def build_region_table(
    strips: RasterStrips, ground: PixelAreas | None, nodata: float, min_area: float
) -> tuple[RegionTable, NDArray[np.bool_]]:
    """Build the table of regions of a class raster, with small ones merged into their neighbours.

    Args:
        strips: of the raster.
        ground: square metres of the pixels, if known.
        nodata: class id that stands for none.
        min_area: area of regions that stay by themselves.

    Returns:
        The table; and (regions,) bool, those to write: not nodata, and not too small.

    Raises:
        DataError: the raster can't be read.
    """
    sums = _RegionSums.of(strips, ground, min_area > 0)
    region = connected_components(len(sums.classes), *sums.links)
    classes = np.empty(region.max() + 1, np.int64)
    classes[region] = sums.classes
    areas = np.bincount(region, sums.areas).astype(np.float64)
    if min_area > 0:
        first, second, lengths = sums.borders
        data = (sums.classes[first] != nodata) & (sums.classes[second] != nodata)
        near = Neighbours(first[data], second[data], lengths[data]).after_merge(region)
        leader = merge_small_regions(classes, areas, near, min_area)
        kept, joined = np.unique(leader, return_inverse=True)
        region, classes, areas = joined[region], classes[kept], np.bincount(joined, areas).astype(float)
    count = len(classes)
    pixels = np.bincount(region, sums.pixels).astype(np.int64)
    first_strip, last_strip = np.full(count, len(strips.spans)), np.zeros(count, np.int64)
    np.minimum.at(first_strip, region, sums.strip)
    np.maximum.at(last_strip, region, sums.strip)
    confidence = np.bincount(region, sums.confidence) / pixels
    table = RegionTable(sums.offsets, region, classes, pixels, areas, confidence, first_strip, last_strip)
    return table, (classes != nodata) & (areas >= min_area)


@dataclass(frozen=True)
class _RegionSums:
    """Connected pixels of a class in each strip, numbered through all strips.

    Attributes:
        offsets: see RegionTable.
        strip: (areas,) of each.
        classes: (areas,) of each.
        pixels: (areas,) of each.
        areas: (areas,) square metres or pixels of each.
        confidence: (areas,) sum over its pixels; NaN where it isn't known.
        links: pairs that belong together across two strips.
        borders: pairs that have a border, with its length in pixels; a pair may come twice.
    """

    offsets: Ids
    strip: Ids
    classes: Ids
    pixels: Ids
    areas: NDArray[np.float64]
    confidence: NDArray[np.float64]
    links: tuple[Ids, Ids]
    borders: tuple[Ids, Ids, Ids]

    @classmethod
    def of(cls, strips: RasterStrips, ground: PixelAreas | None, neighbours: bool) -> Self:
        """Accumulate the sums in one pass over the strips.

        Args:
            strips: of the raster.
            ground: see build_region_table.
            neighbours: whether to look for borders.
        """
        offsets, classes, pixels, areas, confidence = [0], [], [], [], []
        links, near = [np.empty((2, 0), np.int64)], [np.empty((3, 0), np.int64)]
        edge: tuple[NDArray[Any], Ids] | None = None  # classes and areas of the row above
        for strip, (top, end) in enumerate(strips.spans):
            values = strips.classes(strip)
            labels, count = label_regions(values)
            flat, labels = labels.ravel(), labels + offsets[-1]
            names = np.empty(count, np.int64)
            names[flat] = values.ravel()
            classes.append(names)
            pixels.append(np.bincount(flat, minlength=count))
            square = None if ground is None else ground.of_rows(top, end).ravel()
            areas.append(np.bincount(flat, square))
            sure = strips.confidence(strip)
            confidence.append(np.full(count, np.nan) if sure is None else np.bincount(flat, sure.ravel()))
            if neighbours:
                near.append(np.stack(shared_lengths(*border_pairs(labels))))
            if edge is not None:
                same = edge[0] == values[0]
                links.append(np.unique(np.stack([edge[1][same], labels[0][same]]), axis=1))
                if neighbours:
                    near.append(np.stack(shared_lengths(edge[1][~same], labels[0][~same])))
            edge = values[-1], labels[-1]
            offsets.append(offsets[-1] + count)
        joined, met = np.concatenate(links, 1), np.concatenate(near, 1)
        return cls(
            offsets=np.array(offsets),
            strip=np.repeat(np.arange(len(strips.spans)), np.diff(offsets)),
            classes=np.concatenate(classes),
            pixels=np.concatenate(pixels),
            areas=np.concatenate(areas),
            confidence=np.concatenate(confidence),
            links=(joined[0], joined[1]),
            borders=(met[0], met[1], met[2]),
        )


def regions_by_strip(strips: RasterStrips, table: RegionTable) -> Iterator[Ids]:
    """Yield the (rows, width) region numbers of the pixels of each strip.

    Raises:
        DataError: the raster can't be read.
    """
    for strip in range(len(strips.spans)):
        labels, _ = label_regions(strips.classes(strip))
        yield table.region[labels + table.offsets[strip]]
