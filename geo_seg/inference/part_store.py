"""Hidden folder of an unfinished map: its plan, finished parts, and the record of the finished map."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import geo_seg
from geo_seg.checkpoints.checkpoint import to_dict
from geo_seg.data.cache import constituent_files, file_state
from geo_seg.errors import DataError
from geo_seg.prediction.ensemble import Ensemble
from geo_seg.prediction.planner import MapPlan
from geo_seg.raster.paths import absolute_path
from geo_seg.raster.reader import RasterInfo
from geo_seg.raster.writer import is_complete_geotiff, write_error
from geo_seg.runtime.files import atomic_write

_PLAN = "plan.json"
_RECORD = "found.json"
_FORMAT = 3  # version of the plan and of the division into parts; parts of another version are stale


class PartStore:
    """Parts of an unfinished map on disk.

    A part is done when its files have their final names, which is all that is needed to resume after a
    crash. Plan and record of a finished map stay until the command ends, so that the same command, resumed
    after a crash, doesn't make the map again.

    Args:
        file: path of the class raster of the finished map.
        suffixes: file name suffixes of the rasters of a part, in the order in which they appear.
    """

    def __init__(self, file: Path, suffixes: tuple[str, ...]) -> None:
        self.folder = file.with_name(f".{_escape(file.name)}.part")
        self._file = file
        self._suffixes = suffixes

    def resume(self, fingerprint: Mapping[str, Any]) -> tuple[MapPlan | None, str]:
        """Return the plan of an earlier run that was making the same map.

        Args:
            fingerprint: checkpoint, raster, options and versions of the map.

        Returns:
            The plan, or None; and the differing keys of the fingerprint if that is the reason, else "".
        """
        try:
            content = json.loads((self.folder / _PLAN).read_text())
            stored, plan = content["identity"], MapPlan(**content["choices"])
        except FileNotFoundError:
            return None, ""
        except (OSError, ValueError, KeyError, TypeError):
            return None, "plan"
        differing = [
            key
            for key in {**stored, **fingerprint}
            if _to_json(stored.get(key)) != _to_json(fingerprint.get(key))
        ]
        return (None, ", ".join(differing)) if differing else (plan, "")

    def begin(self, fingerprint: Mapping[str, Any], plan: MapPlan) -> None:
        """Empty the folder and write the plan of a new map.

        Raises:
            DataError: the folder can't be written.
        """
        self.discard()
        path = self.folder / _PLAN
        try:
            self.folder.mkdir()
            content = {"identity": dict(fingerprint), "choices": asdict(plan)}
            atomic_write(path, json.dumps(content, indent=1), fsync=True)
        except OSError as error:
            raise write_error(path, error) from error

    def part(self, number: int, suffix: str) -> Path:
        """Return the path of a raster of a part."""
        return self.folder / f"{number:05d}{suffix}"

    def is_done(self, number: int) -> bool:
        """Return whether a part is complete: its rasters, and the tags of its class raster, written last."""
        *others, classes = (self.part(number, suffix) for suffix in self._suffixes)
        return is_complete_geotiff(classes, "strays") and all(is_complete_geotiff(path) for path in others)

    def write_record(self, record: Mapping[str, Any], raster: Path) -> None:
        """Write the record of a map that is about to be published.

        Args:
            record: JSON-compatible content.
            raster: the complete class raster.

        Raises:
            OSError: writing fails.
        """
        content = {"format": _FORMAT, "raster": _moved_state(raster), "found": record}
        atomic_write(self.folder / _RECORD, json.dumps(content), fsync=True)

    def read_record(self) -> dict[str, Any] | None:
        """Return the record if the map is published and unchanged since, else None."""
        try:
            content = json.loads((self.folder / _RECORD).read_text())
            record: dict[str, Any] = content["found"]
            same = content["format"] == _FORMAT and content["raster"] == _moved_state(self._file)
            return record if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def clear(self) -> None:
        """Remove the parts of a finished map; plan and record stay.

        Raises:
            DataError: a file can't be removed.
        """
        try:
            for path in self.folder.iterdir():
                if path.name not in {_PLAN, _RECORD}:
                    path.unlink()
        except OSError as error:
            raise self._removal_error(error) from error

    def discard(self) -> None:
        """Remove the folder.

        Raises:
            DataError: the folder can't be removed.
        """
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._removal_error(error) from error

    def _removal_error(self, error: OSError) -> DataError:
        return DataError(f"{self.folder}: cannot be removed ({error.strerror}); check its permissions")


def ensemble_digest(ensemble: Ensemble) -> str:
    """Return a hash of the models: weights and metadata of all checkpoints."""
    digest = hashlib.sha256()
    for checkpoint in ensemble.checkpoints:
        digest.update(json.dumps(to_dict(checkpoint.metadata), sort_keys=True).encode())
        for name, tensor in sorted(checkpoint.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def map_fingerprint(models: str, info: RasterInfo, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that the bytes of a map depend on, as JSON-compatible containers.

    Local files are identified by size and modification times, remote ones by their header only.

    Args:
        models: result of ensemble_digest.
        info: header of the raster.
        options: options that affect the map.
    """
    files = file_stamps(info)
    return {
        "format": _FORMAT,
        "versions": f"geo_seg {geo_seg.__version__}, torch {torch.__version__}",
        "checkpoint": models,
        "input": {**asdict(info), "path": absolute_path(info.path) if files else info.path},
        "files": files,
        "options": dict(options),
    }


def file_stamps(info: RasterInfo) -> dict[str, list[int]]:
    """Return the states of all local files of a raster, see file_state."""
    states = {}
    for path in constituent_files(info.path):
        # viewers add statistics and overviews; no map depends on them
        if path.exists() and not path.name.endswith((".aux.xml", ".ovr")):
            states[str(path)] = file_state(path.stat())
    return states


def _escape(name: str) -> str:
    """Escape characters that are special for GDAL or GeoPackages; distinct names stay distinct."""
    return re.sub(r"[^\w. -]", lambda match: f"%{ord(match[0]):02x}", name)


def _moved_state(path: Path) -> list[int]:
    """Return the part of the state of a file that a move doesn't change."""
    return file_state(path.stat())[:2]


def _to_json(value: object) -> str:
    """Return containers as JSON for comparison: lists equal tuples, and NaN equals NaN."""
    return json.dumps(value, sort_keys=True)
