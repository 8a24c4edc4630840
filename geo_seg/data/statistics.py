"""One streaming pass over a data set: band statistics, class frequencies, and mask values that don't fit."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_seg.data.classes import ClassTable, check_mask
from geo_seg.data.scenes import Scene
from geo_seg.errors import DataError
from geo_seg.raster import RasterReader
from geo_seg.tiling import Window

_ROWS = 256  # rows of a strip: a whole row of blocks of the usual tiled GeoTIFF


@dataclass(frozen=True)
class SceneStatistics:
    """What was counted in one scene.

    Attributes:
        classes: (classes,) labelled pixels of each class where the image is valid.
        pixels: valid pixels of the image, labelled or not.
        mean: (bands,) over the valid pixels.
        squares: (bands,) sum of squared deviations from the mean.
    """

    classes: NDArray[np.int64]
    pixels: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]


@dataclass(frozen=True)
class BandStatistics:
    """Per-band statistics of the valid pixels of a split.

    Attributes:
        mean: per band.
        std: per band, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def scan(
    scenes: Sequence[Scene], table: ClassTable, nodata: float | None, threads: int
) -> list[SceneStatistics]:
    """Reads every scene once, strip by strip.

    Raises:
        DataError: a mask holds values outside the class table, or a file can't be read.
    """
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda scene: _scan_scene(scene, table, nodata), scenes))


def band_statistics(found: Iterable[SceneStatistics]) -> BandStatistics:
    """Merges the statistics of scenes (Chan et al. 1979: nothing cancels).

    Raises:
        DataError: there is no valid pixel.
    """
    pixels, mean, squares = _merge([(s.pixels, s.mean, s.squares) for s in found])
    if pixels == 0:
        raise DataError("the training images hold no valid pixel: all are nodata; see dataset.nodata")
    std = np.sqrt(squares / pixels)
    return BandStatistics(tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist()))


def _scan_scene(scene: Scene, table: ClassTable, nodata: float | None) -> SceneStatistics:
    values: Counter[int] = Counter()
    classes = np.zeros(len(table.names), np.int64)
    parts = []
    with (
        RasterReader(scene.image.path, scene.bands, nodata) as image,
        RasterReader(scene.mask.path) as mask,
    ):
        for window in _strips(scene):
            pixels, valid = image.read(window)
            labels = mask.read(window)[0][0]
            found, counts = np.unique(labels[valid], return_counts=True)
            values.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
            parts.append(_moments(pixels, valid))
    for index, listed in enumerate(table.values):
        classes[index] = sum(values[value] for value in listed)
    check_mask(table, scene.mask.path, values, scene.mask.nodata[0])
    return SceneStatistics(classes, *_merge(parts))


def _strips(scene: Scene) -> Iterator[Window]:
    for row in range(0, scene.image.height, _ROWS):
        yield Window(row, 0, min(_ROWS, scene.image.height - row), scene.image.width)


_Moments = tuple[int, NDArray[np.float64], NDArray[np.float64]]


def _moments(pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> _Moments:
    chosen = pixels[:, valid].astype(np.float64)  # (bands, valid pixels)
    if chosen.shape[1] == 0:
        return 0, np.zeros(len(pixels)), np.zeros(len(pixels))
    mean = chosen.mean(axis=1)
    return chosen.shape[1], mean, ((chosen - mean[:, None]) ** 2).sum(axis=1)


def _merge(parts: Sequence[_Moments]) -> _Moments:
    total = sum(count for count, _, _ in parts)
    if total == 0:
        return 0, parts[0][1], parts[0][2]
    mean: NDArray[np.float64] = np.sum([count * part for count, part, _ in parts], axis=0) / total
    squares: NDArray[np.float64] = np.sum(
        [within + count * (part - mean) ** 2 for count, part, within in parts], axis=0
    )
    return total, mean, squares
