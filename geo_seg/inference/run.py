"""Maps of rasters: from the configuration of inference to finished GeoTIFFs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from geo_seg.areas import row_areas
from geo_seg.errors import DataError
from geo_seg.inference.choices import Chooser, parts_of
from geo_seg.inference.deciding import Shown
from geo_seg.inference.estimate import estimate
from geo_seg.inference.inputs import CLASSES, find_rasters, open_raster
from geo_seg.inference.journal import Choices, Journal, identify, stamps
from geo_seg.inference.maps import finish, layers, left_over, write_part
from geo_seg.inference.members import Ensemble, gather
from geo_seg.inference.polygons import Outlining
from geo_seg.inference.predict import Predictor, Settings, choose_device
from geo_seg.inference.reading import Source
from geo_seg.inference.scoring import Reference, Scoring
from geo_seg.inference.summary import Mapped, Summary
from geo_seg.inference_config import InferenceConfig
from geo_seg.mosaic import count_classes
from geo_seg.report.tables import score_table
from geo_seg.terminal import shows_bars
from geo_seg.tiling import Grid
from geo_seg.writing import Geometry, prepare_folder

_SHAPING = (  # options that the bytes of a map depend on
    "window",
    "margin",
    "overlap",
    "blend",
    "batch_size",
    "max_memory",
    "precision",
    "compile",
    "probabilities",
    "uncertainty",
    "probability_type",
    "tta",
    "weights",
    "temperature",
    "threshold",
)


def run(config: InferenceConfig) -> list[Mapped]:
    """Maps every raster of the input; one that fails doesn't stop the others.

    Args:
        config: what to do, checked.

    Returns:
        The maps that were made, in order; those that were skipped are not in it.

    Raises:
        ConfigError: the configuration doesn't fit the model or the machine.
        CheckpointError: there is no model in the checkpoint.
        DataError: there is nothing to map, nothing can be written, or a raster failed.
    """
    errors = Console(stderr=True, highlight=False)
    output = Path(config.output)
    rasters = find_rasters(config.input, output)
    ensemble = gather(config)
    scoring = None if config.labels is None else Scoring(config.labels, rasters, ensemble.first)
    mapper = _Mapper(config, ensemble, scoring)
    if not config.dry_run:
        prepare_folder(output)
    summary = Summary(output, ensemble.first.class_names)
    made, failed = [], 0
    for name, path in rasters.items():
        try:
            mapped = mapper.map(name, path)
        except DataError as error:
            if len(rasters) == 1:
                raise
            failed += 1
            summary.fail(path, str(error))
            errors.print(f"error: {error}", markup=False, soft_wrap=True)
        else:
            if mapped is None:
                summary.keep(name)
            else:
                summary.add(name, mapped)
                made.append(mapped)
    if not config.dry_run:
        summary.conclude(Console(highlight=False))
    if scoring is not None:
        mapper.conclude(scoring)
    if failed:
        raise DataError(f"{failed} of {len(rasters)} rasters were not mapped, for the reasons above")
    return made


class _Mapper:
    """What all rasters of a run share."""

    def __init__(self, config: InferenceConfig, ensemble: Ensemble, scoring: Scoring | None) -> None:
        self._config = config
        self._scoring = scoring
        self._ensemble = ensemble
        self._checkpoint = ensemble.first
        self._console = Console(highlight=False)
        self._shown = Shown(config.probabilities, config.uncertainty, config.probability_type)
        self._layers = layers(self._checkpoint, self._shown)
        self._predictor = Predictor(ensemble, choose_device(config.accelerator), config.compile, config.tta)
        self._chooser = Chooser(config, self._predictor, ensemble.window, self._say)
        self._outlining = Outlining(config.min_area, config.simplify) if config.polygons else None

    def map(self, name: str, path: str) -> Mapped | None:
        """Maps one raster; None if its map is there and exists=skip, or in a dry run."""
        file = Path(self._config.output) / f"{name}{CLASSES}"
        if file.exists() and self._config.exists != "overwrite":
            if self._config.exists == "error":
                raise DataError(f"{file}: exists already; choose exists=overwrite or exists=skip")
            self._say(f"{file}: is there already, skipped")
            return None
        begin = time.monotonic()
        info, bands = open_raster(path, self._checkpoint)
        source = Source(info, bands, self._checkpoint.nodata, self._checkpoint.zero_is_nodata)
        geometry = Geometry.of(info.path)
        reference = self._scoring.open(name, info) if self._scoring else None
        for note in self._notes(info.dtype, geometry):
            self._say(f"note: {path}: {note}")
        if self._scoring:
            for note in reference.notes if reference else ("there are no labels for this raster",):
                self._say(f"note: {reference.path if reference else path}: {note}")
        if self._config.dry_run:
            chosen = self._chooser.choose(source)
            self._say(estimate(self._predictor, self._chooser, source, chosen, self._layers))
            return None
        journal = Journal(file, tuple(layer.suffix for layer in self._layers))
        chosen, identity = self._plan(journal, source)
        parts = parts_of(source, chosen)
        ground = row_areas(geometry)
        counts, areas, confusion = self._make(journal, source, chosen, parts, ground, reference)
        if stamps(info) != identity["files"]:
            journal.discard()
            raise DataError(f"{path}: was changed while it was mapped; start again when it is complete")
        made = (*((reference.layer,) if reference else ()), *self._layers)
        finish(journal, file, geometry, parts, made, self._outlining)
        for old in left_over(file, made, self._outlining):
            self._say(f"note: {old}: is of an earlier map; this run was asked for none")
        mapped = Mapped(file, path, counts, areas, info.width * info.height, time.monotonic() - begin)
        self._say(self._summary(mapped))
        if self._scoring and confusion is not None:
            self._console.print(score_table(self._scoring.add(name, confusion), name))
        return mapped

    def conclude(self, scoring: Scoring) -> None:
        """Writes the scores of all maps, and shows them where there are several."""
        if scoring.total is not None:
            scoring.write(Path(self._config.output))
            if scoring.maps > 1:
                self._console.print(score_table(scoring.total, f"all {scoring.maps} maps"))

    def _plan(self, journal: Journal, source: Source) -> tuple[Choices, dict[str, Any]]:
        """Goes on with what is there if it is of the same map, otherwise starts anew."""
        options = {key: getattr(self._config, key) for key in _SHAPING}
        options["device"] = self._predictor.device.type
        identity = identify(self._ensemble, source.info, options)
        chosen, differing = journal.resume(identity)
        if chosen is None:
            if differing:
                self._say(f"note: {journal.folder}: an unfinished map of another {differing}; starts anew")
            chosen = self._chooser.choose(source)
            journal.begin(identity, chosen)
        return chosen, identity

    def _make(
        self,
        journal: Journal,
        source: Source,
        chosen: Choices,
        parts: tuple[Grid, ...],
        ground: NDArray[np.float64] | None,
        reference: Reference | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64] | None, NDArray[np.int64] | None]:
        """Makes the parts that are not there; counts the classes of all, and compares them with labels."""
        classes = self._predictor.task.num_classes
        counts: NDArray[np.int64] = np.zeros(classes, np.int64)
        areas: NDArray[np.float64] | None = None if ground is None else np.zeros(classes)
        settings = Settings(chosen.precision, chosen.batch_size, self._shown)
        confusion: Any = None
        ready = 0
        with self._progress(source.info.path, sum(map(len, parts))) as advance:
            try:
                for number, part in enumerate(parts):
                    if journal.done(number):
                        advance(len(part))
                    else:
                        rows = self._predictor.strips(source, part, settings, advance)
                        write_part(journal, number, part, self._layers, rows)
                    rows_area = None if ground is None else ground[part.area.row :][: part.area.height]
                    pixels, square = count_classes(journal.part(number, CLASSES), classes, rows_area)
                    counts += pixels
                    areas = None if areas is None else areas + square
                    if reference:
                        found = reference.compare(journal, number, part)
                        confusion = found if confusion is None else confusion + found
                    ready += 1
            except DataError as error:
                if not ready:
                    journal.discard()
                    raise
                raise DataError(
                    f"{error}; {ready} of {len(parts)} parts are done, the same command goes on after them"
                ) from error
        return counts, areas, confusion

    def _notes(self, dtype: str, geometry: Geometry) -> Iterator[str]:
        if dtype != self._checkpoint.dtype:
            yield (
                f"holds {dtype}, the model learnt from {self._checkpoint.dtype}; the map is only right if "
                "the values mean the same"
            )
        if geometry.ignored:
            yield f"its {geometry.ignored} are not carried over to the map"

    @contextmanager
    def _progress(self, path: str, total: int) -> Iterator[Callable[[int], object]]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        shown = shows_bars(self._console)
        with Progress(*columns, console=self._console, transient=True, disable=not shown) as progress:
            task = progress.add_task(Path(path).name, total=total)
            yield lambda windows: progress.advance(task, windows)

    def _summary(self, mapped: Mapped) -> str:
        total = int(mapped.counts.sum())
        counts = zip(self._checkpoint.class_names, mapped.counts.tolist(), strict=True)
        shares = [f"{name} {count / total:.1%}" for name, count in counts if count]
        parts = [", ".join(shares) or "no valid pixel"]
        if total < mapped.pixels:
            parts.append(f"{1 - total / mapped.pixels:.1%} of the raster is nodata")
        millions = mapped.pixels / 1e6
        speed = f"{millions:.2f} Mpx in {mapped.seconds:.1f} s"
        return f"{mapped.file}: {speed}; {'; '.join(parts)}"

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
