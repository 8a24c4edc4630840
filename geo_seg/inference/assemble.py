"""Output files of a map: raster specs, writing of parts, assembly, and publication."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geo_seg.inference.part_store import PartStore
from geo_seg.inference.products.product import (
    CLASSES,
    Product,
    Raster,
    assembled_path,
    predicted_rasters,
    registered_products,
)
from geo_seg.prediction.decode import BlendedRows
from geo_seg.raster.cog import write_cog
from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.reader import RasterReader
from geo_seg.raster.validity import IMPLAUSIBLE
from geo_seg.raster.writer import RowWriter, write_error
from geo_seg.tiling import Grid

_COUNT_TAGS = ("strays", "undecided")  # pixels of a part that are nodata, by reason; tags of its class raster


def write_part(
    store: PartStore,
    number: int,
    grid: Grid,
    products: Sequence[Product],
    rows: Iterable[BlendedRows],
    tally: Mapping[str, int],
) -> None:
    """Write the rasters of a part of a map; they get their names only when they are complete.

    Args:
        store: the parts of the map.
        number: index of the part.
        grid: its windows.
        products: the products of the map.
        rows: all its rows, from the top down.
        tally: counts of Predictor.rows, read after the last row and stored as tags.

    Raises:
        DataError: writing fails, for instance on a full disk; or an error of the rows.
    """
    shape = (grid.area.height, grid.area.width)
    rasters = predicted_rasters(products)[::-1]  # they are closed and renamed in reverse order
    with ExitStack() as stack:
        targets = [
            stack.enter_context(
                RowWriter(store.part(number, each.suffix), (len(each.spec.bands), *shape), each.spec.dtype)
            )
            for each in rasters
        ]
        for blended in rows:
            all_valid = blended.valid.all()
            for target, raster in zip(targets, rasters, strict=True):
                with torch.inference_mode():
                    values = raster.rows(blended)
                masked = values if all_valid else np.where(blended.valid, values, raster.spec.nodata)
                target.append(masked.astype(raster.spec.dtype, copy=False))
        targets[0].tag({key: str(tally.get(key, 0)) for key in _COUNT_TAGS})


def input_oddities(store: PartStore, parts: int) -> Iterator[str]:
    """Yield notes about pixels of a map that are unexpectedly nodata, from all its parts.

    Raises:
        DataError: a part can't be read.
    """
    total = dict.fromkeys(_COUNT_TAGS, 0)
    for number in range(parts):
        with RasterReader(store.part(number, CLASSES)) as reader:
            for key in _COUNT_TAGS:
                total[key] += int(reader.tags[key])
    if total["strays"]:
        yield f"{total['strays']} px {IMPLAUSIBLE}"
    if total["undecided"]:
        yield (
            f"{total['undecided']} px are nodata because the model predicts NaN there: its weights are not "
            "finite, or the chosen precision overflows (precision=fp32 has the largest range)"
        )


def assemble(
    store: PartStore,
    geometry: GeoBox,
    parts: tuple[Grid, ...],
    products: Sequence[Product],
) -> None:
    """Join the parts to the files of a map, in the folder of its parts.

    They get fixed names there, as the name of the raster may hold characters that are special for GDAL.

    Args:
        store: the parts, all of them done.
        geometry: grid of the map.
        parts: in the order of their numbers.
        products: the products of the map.

    Raises:
        DataError: the files can't be written.
    """
    for product in products:
        if isinstance(product, Raster):
            parts_on_map = [(part.area, store.part(i, product.suffix)) for i, part in enumerate(parts)]
            write_cog(assembled_path(store.folder, product.suffix), product.spec, geometry, parts_on_map)
    for product in products:
        product.finish(store.folder, products)


def publish(
    store: PartStore,
    file: Path,
    products: Sequence[Product],
    record: Mapping[str, Any],
) -> None:
    """Move the files of a map to the output folder, the class raster last, and remove its parts.

    Args:
        store: the parts, with all files of the map.
        file: path of the class raster; the other files are moved beside it.
        products: the products of the map.
        record: numbers of the map that are kept until the command ends.

    Raises:
        DataError: the files can't be moved.
    """
    stem = file.name.removesuffix(CLASSES)
    try:
        store.write_record(record, assembled_path(store.folder, CLASSES))
        for path in (path for product in products for path in product.files(store.folder)):
            path.replace(file.with_name(f"{stem}_{path.name}"))
    except OSError as error:
        raise write_error(file, error) from error
    store.clear()


def stale_outputs(file: Path, products: Sequence[Product]) -> list[Path]:
    """Return the files beside a new class raster that belong to an earlier map of the same raster.

    Args:
        file: the class raster.
        products: the products of the new map.
    """
    new = {product.suffix for product in products}
    stem = file.name.removesuffix(CLASSES)
    suffixes = [each.suffix for each in registered_products() if each.suffix not in new]
    companions = (file.with_name(f"{stem}{suffix}") for suffix in suffixes)
    return [path for path in companions if path.exists()]
