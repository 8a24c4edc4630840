"""The hidden folder in which a map grows: its plan, the parts that are done, and what became of it."""

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
_FOUND = "found.json"
_FORMAT = 3  # of the plan and of the way in which a raster is cut; another one makes parts stale


class PartStore:
    """What is known of an unfinished map.

    A part is done when a file bears its name; nothing else says so, and nothing else is needed to go on
    after a crash. Of a finished map the plan and what was found stay until the command that made it ends:
    the same command knows by them, after a crash, that it needn't make the map again.

    Args:
        file: the finished map, some time.
        suffixes: of the rasters of each part, in the order in which they appear.
    """

    def __init__(self, file: Path, suffixes: tuple[str, ...]) -> None:
        self.folder = file.with_name(f".{_neutral(file.name)}.part")
        self._file = file
        self._suffixes = suffixes

    def resume(self, identity: Mapping[str, Any]) -> tuple[MapPlan | None, str]:
        """What an earlier run chose, if it was about to make the same map.

        Args:
            identity: what the map is made of: checkpoint, raster, options, versions.

        Returns:
            The choices, or None; and what differs if that is the reason, else "".
        """
        try:
            plan = json.loads((self.folder / _PLAN).read_text())
            known, choices = plan["identity"], MapPlan(**plan["choices"])
        except FileNotFoundError:
            return None, ""
        except (OSError, ValueError, KeyError, TypeError):
            return None, "plan"
        differing = [
            key for key in {**known, **identity} if _text(known.get(key)) != _text(identity.get(key))
        ]
        return (None, ", ".join(differing)) if differing else (choices, "")

    def begin(self, identity: Mapping[str, Any], choices: MapPlan) -> None:
        """Starts anew: whatever lies in the folder goes.

        Raises:
            DataError: nothing can be written there.
        """
        self.discard()
        plan = self.folder / _PLAN
        try:
            self.folder.mkdir()
            content = {"identity": dict(identity), "choices": asdict(choices)}
            atomic_write(plan, json.dumps(content, indent=1), fsync=True)
        except OSError as error:
            raise write_error(plan, error) from error

    def part(self, number: int, suffix: str) -> Path:
        """The raster of a part."""
        return self.folder / f"{number:05d}{suffix}"

    def done(self, number: int) -> bool:
        """Whether a part is complete: its rasters, and the tags of its classes, which are written last."""
        *others, classes = (self.part(number, suffix) for suffix in self._suffixes)
        return is_complete_geotiff(classes, "strays") and all(is_complete_geotiff(path) for path in others)

    def note(self, found: Mapping[str, Any], raster: Path) -> None:
        """Keep what is known of a map that is about to get its place.

        Args:
            found: it, in plain containers.
            raster: the class raster, complete.

        Raises:
            OSError: the disk doesn't take it.
        """
        content = {"format": _FORMAT, "raster": _state(raster), "found": found}
        atomic_write(self.folder / _FOUND, json.dumps(content), fsync=True)

    def found(self) -> dict[str, Any] | None:
        """Return what note kept, if the map is in its place and nobody has changed it since."""
        try:
            content = json.loads((self.folder / _FOUND).read_text())
            found: dict[str, Any] = content["found"]
            same = content["format"] == _FORMAT and content["raster"] == _state(self._file)
            return found if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def clear(self) -> None:
        """Remove the parts, which a finished map doesn't need; the plan and what was found stay.

        Raises:
            DataError: they can't be removed.
        """
        try:
            for path in self.folder.iterdir():
                if path.name not in {_PLAN, _FOUND}:
                    path.unlink()
        except OSError as error:
            raise self._kept(error) from error

    def discard(self) -> None:
        """Forgets everything.

        Raises:
            DataError: the folder can't be removed.
        """
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._kept(error) from error

    def _kept(self, error: OSError) -> DataError:
        return DataError(f"{self.folder}: cannot be removed ({error.strerror}); may files there be removed?")


def ensemble_digest(ensemble: Ensemble) -> str:
    """Return a hash of the models: their weights, and all that their checkpoints say of them."""
    digest = hashlib.sha256()
    for checkpoint in ensemble.checkpoints:
        digest.update(json.dumps(to_dict(checkpoint.metadata), sort_keys=True).encode())
        for name, tensor in sorted(checkpoint.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def map_fingerprint(models: str, info: RasterInfo, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a map is made of, in plain containers.

    Files are known by size and times of change, remote ones only by what their header says.

    Args:
        models: what ensemble_digest says of them.
        info: header of the raster.
        options: that the user gave and the bytes depend on.
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
    """Return the state of all local files that a raster consists of, see file_state."""
    found = {}
    for path in constituent_files(info.path):
        # statistics and overviews may be added by whoever looks at the raster; no map depends on them
        if path.exists() and not path.name.endswith((".aux.xml", ".ovr")):
            found[str(path)] = file_state(path.stat())
    return found


def _neutral(name: str) -> str:
    """A name of its own for each, without what GDAL or GeoPackages take for more than a name."""
    return re.sub(r"[^\w. -]", lambda found: f"%{ord(found[0]):02x}", name)


def _state(path: Path) -> list[int]:
    """Return what a file keeps when it is moved to its place."""
    return file_state(path.stat())[:2]


def _text(value: Any) -> str:
    """Plain containers as text: there, lists are tuples and NaN equals NaN."""
    return json.dumps(value, sort_keys=True)
