"""Batches of windows of a raster, prefetched by a reader thread."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from torch import Tensor

from geo_seg.data.index import SKIPPED
from geo_seg.errors import DataError
from geo_seg.prediction.resample import ResolutionScale
from geo_seg.raster.reader import Band, RasterInfo, RasterReader
from geo_seg.tiling import Grid, Tile, Window

_T = TypeVar("_T")
_Pixels = TypeVar("_Pixels", NDArray[Any], Tensor)
_ReadWindow = tuple[
    NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]
]  # image, seen and valid of a window, see Batch
_MIN_CACHE = 64 << 20  # bytes
_MAX_SHARED_CACHE = 256 << 20  # bytes; above, blocks shared with the next row of windows are decoded again
PREFETCH = 2
"""Batches that are read ahead."""


@dataclass(frozen=True)
class Batch:
    """Consecutive windows of a grid.

    Attributes:
        tiles: the windows.
        slots: per window its index in image and valid; None if it has no valid pixel and isn't predicted.
        image: (N, bands, height, width) at the model's resolution, reflected beyond the edges of the raster.
        seen: (N, height, width) validity at the model's resolution, False for nodata.
        valid: (N, rows, columns) validity at the raster's resolution, False for nodata.
        strays: pixels that are nodata though the raster doesn't declare it, each counted in one batch.
    """

    tiles: tuple[Tile, ...]
    slots: tuple[int | None, ...]
    image: NDArray[Any]
    seen: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    strays: int


@dataclass(frozen=True)
class RasterInput:
    """Raster to predict, and how to read it.

    Attributes:
        info: its header.
        bands: numbers or names in the model's order.
        nodata: value that overrides the declared nodata, or None.
        zero_is_nodata: whether pixels whose bands are all 0 are nodata, too.
        scale: resolution of the model relative to the raster.
        areas: rectangles to predict; windows whose inner pixels meet none of them are neither read nor
            predicted. () is the whole raster.
        skip_unreadable: whether unreadable squares of 256 px become nodata instead of an error.
    """

    info: RasterInfo
    bands: tuple[Band, ...]
    nodata: float | None
    zero_is_nodata: bool
    scale: ResolutionScale = field(default_factory=ResolutionScale)
    areas: tuple[Window, ...] = ()
    skip_unreadable: bool = False

    def wants(self, window: Window) -> bool:
        """Return whether a window intersects the areas to predict."""
        return not self.areas or any(window.intersects(area) for area in self.areas)


def read_batches(source: RasterInput, grid: Grid, size: int) -> Iterator[Batch]:
    """Yield the windows of a grid in batches, which are prefetched.

    Args:
        source: the raster.
        grid: its windows.
        size: windows with valid pixels per batch; a batch ends with its row of windows.

    Raises:
        DataError: the raster can't be read.
    """
    return _read_ahead(_batches(source, grid, size), PREFETCH)


def _batches(source: RasterInput, grid: Grid, size: int) -> Generator[Batch, None, None]:
    info = source.info
    with (
        rasterio.Env(GDAL_CACHEMAX=cache_size(info, grid)),
        RasterReader(info.path, source.bands, source.nodata, source.zero_is_nodata) as reader,
    ):
        tiles: list[Tile] = []
        slots: list[int | None] = []
        windows: list[_ReadWindow] = []
        for tile in grid:
            tiles.append(tile)
            is_wanted = source.wants(tile.inner)
            arrays = _read(reader, tile.window, grid.own(tile), source.skip_unreadable) if is_wanted else None
            if arrays is not None and crop_inner(tile, arrays[1]).any():
                slots.append(len(windows))
                windows.append((*source.scale.apply(*arrays), arrays[1]))
            else:
                slots.append(None)
            if len(windows) == size or tile.col == len(grid.cols) - 1:
                strays, reader.validity.strays = reader.validity.strays, 0
                yield Batch(tuple(tiles), tuple(slots), *_stack(windows, source.scale.is_identity), strays)
                tiles, slots, windows = [], [], []


def _read(
    reader: RasterReader, window: Window, counted: Window, skip_unreadable: bool
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a window as read_reflected does; optionally with unreadable squares as nodata."""
    try:
        return read_reflected(reader, window, counted)
    except DataError:
        if not skip_unreadable:
            raise
        return read_reflected(_UnreadableAsNodata(reader), window, counted)


class _UnreadableAsNodata:
    """Raster whose unreadable squares are nodata; the squares are those of the index of a data set.

    Args:
        reader: the open raster.
    """

    def __init__(self, reader: RasterReader) -> None:
        self.info = reader.info
        self._reader = reader

    def read(self, window: Window, counted: Window | None = None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window inside the raster, see RasterReader.read."""
        row, col, height, width = window
        image = np.zeros((len(self._reader.bands), height, width), self.info.dtype)
        valid = np.zeros((height, width), bool)
        for top in range(row // SKIPPED * SKIPPED, row + height, SKIPPED):
            for left in range(col // SKIPPED * SKIPPED, col + width, SKIPPED):
                row_begin, col_begin = max(top, row), max(left, col)
                row_end, col_end = min(top + SKIPPED, row + height), min(left + SKIPPED, col + width)
                target = np.s_[row_begin - row : row_end - row, col_begin - col : col_end - col]
                with suppress(DataError):
                    square = Window(row_begin, col_begin, row_end - row_begin, col_end - col_begin)
                    image[:, *target], valid[target] = self._reader.read(square, counted)
        return image, valid


def _stack(
    windows: list[_ReadWindow], is_identity: bool
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    if not windows:
        empty = np.empty((0, 0, 0), bool)
        return empty[None][:0], empty, empty
    image, seen, valid = (
        arrays[0][None] if len(arrays) == 1 else np.stack(arrays) for arrays in zip(*windows, strict=True)
    )
    return image, valid if is_identity else seen, valid


def read_reflected(
    reader: "RasterReader | _UnreadableAsNodata", window: Window, counted: Window | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a window that may exceed the raster below and on the right; pixels there are mirrored.

    Args:
        reader: an open raster.
        window: a window that begins inside it.
        counted: rectangle in which strays are counted, see RasterReader.read.

    Returns:
        image: (bands, height, width).
        valid: (height, width), False for nodata.
    """
    row, col, height, width = window
    clipped = Window(row, col, min(height, reader.info.height - row), min(width, reader.info.width - col))
    image, valid = reader.read(clipped, counted)
    padding = ((0, height - clipped.height), (0, width - clipped.width))
    if padding == ((0, 0), (0, 0)):
        return image, valid
    # a side of one pixel is repeated, one shorter than the padding mirrored over and over
    return np.pad(image, ((0, 0), *padding), mode="reflect"), np.pad(valid, padding, mode="reflect")


def crop_inner(tile: Tile, pixels: _Pixels) -> _Pixels:
    """Return the inner pixels of an array (..., height, width) that covers the window of a tile."""
    top, left = tile.inner.row - tile.window.row, tile.inner.col - tile.window.col
    return pixels[..., top : top + tile.inner.height, left : left + tile.inner.width]


def cache_size(info: RasterInfo, grid: Grid) -> int:
    """Return the size in bytes of GDAL's block cache for reading a part.

    Args:
        info: the raster's header.
        grid: the windows of the part.
    """
    rows = min(grid.rows.window + 2 * info.block[0], info.height)
    bytes_per_pixel = len(info.bands) * np.dtype(info.dtype).itemsize
    if info.block[1] >= info.width:  # blocks span the whole width: with less, every window decodes them again
        return max(rows * info.width * bytes_per_pixel, _MIN_CACHE)
    window_row = rows * min(grid.cols.length + 2 * info.block[1], info.width) * bytes_per_pixel
    window_pair = 2 * rows * (grid.cols.window + 2 * info.block[1]) * bytes_per_pixel
    return max(min(window_row, max(_MAX_SHARED_CACHE, window_pair)), _MIN_CACHE)


def _read_ahead(items: Generator[_T, None, None], depth: int) -> Generator[_T, None, None]:
    """Run a generator in a thread, `depth` items ahead."""
    with ThreadPoolExecutor(1, thread_name_prefix="reading") as pool:
        pending: deque[Future[_T | None]] = deque(pool.submit(next, items, None) for _ in range(depth))
        try:
            while (item := pending.popleft().result()) is not None:
                pending.append(pool.submit(next, items, None))
                yield item
        finally:
            for future in pending:
                future.cancel()
            pool.submit(items.close)  # its files were opened in this thread
