"""Planning, prediction by part (by any engine) and assembly of maps."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from geo_seg.config.inference import InferenceConfig
from geo_seg.data.scenes.scene import mark_of
from geo_seg.errors import DataError
from geo_seg.inference.assemble import assemble, input_oddities, publish, stale_outputs, write_part
from geo_seg.inference.dry_run import PlannedMap, print_forecast
from geo_seg.inference.finished_maps import EarlierMaps, FinishedMap
from geo_seg.inference.inputs import open_raster
from geo_seg.inference.part_store import PartStore, file_stamps
from geo_seg.inference.products.difference import Difference
from geo_seg.inference.products.product import CLASSES, Product, predicted_rasters, requested_products
from geo_seg.inference.reference_labels import LabelComparison
from geo_seg.inference.suitability import Suitability
from geo_seg.inference.summary import MapRecord
from geo_seg.prediction.device import choose_device
from geo_seg.prediction.ensemble import Ensemble
from geo_seg.prediction.measure import Notify
from geo_seg.prediction.planner import MapPlan, Planner, split_into_parts
from geo_seg.prediction.predictor import PredictOptions, Predictor, Tally
from geo_seg.prediction.resample import scale_for
from geo_seg.prediction.window_reader import RasterInput
from geo_seg.raster.cog import class_histogram
from geo_seg.raster.geobox import GeoBox
from geo_seg.raster.pixel_areas import pixel_areas
from geo_seg.runtime.memory import tune_malloc
from geo_seg.tiling import Grid


@dataclass(frozen=True)
class MapJob:
    """Picklable description of a map, from which any process can predict any part.

    Attributes:
        name: name of the map.
        path: path of the raster as given.
        file: path of the class raster when finished.
        source: the raster.
        plan: window, margin, precision and division into parts.
        fingerprint: all that the bytes of the parts depend on.
        parts: grids of the parts.
        products: the products of the map.
        reference: labels to compare with, or None.
        companions: fingerprint of the companion files: polygons, comparison with labels.
        warning: why the map may be wrong, or "".
    """

    name: str
    path: str
    file: Path
    source: RasterInput
    plan: MapPlan
    fingerprint: dict[str, Any]
    parts: tuple[Grid, ...]
    products: tuple[Product, ...]
    reference: Difference | None
    companions: dict[str, Any]
    warning: str

    @property
    def store(self) -> PartStore:
        """Part store of the map."""
        return PartStore(self.file, tuple(each.suffix for each in predicted_rasters(self.products)))


def predict_part(predictor: Predictor, job: MapJob, number: int, advance: Callable[[int], object]) -> None:
    """Predict a part of a map and write it, unless it is done already.

    Args:
        predictor: the models.
        job: the map.
        number: index of the part.
        advance: called with the number of windows that have been predicted.

    Raises:
        DataError: the raster can't be read, or the part can't be written.
    """
    part, plan = job.parts[number], job.plan
    if job.store.is_done(number):
        advance(len(part))
        return
    options = PredictOptions(plan.precision, plan.batch_size)
    tally = Tally()
    rows = predictor.predict_rows(job.source, part, options, advance, tally)
    write_part(job.store, number, part, job.products, rows, tally)


def build_predictor(config: InferenceConfig, ensemble: Ensemble) -> Predictor:
    """Return the predictor of a process; on a CPU without max_memory, malloc keeps freed memory.

    Raises:
        ConfigError: the device is not available, or can't run the models.
    """
    device = choose_device(config.accelerator)
    if config.max_memory is None and device.type == "cpu":
        tune_malloc()
    return Predictor(ensemble, device, config.compile, config.tta, config.backend)


class Mapper:
    """Planner and finisher of the maps of a run, with the models of this process.

    Args:
        config: configuration of inference.
        ensemble: the models.
        comparison: labels to compare with, or None.
        notify: prints a line for the user.
        processes: number of processes that share the memory of this machine.
    """

    def __init__(
        self,
        config: InferenceConfig,
        ensemble: Ensemble,
        comparison: LabelComparison | None,
        notify: Notify,
        processes: int = 1,
    ) -> None:
        self._config = config
        self._comparison = comparison
        self._ensemble = ensemble
        self._checkpoint = ensemble.first
        self._notify = notify
        self.products = requested_products(config, ensemble.checkpoints)
        rasters = predicted_rasters(self.products)
        buffered = sum(each.bytes_per_pixel for each in rasters)
        self.predictor = build_predictor(config, ensemble)
        self._planner = Planner(config, self.predictor, ensemble.window, notify, processes, buffered)
        self._suitability = Suitability(ensemble.first)
        self._earlier = EarlierMaps(config, ensemble, rasters, self.predictor.device.type)
        self._planned_maps: list[PlannedMap] = []
        self._start_time = time.monotonic()
        self._start_times: dict[str, float] = {}  # by name of the map, on the same clock

    def plan(self, name: str, path: str) -> MapJob | FinishedMap | None:
        """Plan a map.

        Returns:
            The job; or the finished map if this command made it before it was interrupted; or None in a dry
            run and for maps skipped by exists=skip.

        Raises:
            ConfigError: the options don't fit the raster or the memory.
            DataError: the raster or its labels are unreadable or don't fit, or the map exists already.
        """
        self._start_times[name] = time.monotonic()
        file = self._file(name)
        if file.exists() and self._config.exists == "skip":
            self._notify(f"{file}: exists already, skipped")
            return self._earlier.find_any(file, path, self._companions(name))
        info, bands, notes = open_raster(path, self._checkpoint)
        scale = scale_for(info, self._config.resolution)
        source = RasterInput(info, bands, self._checkpoint.nodata, self._checkpoint.zero_is_nodata, scale)
        if not self._config.dry_run:
            earlier = self._earlier.find_same(file, path, self._companions(name), info)
            if earlier is not None:
                self._notify(f"{file}: exists already, made by this command before it was interrupted")
                return earlier
        if file.exists() and self._config.exists == "error":
            raise DataError(f"{file}: exists already; choose exists=overwrite or exists=skip")
        for note in (*notes, *self._suitability.notes(info, bands)):
            self._notify(f"note: {path}: {note}")
        warning = self._suitability.warning(source)
        if warning:
            self._notify(f"WARNING: {path}: {warning}")
        reference = self._reference(name, path, source)
        if self._config.dry_run:
            self._planned_maps.append(PlannedMap.of(source, self._planner))
            return None
        plan, fingerprint = self._resume_or_plan(file, source)
        details = self.products, reference, self._companions(name), warning
        return MapJob(name, path, file, source, plan, fingerprint, split_into_parts(source, plan), *details)

    def finish(self, job: MapJob) -> FinishedMap:
        """Compare the parts of a map with labels and assemble them; any process may call it.

        Raises:
            DataError: the map can't be written, or the raster has changed since it was planned.
        """
        info, store = job.source.info, job.store
        if file_stamps(info) != job.fingerprint["files"]:
            store.discard()
            raise DataError(f"{info.path}: has changed while it was mapped; run again when it is complete")
        counts, areas = self._count_classes(job)
        for note in input_oddities(store, len(job.parts)):
            self._notify(f"note: {job.path}: {note}")
        products, confusion = job.products, None
        if job.reference:
            confusions = [job.reference.compare(store, i, part) for i, part in enumerate(job.parts)]
            *others, classes = products
            products, confusion = (*others, job.reference, classes), np.sum(confusions, axis=0)
        assemble(store, GeoBox.from_raster(info.path), job.parts, products)
        # a rank that hasn't planned the map counts from its own start: clocks of processes differ
        seconds = time.monotonic() - self._start_times.get(job.name, self._start_time)
        pixels = info.width * info.height
        record = MapRecord(job.file, job.path, counts, areas, pixels, seconds, job.warning)
        finished = FinishedMap(record, confusion)
        content = {**finished.to_dict(), "asked": job.companions}
        publish(store, job.file, products, content)
        for stale in stale_outputs(job.file, products):
            self._notify(f"note: {stale}: belongs to an earlier map; this run makes no such file")
        return finished

    def forecast(self, console: Console) -> None:
        """Print the estimates of a dry run.

        Raises:
            DataError: a raster can't be read.
        """
        print_forecast(self._planned_maps, self.predictor, self._planner, self.products, console)

    def discard_records(self, names: Iterable[str]) -> None:
        """Delete the records of finished maps, at the end of the command that made them."""
        for name in () if self._config.dry_run else names:
            self._earlier.discard_record(self._file(name))

    def as_failure(self, job: MapJob, error: DataError) -> DataError:
        """Return the error of a map that can't be finished; an empty folder of parts is removed."""
        n_done = sum(job.store.is_done(number) for number in range(len(job.parts)))
        if not n_done:
            job.store.discard()
            return error
        total = len(job.parts)
        return DataError(f"{error}; {n_done} of {total} parts are done, the same command resumes after them")

    def _count_classes(self, job: MapJob) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        """Return the pixels of each class, and their square metres or None without a CRS."""
        classes = self.predictor.task.num_classes
        pixel_area = pixel_areas(GeoBox.from_raster(job.source.info.path))
        counts: NDArray[np.int64] = np.zeros(classes, np.int64)
        areas: NDArray[np.float64] | None = None if pixel_area is None else np.zeros(classes)
        for number, part in enumerate(job.parts):
            part_areas = None if pixel_area is None else pixel_area.within(part.area)
            pixels, square_metres = class_histogram(job.store.part(number, CLASSES), classes, part_areas)
            counts += pixels
            areas = None if areas is None or square_metres is None else areas + square_metres
        return counts, areas

    def _resume_or_plan(self, file: Path, source: RasterInput) -> tuple[MapPlan, dict[str, Any]]:
        """Resume the parts of the same map if there are any, else plan a new map."""
        store, fingerprint = self._earlier.store(file), self._earlier.fingerprint(source.info)
        plan, differences = store.resume(fingerprint)
        if plan is None:
            if differences and store.read_record() is None:
                self._notify(
                    f"note: {store.folder}: an unfinished map of another {differences}; starting over"
                )
            plan = self._planner.plan(source)
            store.begin(fingerprint, plan)
            return plan, fingerprint
        total = len(split_into_parts(source, plan))
        if n_done := sum(store.is_done(number) for number in range(total)):
            self._notify(f"{file}: resuming; {n_done} of {total} parts are done already")
        return plan, fingerprint

    def _companions(self, name: str) -> dict[str, Any]:
        """Return the fingerprint of the companion files: products beside the rasters, labels."""
        files = [each for each in self.products if each not in predicted_rasters(self.products)]
        return {
            **{each.suffix: each.identity for each in files},
            "labels": None if self._comparison is None else self._comparison.stamp(name),
        }

    def _file(self, name: str) -> Path:
        return Path(self._config.output) / f"{name}{CLASSES}"

    def _reference(self, name: str, path: str, source: RasterInput) -> Difference | None:
        if self._comparison is None:
            return None
        reference = self._comparison.open(name, source.info)
        for note in reference.notes if reference else ("no labels for this raster",):
            self._notify(f"note: {reference.path if reference else path}: {note}")
        mark = mark_of(source.info, path)
        if reference and any(
            mark in checkpoint.metadata.trained_on for checkpoint in self._ensemble.checkpoints
        ):
            self._notify(
                f"note: {path}: is a scene that the model was trained on, or covers exactly the same area; "
                "its scores say nothing about other areas"
            )
        return reference
