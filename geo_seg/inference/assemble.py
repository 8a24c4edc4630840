"""The rasters of a map: classes with colours and names, and probabilities beside them."""

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
"""Tags of every raster of a map."""

_CHECKPOINT = "GEO_SEG_CHECKPOINT"  # tag
_NO_PROBABILITY = 255
_COUNTED = ("strays", "undecided")  # pixels of a part that are nodata, and why; in the tags of its classes


def class_dtype(num_classes: int) -> tuple[int, str]:
    """The nodata value of a class raster and its type: the narrowest with a value that no class has."""
    return (255, "uint8") if num_classes <= 255 else (65535, "uint16")


def raster_specs(checkpoints: Sequence[Checkpoint], shown: OutputOptions) -> tuple[RasterSpec, ...]:
    """The rasters of a map; the classes come last, and vouch for the others when they are there.

    Args:
        checkpoints: of the models; the first one's colours are those of the classes.
        shown: what is written beside the classes.
    """
    checkpoint = checkpoints[0]
    # no date: whoever makes a map again, on other processes or after a crash, gets the same bytes
    tags = {**SOFTWARE, _CHECKPOINT: ", ".join(_short(each.path) for each in checkpoints)}
    names = checkpoint.class_names
    nodata, dtype = class_dtype(len(names))
    classes = RasterSpec(CLASSES, dtype, nodata, ("class",), names, checkpoint.class_colors, 1, tags)
    bands = {"none": (), "top": ("probability of the class",), "all": names}[shown.probabilities]
    numbers = ((PROBABILITIES, bands), (UNCERTAINTIES, UNCERTAINTY if shown.uncertainty else ()))
    return (*(_numbers(suffix, bands, shown.dtype, tags) for suffix, bands in numbers if bands), classes)


def _short(checkpoint: Path) -> str:
    """The name of a checkpoint and of its run; maps are handed on, so it is no path of a machine."""
    run = checkpoint.parent.parent.name if checkpoint.parent.name == "checkpoints" else ""
    return f"{run}/checkpoints/{checkpoint.name}" if run else checkpoint.name


def _numbers(suffix: str, bands: tuple[str, ...], kind: str, tags: Mapping[str, str]) -> RasterSpec:
    """A raster of numbers from 0 to 1."""
    if kind == "uint8":
        return RasterSpec(suffix, kind, _NO_PROBABILITY, bands, (), (), 1 / SCALE, tags)
    # GeoTIFF has half floats as float32 of 16 bits; as a type of their own only since GDAL 3.11
    return RasterSpec(suffix, "float32", float("nan"), bands, (), (), 1, tags, kind == "float16")


def write_part(
    journal: PartStore,
    number: int,
    grid: Grid,
    made: tuple[RasterSpec, ...],
    rows: Iterable[OutputRows],
    tally: Mapping[str, int],
) -> None:
    """Writes a part of a map; it is done when this returns, and not begun otherwise.

    Args:
        journal: where it belongs.
        number: of the part.
        grid: its windows.
        made: the rasters of the map.
        rows: all its rows, from the top down.
        tally: what Predictor.rows counts meanwhile; goes into the tags of the part.

    Raises:
        DataError: the disk is full, or doesn't take them otherwise; or what the rows raise.
    """
    shape = (grid.area.height, grid.area.width)
    with ExitStack() as stack:
        targets = [  # they are closed, and get their names, in reverse
            stack.enter_context(
                RowWriter(journal.part(number, layer.suffix), (len(layer.bands), *shape), layer.dtype)
            )
            for layer in reversed(made)
        ]
        for strip in rows:
            whole = strip.valid.all()
            for target, layer in zip(targets, reversed(made), strict=True):
                values = {
                    CLASSES: strip.classes[None],
                    PROBABILITIES: strip.probabilities,
                    UNCERTAINTIES: strip.uncertainty,
                }[layer.suffix]
                shown = values if whole else np.where(strip.valid, values, layer.nodata)
                target.append(shown.astype(layer.dtype, copy=False))
        targets[0].tag({key: str(tally.get(key, 0)) for key in _COUNTED})


def input_oddities(journal: PartStore, parts: int) -> Iterator[str]:
    """What the user should know of the pixels of a map that have no class, out of all its parts.

    Raises:
        DataError: a part can't be read.
    """
    total = dict.fromkeys(_COUNTED, 0)
    for number in range(parts):
        with RasterReader(journal.part(number, CLASSES)) as reader:
            for key in _COUNTED:
                total[key] += int(reader.tags[key])
    if total["strays"]:
        yield f"{total['strays']} px {IMPLAUSIBLE}"
    if total["undecided"]:
        yield (
            f"{total['undecided']} px are nodata since the model says NaN there: its weights, or what it "
            "computes in the chosen precision, are no numbers (precision=fp32 has the largest range)"
        )


def assemble(
    journal: PartStore,
    geometry: GeoBox,
    parts: tuple[Grid, ...],
    made: tuple[RasterSpec, ...],
    outlining: PolygonOptions | None,
) -> None:
    """Joins the parts to the files of a map, in the folder of its journal.

    There they have names of ours: that of the raster may hold what GDAL takes for more than a name.

    Args:
        journal: with all parts done.
        geometry: grid of the map.
        parts: in the order of their numbers.
        made: the rasters of the map.
        outlining: how to make polygons of it, or None.

    Raises:
        DataError: they can't be written.
    """
    for layer in made:
        places = [(part.area, journal.part(i, layer.suffix)) for i, part in enumerate(parts)]
        write_cog(_within(journal.folder, layer.suffix), layer, geometry, places)
    if outlining:
        _outline(journal.folder, made, outlining)


def publish(
    journal: PartStore,
    file: Path,
    made: tuple[RasterSpec, ...],
    outlining: PolygonOptions | None,
    found: Mapping[str, Any],
) -> None:
    """Moves a map to its place, the class raster last, and removes its parts.

    Args:
        journal: with all files of the map.
        file: the class raster; the others go beside it.
        made: the rasters of the map.
        outlining: whether polygons are made of it.
        found: what is kept in the journal until the command ends.

    Raises:
        DataError: they can't be written.
    """
    stem = file.name.removesuffix(CLASSES)
    try:
        journal.note(found, _within(journal.folder, CLASSES))
        for path in _files(journal.folder, made, outlining is not None):
            path.replace(file.with_name(f"{stem}_{path.name}"))
    except OSError as error:
        raise write_error(file, error) from error
    journal.clear()


def stale_outputs(file: Path, made: tuple[RasterSpec, ...], outlining: PolygonOptions | None) -> list[Path]:
    """Files beside a class raster that say what an earlier map of the same raster said.

    Args:
        file: the class raster, new.
        made: the rasters that were made with it.
        outlining: whether polygons were, too.
    """
    new = {layer.suffix for layer in made} | ({POLYGONS} if outlining else set())
    stem = file.name.removesuffix(CLASSES)
    beside = (file.with_name(f"{stem}{suffix}") for suffix in COMPANION_SUFFIXES if suffix not in new)
    return [path for path in beside if path.exists()]


def _outline(folder: Path, made: tuple[RasterSpec, ...], outlining: PolygonOptions) -> None:
    """Makes polygons of the joined rasters."""
    *others, classes = made
    probable = next((layer for layer in others if layer.suffix == PROBABILITIES), None)
    certainty = ConfidenceRaster(_within(folder, PROBABILITIES), probable.scale) if probable else None
    file, raster = _within(folder, POLYGONS), _within(folder, CLASSES)
    write_polygons(file, raster, classes.nodata, classes.classes, classes.colors, certainty, outlining)


def _files(folder: Path, made: tuple[RasterSpec, ...], outlined: bool) -> Iterator[Path]:
    if outlined:
        yield _within(folder, POLYGONS)
    for layer in made:
        raster = _within(folder, layer.suffix)
        yield qml_path(raster)
        if layer.classes:
            yield pam_path(raster)
        yield raster


def _within(folder: Path, suffix: str) -> Path:
    """Where a file lies before it gets the name of its map, which goes before an underscore."""
    return folder / suffix.removeprefix("_")
