"""Writing maps: GeoTIFFs on the grid of another raster, from the top down, that appear only when complete."""

import os
import shutil
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
import rasterio.windows
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # rasterio lets GDAL's own errors through when it creates a file
from rasterio.errors import RasterioError

from geo_seg.errors import DataError

BLOCK = 256
"""Side of the tiles inside the GeoTIFFs, in pixels."""

_PART = ".part"
_FAILURES = (RasterioError, CPLE_BaseError, OSError)
_PROBE = 1 << 20  # bytes that have to fit into the output folder before any work


@dataclass(frozen=True)
class Geometry:
    """Where a raster's pixels lie.

    Attributes:
        width: columns.
        height: rows.
        crs: coordinate reference system of rasterio, or None.
        transform: affine transform of rasterio; the identity without georeference.
        ignored: what the raster says of its place beyond that, and no map takes over; "" for nothing.
    """

    width: int
    height: int
    crs: Any
    transform: Any
    ignored: str

    @classmethod
    def of(cls, path: str | Path) -> Self:
        """Reads it from a raster.

        Raises:
            DataError: the raster can't be opened.
        """
        try:
            with rasterio.open(path) as source:
                found = (("ground control points", source.gcps[0]), ("RPCs", source.rpcs))
                ignored = " and ".join(name for name, content in found if content)
                return cls(source.width, source.height, source.crs, source.transform, ignored)
        except RasterioError as error:
            raise DataError(f"{path}: cannot be opened as a raster ({error})") from error


class MapWriter:
    """A compressed, tiled GeoTIFF, written in rows from the top down.

    Args:
        path: the file.
        geometry: its grid.
        count: number of bands.
        dtype: NumPy name of the type of its pixels.
        nodata: value that means "nothing here".
        tags: of the whole file.

    Raises:
        DataError: the file can't be created.
    """

    def __init__(
        self, path: Path, geometry: Geometry, *, count: int, dtype: str, nodata: int, tags: Mapping[str, str]
    ) -> None:
        self.path = path
        self._rows = np.empty((count, BLOCK, geometry.width), dtype)  # rows that don't fill a block yet
        self._filled = 0
        self._written = 0
        place = {"transform": geometry.transform} if not geometry.transform.is_identity else {}
        try:
            self.target = rasterio.open(
                path,
                "w",
                driver="GTiff",
                width=geometry.width,
                height=geometry.height,
                count=count,
                dtype=dtype,
                nodata=nodata,
                crs=geometry.crs,
                tiled=True,
                blockxsize=BLOCK,
                blockysize=BLOCK,
                interleave="band",
                compress="deflate",
                BIGTIFF="IF_SAFER",
                **place,
            )
            self.target.update_tags(**tags)
        except _FAILURES as error:
            raise _unwritten(path, error) from error

    def append(self, rows: NDArray[Any]) -> None:
        """Writes the next rows; whole blocks go to the file, the rest waits.

        Args:
            rows: (bands, any number of rows, width).

        Raises:
            DataError: the disk is full, or doesn't take them otherwise.
        """
        begin = 0
        while begin < rows.shape[1]:
            take = min(BLOCK - self._filled, rows.shape[1] - begin)
            self._rows[:, self._filled : self._filled + take] = rows[:, begin : begin + take]
            self._filled += take
            begin += take
            if self._filled == BLOCK:
                self._flush()

    def close(self) -> None:
        """Writes what waits, closes the file and proves that all of it is on the disk.

        Raises:
            DataError: it is not complete, most often because the disk is full.
        """
        if self._filled:
            self._flush()
        try:
            self.target.close()
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            whole = _is_whole(self.path)
        except _FAILURES as error:
            raise _unwritten(self.path, error) from error
        if not whole:  # GDAL doesn't report what it couldn't write while closing
            raise _unwritten(self.path, None)

    def _flush(self) -> None:
        part = rasterio.windows.Window(0, self._written, self.target.width, self._filled)
        try:
            self.target.write(self._rows[:, : self._filled], window=part)
        except _FAILURES as error:
            raise _unwritten(self.path, error) from error
        self._written += self._filled
        self._filled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            # the first error is the one to report; the file goes away with its folder
            with suppress(*_FAILURES):
                self.target.close()


def name_classes(path: Path, names: Sequence[str], colors: Sequence[tuple[int, int, int]]) -> None:
    """Writes the classes into `<path>.aux.xml`, where GDAL and QGIS look for the legend of a band.

    Args:
        path: a closed class raster of one band.
        names: per class.
        colors: per class, red, green and blue from 0 to 255.
    """
    file = path.with_name(f"{path.name}.aux.xml")
    # GDAL itself may have written what a GeoTIFF has no place for
    root = ET.parse(file).getroot() if file.exists() else ET.Element("PAMDataset")  # noqa: S314
    band = root.find("PAMRasterBand[@band='1']")
    if band is None:
        band = ET.SubElement(root, "PAMRasterBand", band="1")
    categories = ET.SubElement(band, "CategoryNames")
    for name in names:
        ET.SubElement(categories, "Category").text = name
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    # names, and the numbers of GDAL's field types (integer, string) and usages (min and max, name, red ...)
    columns = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))
    for index, (title, kind, usage) in enumerate(columns):
        column = ET.SubElement(table, "FieldDefn", index=str(index))
        for key, value in (("Name", title), ("Type", kind), ("Usage", usage)):
            ET.SubElement(column, key).text = str(value)
    for index, (name, color) in enumerate(zip(names, colors, strict=True)):
        row = ET.SubElement(table, "Row", index=str(index))
        for value in (index, name, *color):
            ET.SubElement(row, "F").text = str(value)
    ET.indent(root)
    try:
        ET.ElementTree(root).write(file, encoding="utf-8")
    except OSError as error:
        raise _unwritten(file, error) from error


@contextmanager
def unfinished(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """A hidden folder beside the final place of some files; they move there when all is done.

    Args:
        folder: where the files belong.
        names: the files in the order in which they appear; the last one vouches for the others.

    Yields:
        The hidden folder. Whatever ends the block otherwise, it goes away with all that it holds.

    Raises:
        DataError: it can't be made, or a file can't be moved.
    """
    final = folder / names[-1]
    try:
        hidden = Path(tempfile.mkdtemp(prefix=f".{names[-1]}.", suffix=_PART, dir=folder))
    except OSError as error:
        raise _unwritten(final, error) from error
    try:
        yield hidden
        try:
            for name in names:
                (hidden / name).replace(folder / name)
        except OSError as error:
            raise _unwritten(final, error) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def prepare_folder(folder: Path) -> None:
    """Makes a folder for maps, and proves that files can be written there.

    Raises:
        DataError: it can't be made, nothing can be written into it, or its disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE))
    except OSError as error:
        raise DataError(
            f"output={folder}: nothing can be written there ({error.strerror}); choose another folder"
        ) from error


def _is_whole(path: Path) -> bool:
    """Whether every block of a GeoTIFF lies inside the file."""
    size = path.stat().st_size
    with rasterio.open(path) as source:
        rows, cols = -(-source.height // BLOCK), -(-source.width // BLOCK)
        for band in source.indexes:
            for row, col in np.ndindex(rows, cols):
                begin, length = (
                    source.get_tag_item(f"BLOCK_{key}_{col}_{row}", "TIFF", bidx=band)
                    for key in ("OFFSET", "SIZE")
                )
                if begin is None or length is None or int(begin) + int(length) > size:
                    return False
    return True


def _unwritten(path: Path, error: Exception | None) -> DataError:
    final = path.parent.parent / path.name if path.parent.suffix == _PART else path
    if final.parent.exists() and shutil.disk_usage(final.parent).free < _PROBE:
        reason = "the disk is full"
    elif error is None:
        reason = "not all of it reached the disk; is it full, or over a quota?"
    else:
        reason = str(error.__cause__ or error).splitlines()[0]
    return DataError(f"{final}: cannot be written ({reason}); nothing unfinished is left behind")
