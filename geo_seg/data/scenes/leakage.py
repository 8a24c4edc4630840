"""The leakage audit: what is validated and tested on lies nowhere near a training window."""

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

_CLOSE_PIXELS = 0.25  # pixels: what lies side by side shares no more than rounding
_MAX_LISTED = 3  # leaks that a message names
_EDGE = np.linspace(0, 1, 5)  # places along the edges of a footprint that are reprojected
_WORLD = 1e30


class Leak(NamedTuple):
    """A scene whose labels training gets to see.

    Attributes:
        split: "val" or "test".
        scene: its name.
        train: name of the training scene.
        identical_pixels: whether both hold the same pixels; else training windows come within its buffer.
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
    """Looks at every scene of val and test for a training scene that shows it.

    Files without georeference are compared by their pixels; where two of them show the same ground on
    different dates, only dataset.split.group or table can know. Places are compared in cells of 64 px that
    hold labels, and in the boxes that training windows can reach into.

    Args:
        scenes: of every split.
        index: of each scene.
        config: buffer and size of the windows.
        border: pixels beside each side of a training window that are seen, too.

    Returns:
        One leak at most for each scene of val and test, with the first training scene that shows it.
    """
    train = _Training(scenes["train"], index["train"], config, border)
    seen: set[str] = set()
    found = []
    for split in ("val", "test"):
        fresh = [n for n, scene in enumerate(scenes[split]) if _own(scene) not in seen]
        seen.update(_own(scenes[split][n]) for n in fresh)
        held = [scenes[split][n] for n in fresh]
        near = train.near(held)
        for number, scene in enumerate(held):
            other, same = train.showing(scene, index[split][fresh[number]], near.get(number, ()))
            if other is not None:
                found.append(Leak(split, scene.name, other.name, same))
    return found


def describe_leaks(
    leaks: Sequence[Leak], scenes: Mapping[str, Sequence[Scene]], config: DatasetConfig
) -> str:
    """What leaks, in one line."""
    words = {True: "holds the pixels of", False: "lies where windows are trained on, in"}
    listed = "; ".join(
        f"{leak.scene} ({leak.split}) {words[leak.identical_pixels]} {leak.train}"
        for leak in leaks[:_MAX_LISTED]
    )
    more = f"; and {len(leaks) - _MAX_LISTED} more" if len(leaks) > _MAX_LISTED else ""
    held = len({scene.name for split in ("val", "test") for scene in scenes.get(split, ())})
    near = f" (buffer {config.split.buffer:g} {config.split.unit})" if config.split.buffer else ""
    return f"the split leaks in {len(leaks)} of {held} scenes of val and test{near}: {listed}{more}"


class _Training:
    """The training scenes, to look for those that show a place.

    Args:
        scenes: in the order of the index.
        index: of each.
        config: buffer and size of the windows.
        margin: pixels beside each side of a window that are seen, too.
    """

    def __init__(
        self, scenes: Sequence[Scene], index: Sequence[SceneIndex], config: DatasetConfig, margin: int
    ) -> None:
        self._scenes = scenes
        self._index = index
        self._config = config
        self._margin = margin
        self._boxes: dict[int, NDArray[np.int64]] = {}
        self._contents: dict[Any, int] = {}
        self._paths: dict[str, list[int]] = {}
        for number, (scene, found) in enumerate(zip(scenes, index, strict=True)):
            self._contents.setdefault(_content(found), number)
            self._paths.setdefault(scene.image.path, []).append(number)

    def near(self, held: Sequence[Scene]) -> dict[int, list[int]]:
        """By the number of a scene those of the training scenes that may be within the buffer of it."""
        buffer = self._config.split.buffer, self._config.split.unit
        placed = [scene for scene in (*self._scenes, *held) if scene.image.crs and scene.image.transform]
        common = len({scene.image.crs for scene in placed}) > 1
        ours = _footprints([scene.image for scene in self._scenes], common, (0.0, "pixels"))
        theirs = _footprints([scene.image for scene in held], common, buffer)
        near: dict[int, list[int]] = {}
        for one, other in shapely.STRtree(ours).query(theirs, predicate="intersects").T.tolist():
            near.setdefault(one, []).append(other)
        for number, scene in enumerate(held):  # the same file, with or without georeference
            near[number] = sorted({*near.get(number, ()), *self._paths.get(scene.image.path, ())})
        return near

    def showing(self, held: Scene, found: SceneIndex, near: Sequence[int]) -> tuple[Scene | None, bool]:
        """The first training scene that shows what counts in another, and whether it is a copy of it."""
        twin = self._contents.get(_content(found)) if _content(found) else None
        if twin is not None and self._scenes[twin].image.path != held.image.path:
            return self._scenes[twin], True
        boxes = _counted(held, found)
        if not len(boxes) or not near:
            return None, False
        row, col, bottom, right = boxes.T
        tree = shapely.STRtree(
            shapely.box(
                col + _CLOSE_PIXELS, row + _CLOSE_PIXELS, right - _CLOSE_PIXELS, bottom - _CLOSE_PIXELS
            )
        )
        buffer = length_in_pixels(self._config.split.buffer, self._config.split.unit, held.image)
        for number in near:
            seen = _project_boxes(held.image, self._scenes[number].image, self._seen(number))
            if tree.query(seen, predicate="dwithin", distance=buffer).size:
                return self._scenes[number], False
        return None, False

    def _seen(self, number: int) -> NDArray[np.int64]:
        """Boxes that windows of a training scene can reach into, at most."""
        if number not in self._boxes:
            scene, window = self._scenes[number], self._config.window
            if scene.excluded:  # a margin may show all that isn't
                self._boxes[number] = AllowedOffsets(scene, 1 if self._margin else window).visible_boxes()
            else:
                labelled = np.any(self._index[number].cells, axis=2)
                reach = math.ceil((window - 1 + self._margin) / CELL)
                self._boxes[number] = _cells_to_boxes(_dilate(labelled, reach), scene.image)
        return self._boxes[number]


def _own(scene: Scene) -> str:
    return repr((scene.name, scene.blocks))


def _content(found: SceneIndex) -> Any:
    """What is the same only if the pixels are; None for an image of one value, of which there may be many."""
    bands = found.bands
    if not bands.pixels or not bands.m2.any():
        return None
    return (
        bands.pixels,
        found.cells.shape,
        bands.mean.tobytes(),
        bands.m2.tobytes(),
        bands.quantiles.tobytes(),
    )


def _counted(scene: Scene, found: SceneIndex) -> NDArray[np.int64]:
    """(n, 4) boxes that hold all pixels that count."""
    boxes = _cells_to_boxes(np.any(found.cells, axis=2), scene.image)
    if not scene.blocks:
        return boxes
    parts = np.array([(row, col, row + height, col + width) for row, col, height, width in scene.blocks])
    low = np.maximum(boxes[:, None, :2], parts[:, :2])
    high = np.minimum(boxes[:, None, 2:], parts[:, 2:])
    inside: NDArray[np.int64] = np.concatenate([low, high], axis=2)[np.all(low < high, axis=2)]
    return inside


def _cells_to_boxes(cells: NDArray[np.bool_], image: RasterInfo) -> NDArray[np.int64]:
    """Boxes (n, 4) of first row, first column, end row, end column, one for cells side by side."""
    steps = np.diff(cells.astype(np.int8), axis=1, prepend=0, append=0)
    row, first = np.nonzero(steps == 1)
    _, end = np.nonzero(steps == -1)
    boxes = np.stack([row, first, row + 1, end], axis=1) * CELL
    return np.minimum(boxes, (image.height, image.width) * 2)


def _dilate(cells: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Cells and all that lie within a number of cells of them."""
    for axis in (0, 1):
        sums = np.cumsum(np.pad(cells, [(by + 1, by) if a == axis else (0, 0) for a in (0, 1)]), axis=axis)
        count = cells.shape[axis]
        cells = np.take(sums, range(2 * by + 1, 2 * by + 1 + count), axis) > np.take(sums, range(count), axis)
    return cells


def _project_boxes(image: RasterInfo, other: RasterInfo, boxes: NDArray[np.int64]) -> NDArray[Any]:
    """Boxes of another raster as polygons in columns and rows of an image."""
    row, col, bottom, right = boxes.T.astype(float)
    xs, ys = np.stack([col, right, right, col]), np.stack([row, row, bottom, bottom])  # (4, n)
    if image.path != other.path:
        xs, ys = affine_of(other) * (xs, ys)
        if image.crs != other.crs:
            found = transform_points(CRS.from_wkt(other.crs), CRS.from_wkt(image.crs), xs.ravel(), ys.ravel())
            xs, ys = (part.reshape(4, -1) for part in found)
        xs, ys = ~affine_of(image) * (xs, ys)
    return shapely.polygons(np.nan_to_num(np.stack([xs, ys], -1), nan=_WORLD).swapaxes(0, 1))


def _footprints(images: Sequence[RasterInfo], common: bool, buffer: tuple[float, str]) -> NDArray[Any]:
    """Boxes around rasters in their own CRS, or in degrees; None for those without georeference."""
    boxes = np.full(len(images), None, object)
    by_crs: dict[str, list[int]] = {}
    for number, image in enumerate(images):
        if image.crs and image.transform:
            by_crs.setdefault(image.crs, []).append(number)
    for crs, numbers in by_crs.items():
        outlines = [_outline(images[n], length_in_pixels(*buffer, images[n])) for n in numbers]
        xs, ys = np.stack(outlines, 1)  # (scenes, places) each
        if common:
            found = transform_points(CRS.from_wkt(crs), CRS.from_epsg(4326), xs.ravel(), ys.ravel())
            xs, ys = (np.nan_to_num(part, nan=_WORLD).reshape(xs.shape) for part in found)
        boxes[numbers] = shapely.box(xs.min(1), ys.min(1), xs.max(1), ys.max(1))
    return boxes


def _outline(image: RasterInfo, buffer: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Map coordinates of places along the edges of a raster with a buffer around it, without its rim."""
    reach = buffer - _CLOSE_PIXELS
    cols = -reach + _EDGE * (image.width + 2 * reach)
    rows = -reach + _EDGE * (image.height + 2 * reach)
    ends = [np.full(_EDGE.size, side) for side in (cols[0], cols[-1])]
    caps = [np.full(_EDGE.size, side) for side in (rows[0], rows[-1])]
    return affine_of(image) * (np.concatenate([cols, cols, *ends]), np.concatenate([*caps, rows, rows]))
