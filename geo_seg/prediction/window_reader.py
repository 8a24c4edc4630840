"""Windows of a raster in batches, read ahead in a thread of their own."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray

from geo_seg.data.index import SKIPPED
from geo_seg.errors import DataError
from geo_seg.prediction.resample import ResolutionScale
from geo_seg.raster.reader import Band, RasterInfo, RasterReader
from geo_seg.tiling import Grid, Tile, Window

_T = TypeVar("_T")
_ReadWindow = tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]  # image, seen and valid of a window
_LEAST_CACHE = 64 << 20  # bytes
_ENOUGH_CACHE = 256 << 20  # bytes; tiles that neighbours in the next row share are decoded again beyond it
PREFETCH = 2
"""Batches that are read before they are asked for."""


@dataclass(frozen=True)
class Batch:
    """Windows of a grid, in its order.

    Attributes:
        tiles: the windows.
        slots: per window its position in image and valid; None where it has no valid pixel and no model
            needs to see it.
        image: (N, bands, height, width) as the model sees it, reflected where windows reach past the raster.
        seen: (N, height, width), False for nodata in the image.
        valid: (N, rows, columns) of the raster, False for nodata.
        strays: pixels of the raster that are nodata though nothing declares it, each in one batch.
    """

    tiles: tuple[Tile, ...]
    slots: tuple[int | None, ...]
    image: NDArray[Any]
    seen: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    strays: int


@dataclass(frozen=True)
class RasterInput:
    """What to read of a raster.

    Attributes:
        info: its header.
        bands: numbers or names in the model's order.
        nodata: overrides what the raster declares, or None.
        zero_is_nodata: whether pixels whose bands are all 0 are nodata, too.
        scale: at which the model sees it.
        areas: the parts of it that are wanted; windows that answer for none of them are neither read nor
            predicted. () is all of it.
        skip_unreadable: whether squares of 256 px that can't be read are nodata, and no error.
    """

    info: RasterInfo
    bands: tuple[Band, ...]
    nodata: float | None
    zero_is_nodata: bool
    scale: ResolutionScale = field(default_factory=ResolutionScale)
    areas: tuple[Window, ...] = ()
    skip_unreadable: bool = False

    def wants(self, window: Window) -> bool:
        """Say whether a window holds pixels of the areas that are wanted."""
        return not self.areas or any(window.intersects(area) for area in self.areas)


def read_batches(source: RasterInput, grid: Grid, size: int) -> Iterator[Batch]:
    """Reads the windows of a grid, a few batches ahead of whoever takes them.

    Args:
        source: the raster.
        grid: its windows.
        size: windows with valid pixels in a batch; none reaches over the end of a row of windows.

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
        held: list[_ReadWindow] = []
        for tile in grid:
            tiles.append(tile)
            wanted = source.wants(tile.inner)
            pixels = _read(reader, tile.window, grid.own(tile), source.skip_unreadable) if wanted else None
            if pixels is not None and crop_inner(tile, pixels[1]).any():
                slots.append(len(held))
                held.append((*source.scale.apply(*pixels), pixels[1]))
            else:
                slots.append(None)
            if len(held) == size or tile.col == len(grid.cols) - 1:
                strays, reader.validity.strays = reader.validity.strays, 0
                yield Batch(tuple(tiles), tuple(slots), *_stacked(held, source.scale.is_identity), strays)
                tiles, slots, held = [], [], []


def _read(
    reader: RasterReader, window: Window, own: Window, skip: bool
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a window, see read_reflected; with skip, the squares of it that can't be read are nodata."""
    try:
        return read_reflected(reader, window, own)
    except DataError:
        if not skip:
            raise
        return read_reflected(_Readable(reader), window, own)


class _Readable:
    """A raster of which squares that can't be read are nodata; they lie as the index of a data set has them.

    Args:
        reader: the open raster.
    """

    def __init__(self, reader: RasterReader) -> None:
        self.info = reader.info
        self._reader = reader

    def read(self, window: Window, own: Window | None = None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window inside the raster, see RasterReader.read."""
        row, col, height, width = window
        image = np.zeros((len(self._reader.bands), height, width), self.info.dtype)
        valid = np.zeros((height, width), bool)
        for top in range(row // SKIPPED * SKIPPED, row + height, SKIPPED):
            for left in range(col // SKIPPED * SKIPPED, col + width, SKIPPED):
                first, begin = max(top, row), max(left, col)
                end, stop = min(top + SKIPPED, row + height), min(left + SKIPPED, col + width)
                here = np.s_[first - row : end - row, begin - col : stop - col]
                with suppress(DataError):
                    square = Window(first, begin, end - first, stop - begin)
                    image[:, *here], valid[here] = self._reader.read(square, own)
        return image, valid


def _stacked(
    held: list[_ReadWindow], as_is: bool
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    if not held:
        nothing = np.empty((0, 0, 0), bool)
        return nothing[None][:0], nothing, nothing
    image, seen, valid = (
        arrays[0][None] if len(arrays) == 1 else np.stack(arrays) for arrays in zip(*held, strict=True)
    )
    return image, valid if as_is else seen, valid


def read_reflected(
    reader: "RasterReader | _Readable", window: Window, own: Window | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Reads a window that may reach past the raster below and on the right, where pixels are mirrored.

    Args:
        reader: an open raster.
        window: a window that begins inside it.
        own: where strays are counted, see RasterReader.read.

    Returns:
        image: (bands, height, width).
        valid: (height, width).
    """
    row, col, height, width = window
    inside = Window(row, col, min(height, reader.info.height - row), min(width, reader.info.width - col))
    image, valid = reader.read(inside, own)
    past = ((0, height - inside.height), (0, width - inside.width))
    if past == ((0, 0), (0, 0)):
        return image, valid
    # a side of one pixel is repeated, one shorter than the padding mirrored over and over
    return np.pad(image, ((0, 0), *past), mode="reflect"), np.pad(valid, past, mode="reflect")


def crop_inner(tile: Tile, pixels: NDArray[Any]) -> NDArray[Any]:
    """The inner pixels of an array (..., height, width) that covers a tile's window."""
    top, left = tile.inner.row - tile.window.row, tile.inner.col - tile.window.col
    return pixels[..., top : top + tile.inner.height, left : left + tile.inner.width]


def cache_size(info: RasterInfo, grid: Grid) -> int:
    """Bytes for GDAL to keep decoded blocks in while it reads a part.

    Args:
        info: the raster's header.
        grid: the windows of the part.
    """
    rows = min(grid.rows.window + 2 * info.block[0], info.height)
    depth = len(info.bands) * np.dtype(info.dtype).itemsize
    if info.block[1] >= info.width:  # a block goes over the whole width: else every window decodes it anew
        return max(rows * info.width * depth, _LEAST_CACHE)
    row_of_windows = rows * min(grid.cols.length + 2 * info.block[1], info.width) * depth
    two_windows = 2 * rows * (grid.cols.window + 2 * info.block[1]) * depth
    return max(min(row_of_windows, max(_ENOUGH_CACHE, two_windows)), _LEAST_CACHE)


def _read_ahead(items: Generator[_T, None, None], depth: int) -> Generator[_T, None, None]:
    """Takes from a generator in a thread, `depth` items before they are asked for."""
    with ThreadPoolExecutor(1, thread_name_prefix="reading") as pool:
        waiting: deque[Future[_T | None]] = deque(pool.submit(next, items, None) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(pool.submit(next, items, None))
                yield item
        finally:
            for future in waiting:
                future.cancel()
            pool.submit(items.close)  # its files belong to the thread
