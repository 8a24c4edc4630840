"""GeoTIFF files of the demo data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import from_origin

from geo_seg.data.demo.canvas import Mask
from geo_seg.data.demo.landscape import draw_landscape
from geo_seg.data.demo.sensor import BANDS, cloud_shadow, draw_cloud, photograph
from geo_seg.errors import DataError
from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.reader import RasterReader
from geo_seg.raster.writer import BLOCK, WRITE_ERRORS, commit, write_error
from geo_seg.runtime.files import temp_path
from geo_seg.tiling import Window

_NODATA, _UNLABELLED = 0, 255
_SEED = 2
_CRS = CRS.from_epsg(32632)
_PIXEL = 1.5  # metres
_WEST, _NORTH, _STEP = 440_000, 5_330_000, 2_000  # upper left corner of the first scene, and step to the next
_TRIM = 20  # pixels by which the swath is narrower than the frame, on each side


@dataclass(frozen=True)
class _Frame:
    """Size and acquisition of a scene.

    Attributes:
        height: rows.
        width: columns.
        tilt: tilt of the swath in the frame, in degrees.
        cloudy: whether there is a cloud, which is unlabelled together with its shadow.
    """

    height: int
    width: int
    tilt: float
    cloudy: bool = False


_SCENES = {
    "train_1": _Frame(512, 640, 8),
    "train_2": _Frame(512, 640, -7, cloudy=True),
    "train_3": _Frame(640, 512, 6),
    "train_4": _Frame(540, 620, -9),
    "val_1": _Frame(512, 600, 7),
    "test_1": _Frame(520, 650, -8),
}


def draw_demo(root: Path) -> None:
    """Write images/<scene>.tif and masks/<scene>.tif; keep files that exist and are complete.

    The images have the bands blue, green, red and nir in uint16, reflectance x 10000, in pixels of 1.5 m in
    UTM zone 32, and nodata 0 outside a tilted swath; the masks hold 0 field, 1 forest, 2 water, 3 road,
    4 building and 255 for no label: nodata, and a cloud in one scene. The files are the same every time.
    Writes are atomic, so that several processes may run at once.

    Args:
        root: the folder; created if missing.

    Raises:
        DataError: the files can't be written, or the folder is one of other files.
    """
    _check_no_others(root)
    for number, (name, frame) in enumerate(_SCENES.items()):
        image, mask = root / "images" / f"{name}.tif", root / "masks" / f"{name}.tif"
        missing = [path for path in (image, mask) if not _is_complete(path)]
        if not missing:
            continue
        _make_folders(root)
        pixels, labels = _draw_scene(np.random.default_rng([_SEED, number]), frame)
        west = _WEST + number * _STEP
        geobox = GeoBox(frame.width, frame.height, _CRS, from_origin(west, _NORTH, _PIXEL, _PIXEL), "")
        if image in missing:
            _write(image, pixels, geobox, _NODATA, BANDS)
        if mask in missing:
            _write(mask, labels[None], geobox, _UNLABELLED, ("class",))


def _check_no_others(root: Path) -> None:
    """Raise unless every file in the folder is one of the demo's, or it has all of these."""
    if all((root / "masks" / f"{name}.tif").exists() for name in _SCENES) or not root.is_dir():
        return
    own = {root, root / "images", root / "masks"}
    others = (
        path
        for folder in own
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path not in own and path.name.lstrip(".").partition(".")[0] not in _SCENES
    )
    if (other := next(others, None)) is not None:
        raise DataError(
            f"dataset.root={root}: the demo isn't drawn beside other files ({other.relative_to(root)}); "
            f"`geo_seg begin {root}` writes the YAML of a data set of your own"
        )


def _draw_scene(draw: np.random.Generator, frame: _Frame) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Return an image (bands, H, W) and its mask (H, W)."""
    shape = frame.height, frame.width
    land = draw_landscape(draw, shape)
    cloud = draw_cloud(draw, shape) * np.float32(frame.cloudy)
    image = photograph(draw, land, cloud)
    land.labels[cloud + cloud_shadow(cloud) > 0] = _UNLABELLED
    outside = _outside(frame)
    image[:, outside] = _NODATA
    land.labels[outside] = _UNLABELLED
    return image, land.labels


def _outside(frame: _Frame) -> Mask:
    """Return a mask of the pixels outside of the swath, at the left and right of the frame."""
    rows, cols = np.indices((frame.height, frame.width))
    tilt = np.radians(frame.tilt)
    away = np.abs((cols - frame.width / 2) * np.cos(tilt) + (rows - frame.height / 2) * np.sin(tilt))
    outside: Mask = away > frame.width / 2 - _TRIM
    return outside


def _is_complete(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with RasterReader(path) as raster:
            raster.read(Window(0, 0, raster.info.height, raster.info.width))
    except DataError:
        return False
    return True


def _make_folders(root: Path) -> None:
    try:
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"dataset.root={root}: the demo scenes can't be written there ({error.strerror}); "
            "choose another folder"
        ) from error


def _write(path: Path, pixels: NDArray[Any], geobox: GeoBox, nodata: int, names: tuple[str, ...]) -> None:
    temporary = temp_path(path, concurrent=True)  # several processes may draw at once
    try:
        with rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            width=geobox.width,
            height=geobox.height,
            count=len(pixels),
            dtype=pixels.dtype,
            nodata=nodata,
            crs=geobox.crs,
            transform=geobox.transform,
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            compress="deflate",
        ) as target:
            target.descriptions = names
            target.write(pixels)
        commit(temporary, path)
    except WRITE_ERRORS as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
