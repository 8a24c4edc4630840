"""Writing rasters row by row, atomically: a file gets its name only when it is complete."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio.windows
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from geo_seg.errors import DataError

BLOCK = 256
"""Rows of a block of a raster."""

TEMP_SUFFIX = ".new"
"""End of the name of a file that is being written."""

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""Errors of GDAL: rasterio doesn't wrap all of them, and has no public name for the others."""

WRITE_ERRORS = (*GDAL_ERRORS, OSError)
"""Errors while a raster is written."""

_LEFTOVER_SUFFIXES = (
    "-journal",
    "-wal",
    "-shm",
    ".ovr.tmp",
    ".msk.ovr.tmp",
)  # of SQLite, and of GDAL's COG driver
_PROBE_BYTES = 1 << 20  # bytes that have to fit into the output folder before any work


class RowWriter:
    """Writer of a compressed raster, row by row from top to bottom.

    It is written under another name, and gets its own only when all of it is on the disk.

    Args:
        path: the file.
        shape: bands, rows and columns.
        dtype: NumPy name of the type of its pixels.

    Raises:
        DataError: the file can't be created.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], dtype: str) -> None:
        count, height, width = shape
        self.path = path
        self._temporary = path.with_name(f"{path.name}{TEMP_SUFFIX}")
        self._rows = np.empty((count, min(BLOCK, height), width), dtype)  # rows that don't fill a block yet
        self._filled = 0
        self._written = 0
        try:
            remove_leftovers(self._temporary)
            self._target = rasterio.open(
                self._temporary,
                "w",
                driver="GTiff",
                width=width,
                height=height,
                count=count,
                dtype=dtype,
                blockysize=len(self._rows[0]),
                interleave="band",
                compress="deflate",
                zlevel=1,
                BIGTIFF="IF_SAFER",
            )
        except WRITE_ERRORS as error:
            raise write_error(path, error) from error

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows; complete blocks are written to the file, the rest is buffered.

        Args:
            rows: (bands, any number of rows, width).

        Raises:
            DataError: the disk is full, or doesn't take them otherwise.
        """
        begin = 0
        while begin < rows.shape[1]:
            take = min(len(self._rows[0]) - self._filled, rows.shape[1] - begin)
            self._rows[:, self._filled : self._filled + take] = rows[:, begin : begin + take]
            self._filled += take
            begin += take
            if self._filled == len(self._rows[0]):
                self._flush()

    def tag(self, tags: Mapping[str, str]) -> None:
        """Add metadata to the file."""
        self._target.update_tags(**tags)

    def close(self) -> None:
        """Write buffered rows, close the file, verify that it is complete on disk, and rename it.

        Raises:
            DataError: it is not complete, most often because the disk is full.
        """
        if self._filled:
            self._flush()
        try:
            self._target.close()
            commit(self._temporary, self.path)
        except WRITE_ERRORS as error:
            raise write_error(self.path, error) from error

    def _flush(self) -> None:
        part = rasterio.windows.Window(0, self._written, self._target.width, self._filled)
        try:
            self._target.write(self._rows[:, : self._filled], window=part)
        except WRITE_ERRORS as error:
            raise write_error(self.path, error) from error
        self._written += self._filled
        self._filled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            # the first error is the one to report; the rest of it is removed before the next run
            with suppress(*WRITE_ERRORS):
                self._target.close()


def ensure_writable(folder: Path) -> None:
    """Create a folder for maps, and verify that files can be written there.

    Raises:
        DataError: it can't be made, nothing can be written into it, or its disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
    except OSError as error:
        raise DataError(
            f"output={folder}: nothing can be written there ({error.strerror}); choose another folder"
        ) from error


def remove_leftovers(path: Path) -> None:
    """Remove what an earlier run left under a name, and beside it.

    GDAL opens a file before it writes over it, and refuses one whose directory is broken; SQLite would take
    the journal of an earlier file for that of the new one.

    Raises:
        OSError: it can't be removed.
    """
    for name in (path.name, *(f"{path.name}{end}" for end in _LEFTOVER_SUFFIXES)):
        path.with_name(name).unlink(missing_ok=True)


def commit(temporary: Path, final: Path) -> None:
    """Verify that a raster is complete on disk, and rename it.

    Args:
        temporary: a closed GeoTIFF.
        final: its name from now on, in the same folder.

    Raises:
        DataError: not all of it is there.
        OSError: the disk refuses.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    if not is_complete_geotiff(temporary):  # GDAL doesn't report what it couldn't write while closing
        raise write_error(final, None)
    temporary.replace(final)


def is_complete_geotiff(path: Path, tag: str = "") -> bool:
    """Return whether a file is a GeoTIFF that has a tag, with every block inside the file."""
    try:
        size = path.stat().st_size
        with rasterio.open(path) as source:
            if tag and tag not in source.tags():
                return False
            height, width = source.block_shapes[0]
            rows, cols = -(-source.height // height), -(-source.width // width)
            for band, row, col in np.ndindex(source.count, rows, cols):
                begin, length = (
                    source.get_tag_item(f"BLOCK_{key}_{col}_{row}", "TIFF", bidx=band + 1)
                    for key in ("OFFSET", "SIZE")
                )
                if begin is None or length is None or int(begin) + int(length) > size:
                    return False
    except WRITE_ERRORS:
        return False
    return True


def write_error(path: Path, error: Exception | None) -> DataError:
    """Return the error for a file that can't be written, with the reason.

    Args:
        path: its final name.
        error: what the system or GDAL said; None where they said nothing.
    """
    if path.parent.exists() and shutil.disk_usage(path.parent).free < _PROBE_BYTES:
        reason = "the disk is full"
    elif error is None:
        reason = "not all of it reached the disk; is it full, or over a quota?"
    else:
        reason = str(error.__cause__ or error).splitlines()[0]
    return DataError(f"{path}: cannot be written ({reason})")
