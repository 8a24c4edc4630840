"""Maps that are there, and what their journals keep of them until the command that makes them ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geo_seg.config.inference import InferenceConfig
from geo_seg.inference.part_store import PartStore, ensemble_digest, map_fingerprint
from geo_seg.inference.summary import MapRecord
from geo_seg.prediction.ensemble import Ensemble
from geo_seg.raster.reader import RasterInfo

_KEYS_THAT_SHAPE_A_MAP = (  # options that the bytes of a map depend on
    "window",
    "margin",
    "overlap",
    "blend",
    "batch_size",
    "max_memory",
    "precision",
    "compile",
    "backend",
    "probabilities",
    "uncertainty",
    "probability_type",
    "tta",
    "weights",
    "temperature",
    "threshold",
    "resolution",
)


@dataclass(frozen=True)
class FinishedMap:
    """A finished map.

    Attributes:
        mapped: its numbers.
        confusion: (classes, classes) pixels by label and class; None without labels.
        earlier: whether an earlier run made it.
    """

    mapped: MapRecord
    confusion: NDArray[np.int64] | None
    earlier: bool = False

    def as_plain(self) -> dict[str, Any]:
        """Return the numbers in plain containers."""
        mapped, confusion = self.mapped, self.confusion
        return {
            "counts": mapped.counts.tolist(),
            "areas": None if mapped.areas is None else mapped.areas.tolist(),
            "pixels": mapped.pixels,
            "seconds": mapped.seconds,
            "warning": mapped.warning,
            "confusion": None if confusion is None else confusion.tolist(),
        }

    @classmethod
    def from_plain(cls, file: Path, source: str, found: Mapping[str, Any]) -> Self:
        """Return the map of an earlier run.

        Args:
            file: the class raster.
            source: the raster that it is of.
            found: what as_plain gave.
        """
        areas, confusion = found["areas"], found["confusion"]
        mapped = MapRecord(
            file,
            source,
            np.array(found["counts"], np.int64),
            None if areas is None else np.array(areas),
            found["pixels"],
            found["seconds"],
            found.get("warning", ""),  # an earlier version kept none
        )
        return cls(mapped, None if confusion is None else np.array(confusion, np.int64), earlier=True)


class EarlierMap:
    """What earlier runs have left in the folder of the maps.

    Args:
        config: what to do now.
        ensemble: the models.
        suffixes: of the rasters of a part.
        device: type of the device that the models run on.
    """

    def __init__(
        self, config: InferenceConfig, ensemble: Ensemble, suffixes: tuple[str, ...], device: str
    ) -> None:
        self._ensemble = ensemble
        self._suffixes = suffixes
        self._options = {**{key: getattr(config, key) for key in _KEYS_THAT_SHAPE_A_MAP}, "device": device}

    def journal(self, file: Path) -> PartStore:
        """Return the journal of a map."""
        return PartStore(file, self._suffixes)

    def identity(self, info: RasterInfo) -> dict[str, Any]:
        """Return what the map of a raster is made of."""
        return map_fingerprint(self._models, info, self._options)

    def of_same(
        self, file: Path, source: str, asked: Mapping[str, Any], info: RasterInfo
    ) -> FinishedMap | None:
        """Return a map, if it is there and a command that is not at its end made just this one.

        Args:
            file: the class raster.
            source: the raster, as it was given.
            asked: what its files depend on beside its parts.
            info: the raster's header.
        """
        journal = self.journal(file)
        known = journal.found()
        if known is None or known["asked"] != asked or journal.resume(self.identity(info))[0] is None:
            return None
        return FinishedMap.from_plain(file, source, known)

    def of_any(self, file: Path, source: str, asked: Mapping[str, Any]) -> FinishedMap | None:
        """Return a map that is there, if a command made it that is not at its end; whatever it is made of.

        Args:
            file: the class raster.
            source: the raster, as it was given.
            asked: it is compared with labels if these are the ones that it was compared with.
        """
        known = self.journal(file).found()
        if known is None:
            return None
        same = known["asked"] == asked
        return FinishedMap.from_plain(file, source, known if same else {**known, "confusion": None})

    def forget(self, file: Path) -> None:
        """Forget what was kept of a finished map."""
        journal = self.journal(file)
        if journal.found() is not None:
            journal.discard()

    @cached_property
    def _models(self) -> str:
        return ensemble_digest(self._ensemble)
