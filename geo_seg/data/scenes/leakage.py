"""Leakage audit: finds scenes of val and test that training windows show or come close to."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.index import CELL, SceneIndex
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.scenes.spatial_blocks import length_in_pixels
from geo_seg.data.windows.allowed_offsets import AllowedOffsets
from geo_seg.raster.georeference import affine_of
from geo_seg.raster.pixel_areas import transform_points
from geo_seg.raster.reader import RasterInfo

_TOLERANCE_PIXELS = 0.25  # adjacent scenes overlap by no more than this, through rounding
_MAX_LISTED = 3  # leaks in a message
_EDGE_POSITIONS = np.linspace(0, 1, 5)  # of the points along the edges of a footprint to reproject
_OUTSIDE = 1e30  # coordinate of points that cannot be reprojected


class Leak(NamedTuple):
    """A scene of val or test whose labels training windows show.

    Attributes:
        split: "val" or "test".
        scene: name of the scene.
        train: name of the training scene.
        identical_pixels: whether both hold the same pixels; else training windows come within the buffer.
    """

    split: str
    scene: str
    train: str
    identical_pixels: bool


def find_leaks(
    scenes: Mapping[str, Sequence[Scene]],
    index: Mapping[str, Sequence[SceneIndex]],
    config: DatasetConfig,
    border: int = 0,
) -> list[Leak]:
    """Find the scenes of val and test that a training scene shows.

    Files without georeference are compared by their pixels; if two of them show the same ground on
    different dates, only dataset.split.group or table can separate them. Locations are compared as boxes:
    labelled cells of 64 px against what training windows can reach.

    Args:
        scenes: scenes of every split.
        index: index of each scene.
        config: buffer and size of the windows.
        border: pixels around a training window that augmentation can show.

    Returns:
        At most one leak for each scene of val and test, with the first training scene that shows it.
    """
    train = _TrainingScenes(scenes["train"], index["train"], config, border)
    checked: set[str] = set()
    leaks = []
    for split in ("val", "test"):
        numbers = [n for n, scene in enumerate(scenes[split]) if _part_key(scene) not in checked]
        checked.update(_part_key(scenes[split][n]) for n in numbers)
        evaluated = [scenes[split][n] for n in numbers]
        candidates = train.nearby(evaluated)
        for number, scene in enumerate(evaluated):
            train_scene, identical = train.first_overlapping(
                scene, index[split][numbers[number]], candidates.get(number, ())
            )
            if train_scene is not None:
                leaks.append(Leak(split, scene.name, train_scene.name, identical))
    return leaks


def describe_leaks(
    leaks: Sequence[Leak], scenes: Mapping[str, Sequence[Scene]], config: DatasetConfig
) -> str:
    """Describe leaks in one line."""
    words = {True: "holds the pixels of", False: "lies where windows are trained on, in"}
    listed = "; ".join(
        f"{leak.scene} ({leak.split}) {words[leak.identical_pixels]} {leak.train}"
        for leak in leaks[:_MAX_LISTED]
    )
    more = f"; and {len(leaks) - _MAX_LISTED} more" if len(leaks) > _MAX_LISTED else ""
    total = len({scene.name for split in ("val", "test") for scene in scenes.get(split, ())})
    buffer = f" (buffer {config.split.buffer:g} {config.split.unit})" if config.split.buffer else ""
    return f"the split leaks in {len(leaks)} of {total} scenes of val and test{buffer}: {listed}{more}"


class _TrainingScenes:
    """The training scenes, searchable by location and by content.

    Args:
        scenes: training scenes.
        index: index of each scene.
        config: buffer and size of the windows.
        border: pixels around a window that augmentation can show.
    """

    def __init__(
        self, scenes: Sequence[Scene], index: Sequence[SceneIndex], config: DatasetConfig, border: int
    ) -> None:
        self._scenes = scenes
        self._index = index
        self._config = config
        self._border = border
        self._boxes: dict[int, NDArray[np.int64]] = {}
        self._contents: dict[tuple[object, ...] | None, int] = {}
        self._paths: dict[str, list[int]] = {}
        for number, (scene, scene_index) in enumerate(zip(scenes, index, strict=True)):
            self._contents.setdefault(_content_key(scene_index), number)
            self._paths.setdefault(scene.image.path, []).append(number)

    def nearby(self, scenes: Sequence[Scene]) -> dict[int, list[int]]:
        """Return, by the number of each scene, the training scenes that may lie within its buffer."""
        buffer = self._config.split.buffer, self._config.split.unit
        georeferenced = [
            scene for scene in (*self._scenes, *scenes) if scene.image.crs and scene.image.transform
        ]
        several_crs = len({scene.image.crs for scene in georeferenced}) > 1
        train_boxes = _footprints([scene.image for scene in self._scenes], several_crs, (0.0, "pixels"))
        boxes = _footprints([scene.image for scene in scenes], several_crs, buffer)
        candidates: dict[int, list[int]] = {}
        for number, train_number in (
            shapely.STRtree(train_boxes).query(boxes, predicate="intersects").T.tolist()
        ):
            candidates.setdefault(number, []).append(train_number)
        for number, scene in enumerate(scenes):  # the same file, with or without georeference
            candidates[number] = sorted({*candidates.get(number, ()), *self._paths.get(scene.image.path, ())})
        return candidates

    def first_overlapping(
        self, scene: Scene, index: SceneIndex, candidates: Sequence[int]
    ) -> tuple[Scene | None, bool]:
        """Return the first training scene that shows labels of a scene, and whether it is a copy of it."""
        copy = self._contents.get(_content_key(index)) if _content_key(index) else None
        if copy is not None and self._scenes[copy].image.path != scene.image.path:
            return self._scenes[copy], True
        boxes = _labelled_boxes(scene, index)
        if not len(boxes) or not candidates:
            return None, False
        row, col, bottom, right = boxes.T
        tree = shapely.STRtree(
            shapely.box(
                col + _TOLERANCE_PIXELS,
                row + _TOLERANCE_PIXELS,
                right - _TOLERANCE_PIXELS,
                bottom - _TOLERANCE_PIXELS,
            )
        )
        buffer = length_in_pixels(self._config.split.buffer, self._config.split.unit, scene.image)
        for number in candidates:
            visible = _project_boxes(scene.image, self._scenes[number].image, self._visible_boxes(number))
            if tree.query(visible, predicate="dwithin", distance=buffer).size:
                return self._scenes[number], False
        return None, False

    def _visible_boxes(self, number: int) -> NDArray[np.int64]:
        """Return boxes that hold all that windows of a training scene can show."""
        if number not in self._boxes:
            scene, window = self._scenes[number], self._config.window
            if scene.excluded:  # with a border, all that is not excluded may be seen
                self._boxes[number] = AllowedOffsets(scene, 1 if self._border else window).visible_boxes()
            else:
                labelled = np.any(self._index[number].cells, axis=2)
                reach = math.ceil((window - 1 + self._border) / CELL)
                self._boxes[number] = _cells_to_boxes(_dilate(labelled, reach), scene.image)
        return self._boxes[number]


def _part_key(scene: Scene) -> str:
    return repr((scene.name, scene.blocks))


def _content_key(index: SceneIndex) -> tuple[object, ...] | None:
    """Return a key that is equal only for equal pixels; None for a constant image, which may recur."""
    bands = index.bands
    if not bands.pixels or not bands.m2.any():
        return None
    return (
        bands.pixels,
        index.cells.shape,
        bands.mean.tobytes(),
        bands.m2.tobytes(),
        bands.quantiles.tobytes(),
    )


def _labelled_boxes(scene: Scene, index: SceneIndex) -> NDArray[np.int64]:
    """Return (n, 4) boxes that contain all labelled pixels."""
    boxes = _cells_to_boxes(np.any(index.cells, axis=2), scene.image)
    if not scene.blocks:
        return boxes
    parts = np.array([(row, col, row + height, col + width) for row, col, height, width in scene.blocks])
    low = np.maximum(boxes[:, None, :2], parts[:, :2])
    high = np.minimum(boxes[:, None, 2:], parts[:, 2:])
    inside: NDArray[np.int64] = np.concatenate([low, high], axis=2)[np.all(low < high, axis=2)]
    return inside


def _cells_to_boxes(cells: NDArray[np.bool_], image: RasterInfo) -> NDArray[np.int64]:
    """Return (n, 4) boxes (first row, first column, end row, end column), one for adjacent cells of a row."""
    steps = np.diff(cells.astype(np.int8), axis=1, prepend=0, append=0)
    row, first = np.nonzero(steps == 1)
    _, end = np.nonzero(steps == -1)
    boxes = np.stack([row, first, row + 1, end], axis=1) * CELL
    return np.minimum(boxes, (image.height, image.width) * 2)


def _dilate(cells: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Dilate a mask of cells by a square of a radius in cells."""
    for axis in (0, 1):
        sums = np.cumsum(
            np.pad(cells, [(radius + 1, radius) if a == axis else (0, 0) for a in (0, 1)]), axis=axis
        )
        count = cells.shape[axis]
        cells = np.take(sums, range(2 * radius + 1, 2 * radius + 1 + count), axis) > np.take(
            sums, range(count), axis
        )
    return cells


def _project_boxes(image: RasterInfo, source: RasterInfo, boxes: NDArray[np.int64]) -> NDArray[Any]:
    """Return boxes of another raster as polygons in columns and rows of an image."""
    row, col, bottom, right = boxes.T.astype(float)
    xs, ys = np.stack([col, right, right, col]), np.stack([row, row, bottom, bottom])  # (4, n)
    if image.path != source.path:
        xs, ys = affine_of(source) * (xs, ys)
        if image.crs != source.crs:
            points = transform_points(
                CRS.from_wkt(source.crs), CRS.from_wkt(image.crs), xs.ravel(), ys.ravel()
            )
            xs, ys = (part.reshape(4, -1) for part in points)
        xs, ys = ~affine_of(image) * (xs, ys)
    return shapely.polygons(np.nan_to_num(np.stack([xs, ys], -1), nan=_OUTSIDE).swapaxes(0, 1))


def _footprints(images: Sequence[RasterInfo], geographic: bool, buffer: tuple[float, str]) -> NDArray[Any]:
    """Return bounding boxes of rasters in their CRS, or in degrees; None without a georeference."""
    boxes = np.full(len(images), None, object)
    by_crs: dict[str, list[int]] = {}
    for number, image in enumerate(images):
        if image.crs and image.transform:
            by_crs.setdefault(image.crs, []).append(number)
    for crs, numbers in by_crs.items():
        outlines = [_outline(images[n], length_in_pixels(*buffer, images[n])) for n in numbers]
        xs, ys = np.stack(outlines, 1)  # (scenes, points) each
        if geographic:
            points = transform_points(CRS.from_wkt(crs), CRS.from_epsg(4326), xs.ravel(), ys.ravel())
            xs, ys = (np.nan_to_num(part, nan=_OUTSIDE).reshape(xs.shape) for part in points)
        boxes[numbers] = shapely.box(xs.min(1), ys.min(1), xs.max(1), ys.max(1))
    return boxes


def _outline(image: RasterInfo, buffer: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return map coordinates of points along the edges of a raster, moved outwards by a buffer."""
    reach = buffer - _TOLERANCE_PIXELS
    cols = -reach + _EDGE_POSITIONS * (image.width + 2 * reach)
    rows = -reach + _EDGE_POSITIONS * (image.height + 2 * reach)
    ends = [np.full(_EDGE_POSITIONS.size, side) for side in (cols[0], cols[-1])]
    caps = [np.full(_EDGE_POSITIONS.size, side) for side in (rows[0], rows[-1])]
    return affine_of(image) * (np.concatenate([cols, cols, *ends]), np.concatenate([*caps, rows, rows]))
