"""Interface and registry of the products of a map: the class raster and what is made beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

import geo_seg.inference.products
from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.config.inference import InferenceConfig
from geo_seg.errors import ConfigError
from geo_seg.prediction.decode import BlendedRows
from geo_seg.prediction.measure import WindowSample
from geo_seg.prediction.window_reader import RasterInput
from geo_seg.raster.cog import RasterSpec
from geo_seg.raster.sidecars import pam_path, qml_path
from geo_seg.runtime.registration import import_modules

CLASSES = "_classes.tif"
"""File name suffix of the class raster, which every map has; it appears last, and marks a map as complete."""

SOFTWARE = {"TIFFTAG_SOFTWARE": f"geo_seg {geo_seg.__version__}"}
"""TIFF tags of every raster of a map."""

_CHECKPOINT_TAG = "GEO_SEG_CHECKPOINT"  # name of a TIFF tag

Sample = tuple[RasterInput, list[NDArray[Any]], list[WindowSample]]
"""Of a dry run: a raster, and the predicted classes and the pixels of its sampled windows."""


class Product:
    """An output of a map, in a file of its own; see Raster and PredictedRaster for rasters.

    Products are pickled: other processes write their share of a map.

    Attributes:
        suffix: of its file name.
    """

    suffix: ClassVar[str]

    @classmethod
    def of(cls, config: InferenceConfig, checkpoints: Sequence[Checkpoint]) -> Self | None:
        """Return the product as a configuration asks for it; None if it doesn't."""
        raise NotImplementedError

    @property
    def identity(self) -> object:
        """JSON-compatible options that its content depends on, beside those of InferenceConfig for pixels."""
        return None

    def prepare(self, output: Path) -> None:
        """Raise a DataError, before anything is predicted, if it can't be written to the output folder."""

    def finish(self, folder: Path, products: Sequence["Product"]) -> None:
        """Make the file, if it isn't a raster, from the assembled rasters in the folder of the parts."""

    def files(self, folder: Path) -> Iterator[Path]:
        """Yield its finished files in the folder of the parts, in the order in which they appear."""
        yield assembled_path(folder, self.suffix)

    def forecast(self, samples: Sequence[Sample], scale: float) -> str | None:
        """Return a line of the dry run about what it takes; `scale` is the map relative to the samples."""
        return None


@dataclass(frozen=True)
class Raster(Product):
    """A product that is a raster, written part by part."""

    spec: RasterSpec

    def files(self, folder: Path) -> Iterator[Path]:
        """Yield the raster after its sidecars."""
        raster = assembled_path(folder, self.suffix)
        yield qml_path(raster)
        if self.spec.classes:
            yield pam_path(raster)
        yield raster


class PredictedRaster(Raster):
    """A raster whose pixels come from the blended probabilities."""

    def rows(self, blended: BlendedRows) -> NDArray[Any]:
        """Return the pixels (bands, rows, width) in the stored type; those of nodata pixels are replaced."""
        raise NotImplementedError

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes per pixel that are buffered until they are written."""
        return len(self.spec.bands) * np.dtype(self.spec.dtype).itemsize


_PRODUCTS: dict[str, type[Product]] = {}
P = TypeVar("P", bound=type[Product])


def register_product(product: P) -> P:
    """Register a product; a decorator.

    Raises:
        ConfigError: another product has its suffix.
    """
    known = _PRODUCTS.get(product.suffix)
    if known is not None and (known.__module__, known.__name__) != (product.__module__, product.__name__):
        raise ConfigError(f"two products write *{product.suffix}: {known.__name__} and {product.__name__}")
    _PRODUCTS[product.suffix] = product
    return product


def registered_products() -> list[type[Product]]:
    """Return all products in the order in which their files appear: rasters late, the classes last."""
    import_modules(geo_seg.inference.products)
    return sorted(_PRODUCTS.values(), key=lambda each: (issubclass(each, Raster), each.suffix == CLASSES))


def requested_products(config: InferenceConfig, checkpoints: Sequence[Checkpoint]) -> tuple[Product, ...]:
    """Return the products that a configuration asks for, in the order of registered_products."""
    products = (each.of(config, checkpoints) for each in registered_products())
    return tuple(product for product in products if product is not None)


def predicted_rasters(products: Sequence[Product]) -> tuple[PredictedRaster, ...]:
    """Return the products that are written while a map is predicted; the class raster is last."""
    return tuple(product for product in products if isinstance(product, PredictedRaster))


def assembled_path(folder: Path, suffix: str) -> Path:
    """Return the path of an assembled file before publication adds the name of the map."""
    return folder / suffix.removeprefix("_")


def raster_tags(checkpoints: Sequence[Checkpoint]) -> Mapping[str, str]:
    """Return the TIFF tags of a predicted raster."""
    # no date: the same map, on other processes or after a crash, has the same bytes
    return {**SOFTWARE, _CHECKPOINT_TAG: ", ".join(_short_name(each.path) for each in checkpoints)}


def _short_name(checkpoint: Path) -> str:
    """Return the name of a checkpoint and of its run; maps are passed on, so the path is left out."""
    run = checkpoint.parent.parent.name if checkpoint.parent.name == "checkpoints" else ""
    return f"{run}/checkpoints/{checkpoint.name}" if run else checkpoint.name
