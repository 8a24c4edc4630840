"""Overviews of class rasters: at every level the most frequent class of the full-resolution pixels."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geo_seg.raster.writer import RowWriter

_TILE_SIZE = 512  # rows and columns that are counted at a time, so that they fit the CPU cache
_CHUNK_COLS = 1 << 14  # columns that are read at a time


def write_overviews(raster: Path, nodata: int, smallest: int) -> list[Path]:
    """Write the overviews of a class raster beside it; memory grows with its width only.

    A pixel of an overview shows the class that is most frequent among all pixels of the raster below it (the
    lowest id among equals), and nodata where less than half of these are valid. GDAL's own overviews are
    modes of modes, in which rare classes win and single valid pixels grow.

    Args:
        raster: class ids.
        nodata: nodata value.
        smallest: maximum number of rows and columns of the last overview.

    Returns:
        The overviews, each half as large as the one before.

    Raises:
        DataError: they can't be written.
        RasterioError: the raster can't be read.
    """
    with rasterio.open(raster) as source, ExitStack() as stack:
        height, width, dtype = source.height, source.width, source.dtypes[0]
        levels = 0
        while max(height, width) > smallest << levels:
            levels += 1
        if not levels:
            return []
        files = [raster.with_name(f"{raster.stem}_{2 << level}.tif") for level in range(levels)]
        sizes = [(-(-height >> level), -(-width >> level)) for level in range(1, levels + 1)]
        writers = [
            stack.enter_context(RowWriter(file, (1, *size), dtype))
            for file, size in zip(files, sizes, strict=True)
        ]
        side = max(_TILE_SIZE, 1 << levels)
        for rows in _pieces(0, height, side):
            strips = [
                np.empty((-(-len(rows) >> level), size[1]), dtype) for level, size in enumerate(sizes, 1)
            ]
            for cols in _pieces(0, width, max(side, _CHUNK_COLS)):
                pixels = source.read(1, window=Window(cols.start, rows.start, len(cols), len(rows)))
                for part in _pieces(cols.start, cols.stop, side):
                    tile = pixels[:, part.start - cols.start : part.stop - cols.start]
                    for level, small in enumerate(downsample_mode(tile, nodata, levels), 1):
                        left = part.start >> level
                        strips[level - 1][:, left : left + small.shape[1]] = small
            for writer, strip in zip(writers, strips, strict=True):
                writer.append(strip[None])
    return files


def downsample_mode(pixels: NDArray[Any], nodata: int, levels: int) -> list[NDArray[Any]]:
    """Return the most frequent class of squares of 2, 4, 8 ... pixels; see write_overviews.

    Args:
        pixels: (height, width) class ids.
        nodata: nodata value.
        levels: how many times to halve.

    Returns:
        For each level from 1 on (height / 2^level, width / 2^level), rounded up.
    """
    height, width = pixels.shape
    side_multiple = 1 << levels
    padded = np.pad(
        pixels, ((0, -height % side_multiple), (0, -width % side_multiple)), constant_values=nodata
    )
    invalid = list(_counts(padded == nodata, levels))
    modes = [np.full(counts.shape, nodata, pixels.dtype) for counts in invalid]
    highest = [np.zeros_like(counts) for counts in invalid]
    for value in np.flatnonzero(np.bincount(padded.ravel())).tolist():
        if value != nodata:
            for level, counts in enumerate(_counts(padded == value, levels)):
                more = counts > highest[level]
                np.copyto(highest[level], counts, where=more)
                np.copyto(modes[level], pixels.dtype.type(value), where=more)
    for level, (mode, counts) in enumerate(zip(modes, invalid, strict=True), 1):
        side = 1 << level
        rows, cols = (
            np.clip(length - side * np.arange(count), 0, side)  # of the raster in each square
            for length, count in zip(pixels.shape, mode.shape, strict=True)
        )
        valid = side**2 - counts.astype(np.int64)
        mode[2 * valid < rows[:, None] * cols] = nodata
    return [mode[: -(-height >> level), : -(-width >> level)] for level, mode in enumerate(modes, 1)]


def _counts(mask: NDArray[np.bool_], levels: int) -> Iterator[NDArray[Any]]:
    """Yield the number of pixels of a mask that are set in squares of 2, 4, 8 ... pixels."""
    counts: NDArray[Any] = mask.view(np.uint8)
    for level in range(1, levels + 1):
        counts = counts.astype(np.min_scalar_type(4**level), copy=False)
        counts = counts[::2] + counts[1::2]
        counts = counts[:, ::2] + counts[:, 1::2]
        yield counts


def _pieces(begin: int, end: int, length: int) -> Iterator[range]:
    for start in range(begin, end, length):
        yield range(start, min(start + length, end))
