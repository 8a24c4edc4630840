"""One raster from its header to a finished map: planned, made in parts by whoever, and put together."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from geo_seg.config.inference import InferenceConfig
from geo_seg.data.scenes.scene import mark_of
from geo_seg.errors import DataError
from geo_seg.inference.assemble import (
    assemble,
    input_oddities,
    publish,
    raster_specs,
    stale_outputs,
    write_part,
)
from geo_seg.inference.dry_run import PlannedMap, print_forecast
from geo_seg.inference.finished_maps import EarlierMap, FinishedMap
from geo_seg.inference.inputs import CLASSES, open_raster
from geo_seg.inference.part_store import PartStore, file_stamps
from geo_seg.inference.reference_labels import LabelComparison, RasterReference
from geo_seg.inference.suitability import Suitability
from geo_seg.inference.summary import MapRecord
from geo_seg.prediction.decode import OutputOptions
from geo_seg.prediction.device import choose_device
from geo_seg.prediction.ensemble import Ensemble
from geo_seg.prediction.measure import Notify
from geo_seg.prediction.planner import MapPlan, Planner, split_into_parts
from geo_seg.prediction.predictor import PredictOptions, Predictor, Tally
from geo_seg.prediction.resample import scale_for
from geo_seg.prediction.window_reader import RasterInput
from geo_seg.raster.cog import RasterSpec, class_histogram
from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.pixel_areas import pixel_areas
from geo_seg.runtime.memory import tune_malloc
from geo_seg.tiling import Grid
from geo_seg.vectorize.geopackage import PolygonOptions


@dataclass(frozen=True)
class MapJob:
    """All that it takes to make any part of a map; it may go to another process.

    Attributes:
        name: of the map.
        path: of the raster, as it was given.
        file: the class raster, some time.
        source: the raster.
        chosen: for it.
        identity: what the map is made of.
        parts: each can be made alone.
        shown: what is written beside the classes.
        layers: the rasters of the map.
        reference: what it is compared with, or None.
        asked: what else the files of the map depend on: polygons, labels.
        warning: why the map is not to be trusted, or "".
    """

    name: str
    path: str
    file: Path
    source: RasterInput
    chosen: MapPlan
    identity: dict[str, Any]
    parts: tuple[Grid, ...]
    shown: OutputOptions
    layers: tuple[RasterSpec, ...]
    reference: RasterReference | None
    asked: dict[str, Any]
    warning: str

    @property
    def journal(self) -> PartStore:
        """Where the parts are."""
        return PartStore(self.file, tuple(layer.suffix for layer in self.layers))


def predict_part(predictor: Predictor, job: MapJob, number: int, advance: Callable[[int], object]) -> None:
    """Makes a part of a map, unless it is there already.

    Args:
        predictor: the models.
        job: the map.
        number: of the part.
        advance: told the number of windows that are done.

    Raises:
        DataError: the raster can't be read, or the part not be written.
    """
    part, chosen = job.parts[number], job.chosen
    if job.journal.done(number):
        advance(len(part))
        return
    settings = PredictOptions(chosen.precision, chosen.batch_size, job.shown)
    tally = Tally()
    strips = predictor.predict_rows(job.source, part, settings, advance, tally)
    write_part(job.journal, number, part, job.layers, strips, tally)


def build_predictor(config: InferenceConfig, ensemble: Ensemble) -> Predictor:
    """The models of a process, on its device; on a CPU without a limit of memory, freed memory is kept.

    Raises:
        ConfigError: the device isn't there, or can't run them.
    """
    device = choose_device(config.accelerator)
    if config.max_memory is None and device.type == "cpu":
        tune_malloc()
    return Predictor(ensemble, device, config.compile, config.tta, config.backend)


class Mapper:
    """What all rasters of a run share.

    Args:
        config: what to do.
        ensemble: the models.
        scoring: labels to compare with, or None.
        say: prints what the user should know.
        sharers: processes on this machine that share its memory.
    """

    def __init__(
        self,
        config: InferenceConfig,
        ensemble: Ensemble,
        scoring: LabelComparison | None,
        say: Notify,
        sharers: int = 1,
    ) -> None:
        self._config = config
        self._scoring = scoring
        self._ensemble = ensemble
        self._checkpoint = ensemble.first
        self._say = say
        self._shown = OutputOptions(config.probabilities, config.uncertainty, config.probability_type)
        self._layers = raster_specs(ensemble.checkpoints, self._shown)
        self.predictor = build_predictor(config, ensemble)
        self._chooser = Planner(config, self.predictor, ensemble.window, say, sharers)
        self._suitability = Suitability(ensemble.first)
        self._outlining = PolygonOptions(config.min_area, config.simplify) if config.polygons else None
        suffixes = tuple(layer.suffix for layer in self._layers)
        self._earlier = EarlierMap(config, ensemble, suffixes, self.predictor.device.type)
        self._planned: list[PlannedMap] = []
        self._started = time.monotonic()
        self._begun: dict[str, float] = {}  # by the names of the maps, on the same clock

    def begin(self, name: str, path: str) -> MapJob | FinishedMap | None:
        """Plans a map.

        Returns:
            What to do; or the map, where this command has made it before it was stopped; or None in a dry
            run, and for a map that is there with exists=skip.

        Raises:
            ConfigError: options don't fit the raster or the memory.
            DataError: the raster or its labels can't be read or don't fit, or the map exists already.
        """
        self._begun[name] = time.monotonic()
        file = self._file(name)
        if file.exists() and self._config.exists == "skip":
            self._say(f"{file}: is there already, skipped")
            return self._earlier.of_any(file, path, self._asked(name))
        info, bands, notes = open_raster(path, self._checkpoint)
        scale = scale_for(info, self._config.resolution)
        source = RasterInput(info, bands, self._checkpoint.nodata, self._checkpoint.zero_is_nodata, scale)
        if not self._config.dry_run:
            earlier = self._earlier.of_same(file, path, self._asked(name), info)
            if earlier is not None:
                self._say(f"{file}: is there already, made by this command before it was stopped")
                return earlier
        if file.exists() and self._config.exists == "error":
            raise DataError(f"{file}: exists already; choose exists=overwrite or exists=skip")
        for note in (*notes, *self._suitability.notes(info, bands)):
            self._say(f"note: {path}: {note}")
        warning = self._suitability.warning(source)
        if warning:
            self._say(f"WARNING: {path}: {warning}")
        reference = self._reference(name, path, source)
        if self._config.dry_run:
            self._planned.append(PlannedMap.of(source, self._chooser))
            return None
        chosen, identity = self._plan(file, source)
        made = self._shown, self._layers, reference, self._asked(name), warning
        return MapJob(name, path, file, source, chosen, identity, split_into_parts(source, chosen), *made)

    def finish(self, job: MapJob) -> FinishedMap:
        """Puts the parts of a map together, and compares them with labels; any process may do it.

        Raises:
            DataError: the map can't be written, or the raster was changed in the meantime.
        """
        info, journal = job.source.info, job.journal
        if file_stamps(info) != job.identity["files"]:
            journal.discard()
            raise DataError(f"{info.path}: was changed while it was mapped; start again when it is complete")
        counts, areas = self._count(job)
        for note in input_oddities(journal, len(job.parts)):
            self._say(f"note: {job.path}: {note}")
        made, confusion = job.layers, None
        if job.reference:
            compared = [job.reference.compare(journal, i, part) for i, part in enumerate(job.parts)]
            made, confusion = (job.reference.layer, *made), np.sum(compared, axis=0)
        assemble(journal, GeoBox.from_raster(info.path), job.parts, made, self._outlining)
        # a rank that hasn't planned the map counts from its own start: no clock but its own can be trusted
        seconds = time.monotonic() - self._begun.get(job.name, self._started)
        pixels = info.width * info.height
        found = FinishedMap(
            MapRecord(job.file, job.path, counts, areas, pixels, seconds, job.warning), confusion
        )
        publish(journal, job.file, made, self._outlining, {**found.as_plain(), "asked": job.asked})
        for old in stale_outputs(job.file, made, self._outlining):
            self._say(f"note: {old}: is of an earlier map; this run was asked for none")
        return found

    def forecast(self, console: Console) -> None:
        """Show what the maps that were planned in a dry run would take.

        Raises:
            DataError: a raster can't be read.
        """
        made = self._layers, self._outlining
        print_forecast(self._planned, self.predictor, self._chooser, *made, console)

    def forget(self, names: Iterable[str]) -> None:
        """Forget what was kept of finished maps, as the command that made them ends."""
        for name in () if self._config.dry_run else names:
            self._earlier.forget(self._file(name))

    def as_failure(self, job: MapJob, error: DataError) -> DataError:
        """The error of a map that can't be finished; its parts stay, if there are any."""
        ready = sum(job.journal.done(number) for number in range(len(job.parts)))
        if not ready:
            job.journal.discard()
            return error
        return DataError(
            f"{error}; {ready} of {len(job.parts)} parts are done, the same command goes on after them"
        )

    def _count(self, job: MapJob) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        """Pixels of each class; and their square metres, or None without a CRS."""
        classes, ground = (
            self.predictor.task.num_classes,
            pixel_areas(GeoBox.from_raster(job.source.info.path)),
        )
        counts: NDArray[np.int64] = np.zeros(classes, np.int64)
        areas: NDArray[np.float64] | None = None if ground is None else np.zeros(classes)
        for number, part in enumerate(job.parts):
            own = None if ground is None else ground.within(part.area)
            pixels, square = class_histogram(job.journal.part(number, CLASSES), classes, own)
            counts += pixels
            areas = None if areas is None else areas + square
        return counts, areas

    def _plan(self, file: Path, source: RasterInput) -> tuple[MapPlan, dict[str, Any]]:
        """Goes on with what is there if it is of the same map, otherwise starts anew."""
        journal, identity = self._earlier.journal(file), self._earlier.identity(source.info)
        chosen, differing = journal.resume(identity)
        if chosen is None:
            if differing and journal.found() is None:
                self._say(f"note: {journal.folder}: an unfinished map of another {differing}; starts anew")
            chosen = self._chooser.plan(source)
            journal.begin(identity, chosen)
        elif ready := sum(journal.done(number) for number in range(len(split_into_parts(source, chosen)))):
            total = len(split_into_parts(source, chosen))
            self._say(f"{file}: goes on; {ready} of {total} parts are there already")
        return chosen, identity

    def _asked(self, name: str) -> dict[str, Any]:
        """What the files of a map depend on beside its parts."""
        return {
            "polygons": None if self._outlining is None else asdict(self._outlining),
            "labels": None if self._scoring is None else self._scoring.stamp(name),
        }

    def _file(self, name: str) -> Path:
        return Path(self._config.output) / f"{name}{CLASSES}"

    def _reference(self, name: str, path: str, source: RasterInput) -> RasterReference | None:
        if self._scoring is None:
            return None
        found = self._scoring.open(name, source.info)
        for note in found.notes if found else ("there are no labels for this raster",):
            self._say(f"note: {found.path if found else path}: {note}")
        mark = mark_of(source.info, path)
        if found and any(mark in checkpoint.metadata.trained_on for checkpoint in self._ensemble.checkpoints):
            self._say(
                f"note: {path}: is a scene that the model was trained on, or lies exactly where one does; "
                "its scores tell nothing of other places"
            )
        return found
