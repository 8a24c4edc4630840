"""The hidden folder in which a map grows: its plan, and the parts that are done."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import geo_seg
from geo_seg.checkpoint import entry
from geo_seg.data.cache import files_of
from geo_seg.errors import DataError
from geo_seg.prediction.ensemble import Ensemble
from geo_seg.prediction.planner import Choices
from geo_seg.raster import RasterInfo
from geo_seg.whole import write_whole
from geo_seg.writing import is_whole, unwritten

_PLAN = "plan.json"
_FORMAT = 2  # of the plan and of the way in which a raster is cut; another one makes parts stale


class Journal:
    """What is known of an unfinished map.

    A part is done when a file bears its name; nothing else says so, and nothing else is needed to go on
    after a crash.

    Args:
        file: the finished map, some time.
        suffixes: of the rasters of each part, in the order in which they appear.
    """

    def __init__(self, file: Path, suffixes: tuple[str, ...]) -> None:
        self.folder = file.with_name(f".{file.name}.part")
        self._suffixes = suffixes

    def resume(self, identity: Mapping[str, Any]) -> tuple[Choices | None, str]:
        """What an earlier run chose, if it was about to make the same map.

        Args:
            identity: what the map is made of: checkpoint, raster, options, versions.

        Returns:
            The choices, or None; and what differs if that is the reason, else "".
        """
        try:
            plan = json.loads((self.folder / _PLAN).read_text())
            known, choices = plan["identity"], Choices(**plan["choices"])
        except FileNotFoundError:
            return None, ""
        except (OSError, ValueError, KeyError, TypeError):
            return None, "plan"
        differing = [
            key for key in {**known, **identity} if _text(known.get(key)) != _text(identity.get(key))
        ]
        return (None, ", ".join(differing)) if differing else (choices, "")

    def begin(self, identity: Mapping[str, Any], choices: Choices) -> None:
        """Starts anew: whatever lies in the folder goes.

        Raises:
            DataError: nothing can be written there.
        """
        self.discard()
        plan = self.folder / _PLAN
        try:
            self.folder.mkdir()
            content = {"identity": dict(identity), "choices": asdict(choices)}
            write_whole(plan, json.dumps(content, indent=1), synced=True)
        except OSError as error:
            raise unwritten(plan, error) from error

    def part(self, number: int, suffix: str) -> Path:
        """The raster of a part."""
        return self.folder / f"{number:05d}{suffix}"

    def done(self, number: int) -> bool:
        """Whether a part is complete."""
        return all(is_whole(self.part(number, suffix)) for suffix in self._suffixes)

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
            raise DataError(
                f"{self.folder}: cannot be removed ({error.strerror}); does another run make this map?"
            ) from error


def identify(ensemble: Ensemble, info: RasterInfo, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a map is made of, in plain containers.

    Files are known by size and time of change, remote ones only by what their header says.

    Args:
        ensemble: the models.
        info: header of the raster.
        options: that the user gave and the bytes depend on.
    """
    digest = hashlib.sha256()
    for checkpoint in ensemble.checkpoints:
        digest.update(json.dumps(entry(checkpoint.facts), sort_keys=True).encode())
        for name, tensor in sorted(checkpoint.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    files = stamps(info)
    return {
        "format": _FORMAT,
        "versions": f"geo_seg {geo_seg.__version__}, torch {torch.__version__}",
        "checkpoint": digest.hexdigest(),
        "input": {**asdict(info), "path": str(Path(info.path).absolute()) if files else info.path},
        "files": files,
        "options": dict(options),
    }


def stamps(info: RasterInfo) -> dict[str, list[int]]:
    """Size in bytes and time of change in nanoseconds of all local files that a raster consists of."""
    found = {}
    for path in files_of(info.path):
        # statistics and overviews may be added by whoever looks at the raster; no map depends on them
        if path.exists() and not path.name.endswith((".aux.xml", ".ovr")):
            state = path.stat()
            found[str(path)] = [state.st_size, state.st_mtime_ns]
    return found


def _text(value: Any) -> str:
    """Plain containers as text: there, lists are tuples and NaN equals NaN."""
    return json.dumps(value, sort_keys=True)
