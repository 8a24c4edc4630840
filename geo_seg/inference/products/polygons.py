"""The map as polygons, in a GeoPackage."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
import rasterio

from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.config.inference import InferenceConfig
from geo_seg.inference.products.classes import Classes
from geo_seg.inference.products.probabilities import Probabilities
from geo_seg.inference.products.product import CLASSES, Product, Sample, assembled_path, register_product
from geo_seg.raster.cog import RasterSpec
from geo_seg.raster.geobox import GeoBox
from geo_seg.vectorize.geopackage import PolygonOptions, prove_geopackages, write_polygons
from geo_seg.vectorize.region_table import ConfidenceRaster


@register_product
@dataclass(frozen=True)
class Polygons(Product):
    """Polygons of the class raster."""

    suffix = "_polygons.gpkg"
    options: PolygonOptions
    classes: RasterSpec

    @classmethod
    def of(cls, config: InferenceConfig, checkpoints: Sequence[Checkpoint]) -> Self | None:
        """Return it for polygons=true."""
        options = PolygonOptions(config.min_area, config.simplify)
        return cls(options, Classes.of(config, checkpoints).spec) if config.polygons else None

    @property
    def identity(self) -> object:
        """The options of the polygons."""
        return asdict(self.options)

    def prepare(self, output: Path) -> None:
        """Raise a DataError if GDAL can't write GeoPackages there."""
        prove_geopackages(output)

    def finish(self, folder: Path, products: Sequence[Product]) -> None:
        """Polygonize the assembled class raster, with the mean probability of each polygon if it is known."""
        scale = next((p.spec.scale for p in products if isinstance(p, Probabilities)), None)
        raster = assembled_path(folder, Probabilities.suffix)
        confidence = None if scale is None else ConfidenceRaster(raster, scale)
        self._write(assembled_path(folder, self.suffix), assembled_path(folder, CLASSES), confidence)

    def forecast(self, samples: Sequence[Sample], scale: float) -> str:
        """Return a line about count, time and size of the polygons, extrapolated from the samples."""
        if not all(source.scale.is_identity for source, _, _ in samples):
            return "polygons: not estimated with resolution="
        spec = self.classes
        profile = {"driver": "GTiff", "count": 1, "dtype": spec.dtype, "nodata": spec.nodata}
        count, bytes_written, begin = 0, 0, time.monotonic()
        with TemporaryDirectory() as folder:
            raster, file = Path(folder, "classes.tif"), Path(folder, "polygons.gpkg")
            for source, predicted, windows in samples:
                geometry = GeoBox.from_raster(source.info.path)
                transform = geometry.transform @ geometry.transform.translation(
                    source.info.width // 2, source.info.height // 2
                )
                place = {"crs": geometry.crs, "transform": transform}
                for classes, (_, valid) in zip(predicted, windows, strict=True):
                    height, width = classes.shape
                    with rasterio.open(raster, "w", height=height, width=width, **place, **profile) as target:
                        target.write(np.where(valid, classes, spec.nodata).astype(spec.dtype), 1)
                    count += self._write(file, raster, None)
                    bytes_written += file.stat().st_size
        return (
            f"polygons: about {count * scale:.0f} in another {(time.monotonic() - begin) * scale:.0f} s, "
            f"{bytes_written * scale / 1e6:.1f} MB; rather fewer, those of the windows end at their edges"
        )

    def _write(self, file: Path, raster: Path, confidence: ConfidenceRaster | None) -> int:
        spec = self.classes
        return write_polygons(file, raster, spec.nodata, spec.classes, spec.colors, confidence, self.options)
