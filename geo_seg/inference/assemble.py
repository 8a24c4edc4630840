"""Output files of a map: raster specs, writing of parts, assembly, and publication."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import geo_seg
from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.inference.inputs import CLASSES, COMPANION_SUFFIXES, POLYGONS, PROBABILITIES, UNCERTAINTIES
from geo_seg.inference.part_store import PartStore
from geo_seg.prediction.decode import SCALE, UNCERTAINTY, OutputOptions, OutputRows
from geo_seg.raster.cog import RasterSpec, write_cog
from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.reader import RasterReader
from geo_seg.raster.sidecars import pam_path, qml_path
from geo_seg.raster.validity import IMPLAUSIBLE
from geo_seg.raster.writer import RowWriter, write_error
from geo_seg.tiling import Grid
from geo_seg.vectorize.geopackage import PolygonOptions, write_polygons
from geo_seg.vectorize.region_table import ConfidenceRaster

SOFTWARE = {"TIFFTAG_SOFTWARE": f"geo_seg {geo_seg.__version__}"}
"""TIFF tags of every raster of a map."""

_CHECKPOINT_TAG = "GEO_SEG_CHECKPOINT"  # name of a TIFF tag
_PROBABILITY_NODATA = 255
_COUNT_TAGS = ("strays", "undecided")  # pixels of a part that are nodata, by reason; tags of its class raster


def class_dtype(num_classes: int) -> tuple[int, str]:
    """Return nodata and dtype of a class raster: the narrowest dtype with a value that is no class."""
    return (255, "uint8") if num_classes <= 255 else (65535, "uint16")


def raster_specs(checkpoints: Sequence[Checkpoint], options: OutputOptions) -> tuple[RasterSpec, ...]:
    """Return the specs of the rasters of a map; the class raster is last and marks the others as complete.

    Args:
        checkpoints: of the models; the first one's colours are used.
        options: rasters that are written beside the classes.
    """
    checkpoint = checkpoints[0]
    # no date: the same map, on other processes or after a crash, has the same bytes
    tags = {**SOFTWARE, _CHECKPOINT_TAG: ", ".join(_short_checkpoint_name(each.path) for each in checkpoints)}
    names = checkpoint.class_names
    nodata, dtype = class_dtype(len(names))
    classes = RasterSpec(CLASSES, dtype, nodata, ("class",), names, checkpoint.class_colors, 1, tags)
    bands = {"none": (), "top": ("probability of the class",), "all": names}[options.probabilities]
    numeric = ((PROBABILITIES, bands), (UNCERTAINTIES, UNCERTAINTY if options.uncertainty else ()))
    return (
        *(_numeric_spec(suffix, bands, options.dtype, tags) for suffix, bands in numeric if bands),
        classes,
    )


def _short_checkpoint_name(checkpoint: Path) -> str:
    """Return the name of a checkpoint and of its run; maps are passed on, so the path is left out."""
    run = checkpoint.parent.parent.name if checkpoint.parent.name == "checkpoints" else ""
    return f"{run}/checkpoints/{checkpoint.name}" if run else checkpoint.name


def _numeric_spec(suffix: str, bands: tuple[str, ...], dtype: str, tags: Mapping[str, str]) -> RasterSpec:
    """Return the spec of a raster of numbers in [0, 1]."""
    if dtype == "uint8":
        return RasterSpec(suffix, dtype, _PROBABILITY_NODATA, bands, (), (), 1 / SCALE, tags)
    # GeoTIFF stores half floats as float32 with 16 bits; GDAL has a type for them only since 3.11
    return RasterSpec(suffix, "float32", float("nan"), bands, (), (), 1, tags, dtype == "float16")


def write_part(
    store: PartStore,
    number: int,
    grid: Grid,
    specs: tuple[RasterSpec, ...],
    rows: Iterable[OutputRows],
    tally: Mapping[str, int],
) -> None:
    """Write the rasters of a part of a map; they get their names only when they are complete.

    Args:
        store: the parts of the map.
        number: index of the part.
        grid: its windows.
        specs: the rasters of the map.
        rows: all its rows, from the top down.
        tally: counts of Predictor.rows, read after the last row and stored as tags.

    Raises:
        DataError: writing fails, for instance on a full disk; or an error of the rows.
    """
    shape = (grid.area.height, grid.area.width)
    with ExitStack() as stack:
        targets = [  # they are closed and renamed in reverse order
            stack.enter_context(
                RowWriter(store.part(number, spec.suffix), (len(spec.bands), *shape), spec.dtype)
            )
            for spec in reversed(specs)
        ]
        for output in rows:
            all_valid = output.valid.all()
            for target, spec in zip(targets, reversed(specs), strict=True):
                values = {
                    CLASSES: output.classes[None],
                    PROBABILITIES: output.probabilities,
                    UNCERTAINTIES: output.uncertainty,
                }[spec.suffix]
                masked = values if all_valid else np.where(output.valid, values, spec.nodata)
                target.append(masked.astype(spec.dtype, copy=False))
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
    specs: tuple[RasterSpec, ...],
    polygon_options: PolygonOptions | None,
) -> None:
    """Join the parts to the files of a map, in the folder of its parts.

    They get fixed names there, as the name of the raster may hold characters that are special for GDAL.

    Args:
        store: the parts, all of them done.
        geometry: grid of the map.
        parts: in the order of their numbers.
        specs: the rasters of the map.
        polygon_options: options of the polygons, or None for no polygons.

    Raises:
        DataError: the files can't be written.
    """
    for spec in specs:
        parts_on_map = [(part.area, store.part(i, spec.suffix)) for i, part in enumerate(parts)]
        write_cog(_output_path(store.folder, spec.suffix), spec, geometry, parts_on_map)
    if polygon_options:
        _polygonize(store.folder, specs, polygon_options)


def publish(
    store: PartStore,
    file: Path,
    specs: tuple[RasterSpec, ...],
    polygon_options: PolygonOptions | None,
    record: Mapping[str, Any],
) -> None:
    """Move the files of a map to the output folder, the class raster last, and remove its parts.

    Args:
        store: the parts, with all files of the map.
        file: path of the class raster; the other files are moved beside it.
        specs: the rasters of the map.
        polygon_options: options of the polygons, or None for no polygons.
        record: numbers of the map that are kept until the command ends.

    Raises:
        DataError: the files can't be moved.
    """
    stem = file.name.removesuffix(CLASSES)
    try:
        store.write_record(record, _output_path(store.folder, CLASSES))
        for path in _output_files(store.folder, specs, polygon_options is not None):
            path.replace(file.with_name(f"{stem}_{path.name}"))
    except OSError as error:
        raise write_error(file, error) from error
    store.clear()


def stale_outputs(
    file: Path, specs: tuple[RasterSpec, ...], polygon_options: PolygonOptions | None
) -> list[Path]:
    """Return the files beside a new class raster that belong to an earlier map of the same raster.

    Args:
        file: the class raster.
        specs: the rasters of the new map.
        polygon_options: options of the polygons, or None if the new map has none.
    """
    new = {spec.suffix for spec in specs} | ({POLYGONS} if polygon_options else set())
    stem = file.name.removesuffix(CLASSES)
    companions = (file.with_name(f"{stem}{suffix}") for suffix in COMPANION_SUFFIXES if suffix not in new)
    return [path for path in companions if path.exists()]


def _polygonize(folder: Path, specs: tuple[RasterSpec, ...], polygon_options: PolygonOptions) -> None:
    """Polygonize the assembled class raster."""
    *numeric, classes = specs
    probabilities = next((spec for spec in numeric if spec.suffix == PROBABILITIES), None)
    confidence = (
        ConfidenceRaster(_output_path(folder, PROBABILITIES), probabilities.scale) if probabilities else None
    )
    file, raster = _output_path(folder, POLYGONS), _output_path(folder, CLASSES)
    write_polygons(file, raster, classes.nodata, classes.classes, classes.colors, confidence, polygon_options)


def _output_files(folder: Path, specs: tuple[RasterSpec, ...], has_polygons: bool) -> Iterator[Path]:
    if has_polygons:
        yield _output_path(folder, POLYGONS)
    for spec in specs:
        raster = _output_path(folder, spec.suffix)
        yield qml_path(raster)
        if spec.classes:
            yield pam_path(raster)
        yield raster


def _output_path(folder: Path, suffix: str) -> Path:
    """Return the path of an assembled file before publication adds the name of the map."""
    return folder / suffix.removeprefix("_")
