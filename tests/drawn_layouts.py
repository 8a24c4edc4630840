"""Folders as people have them, drawn: images and labels of three classes in different layouts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import shapely
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rasterio.transform import from_origin

from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.dataset_checks import dataset_errors
from geo_seg.config.fields import raise_errors, to_dataclass
from tests.conftest import draw_scene, write_raster

_LEVELS = np.array([[30, 120, 200], [200, 60, 120], [90, 180, 40]], np.int32)  # (bands, classes)


def draw_rgb(seed: int, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """An 8-bit image in three bands, and its three classes."""
    _, mask = draw_scene(seed, side, side)
    noise = np.random.default_rng(seed).normal(0, 8, (3, side, side))
    return np.clip(_LEVELS[:, mask] + noise, 1, 255).astype(np.uint8), mask


def place(number: int) -> rasterio.Affine:
    """Ground of its own for each number."""
    return from_origin(500000 + 10000 * number, 5000000, 2, 2)


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """Save (3, H, W) or (H, W) as PNG or JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0)).save(path)


def nested_cities(root: Path) -> None:
    """`<city>/images/*.tif` and `<city>/masks/*.tif` of five cities, with a legend as CSV."""
    for city, name in enumerate(("aachen", "bern", "como", "dijon", "essen")):
        for number in range(3):
            image, mask = draw_rgb(10 * city + number)
            ground = place(10 * city + number)
            write_raster(root / name / "images" / f"t{number}.tif", image, transform=ground)
            write_raster(root / name / "masks" / f"t{number}.tif", mask, transform=ground)
    (root / "class_dict.csv").write_text(
        "name,id,r,g,b\nmeadow,0,10,200,10\nroad,1,90,90,90\nroof,2,200,10,10\n"
    )


def suffixes(root: Path) -> None:
    """`train/12_sat.jpg` with coloured `train/12_mask.png`, as DeepGlobe; valid has no masks."""
    colors = np.array([[0, 255, 255], [255, 255, 0], [255, 0, 255]], np.uint8)
    for number in range(10):
        image, mask = draw_rgb(number)
        save_picture(root / "train" / f"{number}_sat.jpg", image)
        save_picture(root / "train" / f"{number}_mask.png", colors[mask].transpose(2, 0, 1))
    for number in range(10, 13):
        save_picture(root / "valid" / f"{number}_sat.jpg", draw_rgb(number)[0])


def one_folder(root: Path) -> None:
    """`a1_part1.tif` and `a1_part1_label.tif` side by side: 0, 255, of four scenes in three parts each."""
    for scene in range(4):
        for part in range(3):
            image, mask = draw_rgb(10 * scene + part)
            write_raster(root / f"a{scene}_part{part}.tif", image, crs=None, transform=None)
            labels = np.where(mask == 2, 255, 0).astype(np.uint8)
            write_raster(root / f"a{scene}_part{part}_label.tif", labels, crs=None, transform=None)
    (root / "notes.docx").write_text("no picture")


def big_raster_and_polygons(root: Path) -> None:
    """One raster of 512 x 512 pixels, and a GeoPackage with stripes of two land covers."""
    column = np.arange(512) // 64 % 2
    image = np.array([[60], [180]])[column].reshape(1, 512) + np.zeros((512, 1))
    noise = np.random.default_rng(0).normal(0, 5, (4, 512, 512))
    write_raster(root / "ortho.tif", (image[None] * 10 + noise + 500).astype(np.uint16), transform=place(0))
    shapes, kinds = [], []
    for stripe in range(8):
        left, top = 500000 + 128 * stripe, 5000000
        shapes.append(shapely.box(left, top - 1024, left + 128, top))
        kinds.append("field" if stripe % 2 else "forest")
    pyogrio.raw.write(
        str(root / "landcover.gpkg"),
        np.array([shapely.to_wkb(shape) for shape in shapes]),
        [np.arange(8), np.array(kinds, object)],
        ["fid_old", "cover_type"],
        layer="landcover",
        driver="GPKG",
        geometry_type="Polygon",
        crs="EPSG:32633",
    )


def band_files(root: Path) -> None:
    """`T<scene>_B02.tif`, `_B03.tif`, `_B04.tif`, `_B08.tif` and `_B11.tif` at half the resolution."""
    for scene in range(6):
        image, mask = draw_rgb(scene)
        ground = place(scene)
        for number, band in enumerate(("B02", "B03", "B04", "B08")):
            pixels = image[number % 3].astype(np.uint16) * 20
            write_raster(root / "scenes" / f"T{scene}_{band}.tif", pixels, transform=ground)
        half = ground * rasterio.Affine.scale(2)
        write_raster(
            root / "scenes" / f"T{scene}_B11.tif", image[0, ::2, ::2].astype(np.uint16), transform=half
        )
        labels = np.where(mask == 0, 255, mask).astype(np.uint8)
        write_raster(root / "labels" / f"T{scene}.tif", labels, transform=ground)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    maker.__name__: maker
    for maker in (nested_cities, suffixes, one_folder, big_raster_and_polygons, band_files)
}
"""Functions that draw a layout into a folder, by name."""


def read_dataset(yaml: Path) -> DatasetConfig:
    """Read the YAML of a data set as a run reads it."""
    merged = OmegaConf.merge(OmegaConf.structured(DatasetConfig), OmegaConf.load(yaml))
    assert isinstance(merged, DictConfig)
    config: DatasetConfig = to_dataclass(merged, DatasetConfig)
    raise_errors(dataset_errors(config))
    return config
