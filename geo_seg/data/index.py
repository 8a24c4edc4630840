"""The index of a scene, built in one streaming pass: band statistics and a grid of class counts."""

import shutil
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.band_statistics import BandAccumulator, BandMoments, Counts
from geo_seg.data.cache import SceneCache, Stamp, constituent_files, file_stamps
from geo_seg.data.class_table import ClassTable, check_mask
from geo_seg.data.scene_reader import (
    MemmapSceneReader,
    RasterSceneReader,
    WindowArrays,
    fill_invalid,
    label_dtype,
    memmap_size,
    preallocate,
)
from geo_seg.data.scenes.scene import Scene
from geo_seg.errors import DataError, GeoSegError, OnError, raise_error
from geo_seg.runtime.files import temp_path
from geo_seg.tiling import Window

CELL = 64
"""Side in pixels of the cells in which classes are counted."""

_STRIP_SIZE = (256, 16384)  # rows and columns that are read at once: multiples of blocks and cells
SKIPPED = 256
"""Side in pixels of the squares that become nodata where a strip or a window can't be read."""


@dataclass(frozen=True)
class SceneIndex:
    """Statistics of one scene.

    Attributes:
        bands: statistics of the valid pixels.
        cells: (rows, columns, classes) labelled pixels of each class in cells of CELL x CELL pixels.
        valid: (rows, columns) valid pixels of the same cells.
        class_counts: pixel counts of the scene, or of a split's part of it.
        unreadable: (n, 4) windows that could not be read and count as nodata.
        decoded_path: the decoded copy, or None.
        checksum: of image, labels and validity.
        implausible: undeclared nodata pixels; see Validity.
    """

    bands: BandMoments
    cells: NDArray[np.uint16]
    valid: NDArray[np.uint16]
    class_counts: Counts
    unreadable: NDArray[np.int64]
    decoded_path: Path | None
    checksum: int
    implausible: int = 0


def index_scenes(scenes: Sequence[Scene], table: ClassTable, config: DatasetConfig) -> list[SceneIndex]:
    """Return the index of every scene: from the cache if its files have not changed, else in one pass.

    Args:
        scenes: of all splits.
        table: the classes.
        config: nodata options, cache options and number of threads.

    Raises:
        DataError: a mask has values that are not in the class table, a file can't be read, or the disk has
            no room for the decoded copies.
    """
    return [index for index in try_index_scenes(scenes, table, config, raise_error) if index]


def try_index_scenes(
    scenes: Sequence[Scene], table: ClassTable, config: DatasetConfig, on_error: OnError
) -> list[SceneIndex | None]:
    """Return the index of every scene, reporting errors of single scenes to a callback.

    Args:
        scenes: see index_scenes.
        table: see index_scenes.
        config: see index_scenes.
        on_error: called with each error that index_scenes would raise, in the order of the scenes.

    Returns:
        The index of each scene; None for a scene that can't be read.
    """
    cache = SceneCache(table, config)
    paths = [cache.decoded_path(scene) for scene in scenes]
    distinct = dict(zip(paths, scenes, strict=True))  # a scene of two splits is indexed once
    decodes = _should_decode(list(distinct.values()), table, config, cache)
    with ThreadPoolExecutor(config.num_threads) as pool:
        results = pool.map(lambda scene: _try_index(scene, table, config, cache, decodes), distinct.values())
        by_path = {}
        for path, (index, errors) in zip(distinct, results, strict=True):
            for error in errors:
                on_error(error)
            by_path[path] = index
    return [by_path[path] for path in paths]


def _should_decode(
    scenes: Sequence[Scene], table: ClassTable, config: DatasetConfig, cache: SceneCache
) -> bool:
    """Return whether to keep decoded copies; `auto` uses at most half of the free disk space."""
    if config.cache != "auto":
        return config.cache == "memmap"
    cache.folder.mkdir(parents=True, exist_ok=True)
    new = sum(memmap_size(scene, table) for scene in scenes if not cache.decoded_path(scene).exists())
    return new < shutil.disk_usage(cache.folder).free / 2


def _try_index(
    scene: Scene, table: ClassTable, config: DatasetConfig, cache: SceneCache, decode: bool
) -> tuple[SceneIndex | None, list[GeoSegError]]:
    errors: list[GeoSegError] = []
    try:
        return _index(scene, table, config, cache, decode, errors.append), errors
    except DataError as error:
        return None, [*errors, error]


def _index(
    scene: Scene, table: ClassTable, config: DatasetConfig, cache: SceneCache, decode: bool, on_error: OnError
) -> SceneIndex:
    stamp = _stamp(scene)
    arrays = cache.load(scene, stamp) if stamp else None
    decoded_path = cache.decoded_path(scene)
    decoded = decode and stamp is not None
    if arrays is None or (decoded and arrays["decodes"] and not (arrays["copied"] and decoded_path.exists())):
        arrays = _build_index(scene, table, config, cache, decoded)
        if stamp:
            cache.store(scene, stamp, arrays)
    try:
        check_mask(table, scene.mask.path, dict(arrays["values"].tolist()), scene.mask.nodata[0])
    except DataError as error:
        on_error(error)
    if len(arrays["unreadable"]) and config.on_read_error == "raise":
        row, col, height, width = arrays["unreadable"][0]
        on_error(
            DataError(
                f"{scene.name}: rows {row}-{row + height - 1}, columns {col}-{col + width - 1} of image or "
                "mask cannot be read; repair the file, or set dataset.on_read_error=ignore"
            )
        )
    return SceneIndex(
        BandMoments.of(arrays),
        arrays["cells"],
        arrays["valid"],
        Counts(
            scene.image.height * scene.image.width,
            int(arrays["pixels"]),
            arrays["cells"].sum(axis=(0, 1), dtype=np.int64),
        ),
        arrays["unreadable"],
        decoded_path if decoded and arrays["copied"] else None,
        int(arrays["checksum"]),
        int(arrays["strays"]),
    )


def _stamp(scene: Scene) -> Stamp | None:
    files = []
    for raster in (scene.image, scene.mask):
        files.append(raster.path)
        if raster.path.lower().endswith(".vrt"):
            files += [str(file) for file in constituent_files(raster.path)]
    return file_stamps(files)


def _build_index(
    scene: Scene, table: ClassTable, config: DatasetConfig, cache: SceneCache, decode: bool
) -> dict[str, NDArray[Any]]:
    source = RasterSceneReader(scene, table, config)
    cache.folder.mkdir(parents=True, exist_ok=True)
    temporary = temp_path(cache.decoded_path(scene), concurrent=True)
    needs_decoding = config.cache == "memmap" or source.image.needs_decoding
    target = None
    try:
        if decode and needs_decoding:
            preallocate(temporary, memmap_size(scene, table))
            target = MemmapSceneReader(temporary, scene, table, writable=True).pixels
        arrays = _SceneScan(scene, table, source, config.on_read_error == "ignore").run(target)
        if target:
            temporary.replace(cache.decoded_path(scene))
    finally:
        source.close()
        temporary.unlink(missing_ok=True)
    arrays["strays"] = np.array(source.image.validity.strays)
    return {**arrays, "decodes": np.array(needs_decoding), "copied": np.array(target is not None)}


class _SceneScan:
    """One streaming pass over a scene.

    Args:
        scene: the scene.
        table: the classes.
        source: reader of the scene.
        lenient: treat unreadable squares as nodata instead of raising an error.
    """

    def __init__(self, scene: Scene, table: ClassTable, source: RasterSceneReader, lenient: bool) -> None:
        self._scene = scene
        self._source = source
        self._lenient = lenient
        self._ignore_index = table.ignore_index
        self._classes = len(table.names)
        height, width = scene.image.height, scene.image.width
        self._cells = np.zeros((-(-height // CELL), -(-width // CELL), self._classes), np.uint16)
        self._valid = np.zeros(self._cells.shape[:2], np.uint16)
        self._values: Counter[int] = Counter()
        self._unreadable: list[Window] = []
        self._checksum = 0
        rows, cols = min(_STRIP_SIZE[0], height), min(_STRIP_SIZE[1], width)
        self._buffer = WindowArrays(
            np.empty((len(scene.bands), rows, cols), scene.image.dtype),
            np.empty((rows, cols), label_dtype(table)),
            np.empty((rows, cols), bool),
        )

    def run(self, target: WindowArrays | None) -> dict[str, NDArray[Any]]:
        """Read the scene once, into `target` if given, and return the arrays of its index."""
        bands = BandAccumulator(len(self._scene.bands), self._scene.image.height * self._scene.image.width)
        for window in _windows(self._scene.image.height, self._scene.image.width, *_STRIP_SIZE):
            row, col, height, width = window
            inside = (..., slice(row, row + height), slice(col, col + width))
            into = WindowArrays(*(part[..., :height, :width] for part in self._buffer))
            if target:
                into = WindowArrays(*(part[inside] for part in target))
            values = self._read(window, into)
            bands.add(into.image, into.valid)
            self._count(window, into, values)
            for part in into:
                self._checksum = zlib.crc32(np.ascontiguousarray(part).data, self._checksum)
        large = any(value > np.iinfo(np.int64).max for value in self._values)  # of masks of uint64
        return {
            **bands.arrays(),
            "cells": self._cells,
            "valid": self._valid,
            "checksum": np.array(self._checksum),
            "values": np.array(sorted(self._values.items()), np.uint64 if large else np.int64).reshape(-1, 2),
            "unreadable": np.array(self._unreadable, np.int64).reshape(-1, 4),
        }

    def _read(self, window: Window, into: WindowArrays) -> NDArray[Any]:
        try:
            return self._source.read_mask_values(window, into)
        except DataError:
            if not self._lenient:
                raise
        values = np.zeros(into.labels.shape, self._source.mask.info.dtype)
        for part in _windows(window.height, window.width, SKIPPED, SKIPPED):
            inside = (
                ...,
                slice(part.row, part.row + part.height),
                slice(part.col, part.col + part.width),
            )
            piece = WindowArrays(*(array[inside] for array in into))
            scene_window = part._replace(row=window.row + part.row, col=window.col + part.col)
            try:
                values[inside] = self._source.read_mask_values(scene_window, piece)
            except DataError:
                fill_invalid(piece, self._ignore_index)
                self._unreadable.append(scene_window)
        return values

    def _count(self, window: Window, arrays: WindowArrays, values: NDArray[Any]) -> None:
        starts = np.arange(0, window.width, CELL)
        first = window.col // CELL
        for top in range(0, window.height, CELL):
            row = self._cells[(window.row + top) // CELL, first : first + len(starts)]
            columns = np.add.reduce(arrays.valid[top : top + CELL], axis=0, dtype=np.uint8)
            self._valid[(window.row + top) // CELL, first : first + len(starts)] = np.add.reduceat(
                columns, starts, dtype=np.uint16
            )
            labels = arrays.labels[top : top + CELL]
            for number in range(self._classes):
                in_class = labels == number
                if in_class.any():  # a byte holds the count of a cell's column
                    columns = np.add.reduce(in_class, axis=0, dtype=np.uint8)
                    row[:, number] = np.add.reduceat(columns, starts, dtype=np.uint16)
        ignored = arrays.labels == self._ignore_index
        if ignored.any() and (unlabelled := values[ignored & arrays.valid]).size:
            unique, counts = np.unique(unlabelled, return_counts=True)
            self._values.update(dict(zip(unique.tolist(), counts.tolist(), strict=True)))


def _windows(height: int, width: int, rows: int, cols: int) -> Iterator[Window]:
    for row in range(0, height, rows):
        for col in range(0, width, cols):
            yield Window(row, col, min(rows, height - row), min(cols, width - col))
