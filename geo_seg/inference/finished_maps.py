"""Finished maps and their records, which are kept until the command that makes them ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geo_seg.config.fields import fingerprint_values
from geo_seg.config.inference import InferenceConfig
from geo_seg.inference.part_store import PartStore, ensemble_digest, map_fingerprint
from geo_seg.inference.products.product import PredictedRaster
from geo_seg.inference.summary import MapRecord
from geo_seg.prediction.ensemble import Ensemble
from geo_seg.raster.reader import RasterInfo


@dataclass(frozen=True)
class FinishedMap:
    """A finished map.

    Attributes:
        record: its pixel counts, areas and duration.
        confusion: (classes, classes) confusion matrix, labels in rows; None without labels.
        from_earlier_run: whether an earlier run made it.
    """

    record: MapRecord
    confusion: NDArray[np.int64] | None
    from_earlier_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the content as JSON-compatible containers."""
        record, confusion = self.record, self.confusion
        return {
            "counts": record.counts.tolist(),
            "areas": None if record.areas is None else record.areas.tolist(),
            "pixels": record.pixels,
            "seconds": record.seconds,
            "warning": record.warning,
            "confusion": None if confusion is None else confusion.tolist(),
        }

    @classmethod
    def from_dict(cls, file: Path, source: str, content: Mapping[str, Any]) -> Self:
        """Restore the map of an earlier run.

        Args:
            file: the class raster.
            source: path of the input raster.
            content: the result of to_dict.
        """
        areas, confusion = content["areas"], content["confusion"]
        record = MapRecord(
            file,
            source,
            np.array(content["counts"], np.int64),
            None if areas is None else np.array(areas),
            content["pixels"],
            content["seconds"],
            content.get("warning", ""),  # earlier versions wrote none
        )
        return cls(
            record, None if confusion is None else np.array(confusion, np.int64), from_earlier_run=True
        )


class EarlierMaps:
    """Lookup of the maps and parts that earlier runs left in the output folder.

    Args:
        config: configuration of this run.
        ensemble: the models.
        rasters: the products that are written while a map is predicted.
        device: device type of the models.
    """

    def __init__(
        self, config: InferenceConfig, ensemble: Ensemble, rasters: tuple[PredictedRaster, ...], device: str
    ) -> None:
        self._ensemble = ensemble
        self._suffixes = tuple(each.suffix for each in rasters)
        self._options = {**fingerprint_values(config), "device": device}
        self._options["products"] = {each.suffix: each.identity for each in rasters}

    def store(self, file: Path) -> PartStore:
        """Return the part store of a map."""
        return PartStore(file, self._suffixes)

    def fingerprint(self, info: RasterInfo) -> dict[str, Any]:
        """Return the fingerprint of the map of a raster: models, input, options and versions."""
        return map_fingerprint(self._model_digest, info, self._options)

    def find_same(
        self, file: Path, source: str, companions: Mapping[str, Any], info: RasterInfo
    ) -> FinishedMap | None:
        """Return the map if an unfinished command has already made exactly this one.

        Args:
            file: the class raster.
            source: path of the raster as given.
            companions: fingerprint of the companion files (polygons, comparison with labels).
            info: the raster's header.
        """
        store = self.store(file)
        record = store.read_record()
        if record is None or record["asked"] != companions or store.resume(self.fingerprint(info))[0] is None:
            return None
        return FinishedMap.from_dict(file, source, record)

    def find_any(self, file: Path, source: str, companions: Mapping[str, Any]) -> FinishedMap | None:
        """Return the map if an unfinished command has made it, whatever its fingerprint.

        Args:
            file: the class raster.
            source: path of the raster as given.
            companions: fingerprint of the companion files; with another one, the confusion matrix is dropped.
        """
        record = self.store(file).read_record()
        if record is None:
            return None
        same = record["asked"] == companions
        return FinishedMap.from_dict(file, source, record if same else {**record, "confusion": None})

    def discard_record(self, file: Path) -> None:
        """Delete the record of a finished map."""
        store = self.store(file)
        if store.read_record() is not None:
            store.discard()

    @cached_property
    def _model_digest(self) -> str:
        return ensemble_digest(self._ensemble)
