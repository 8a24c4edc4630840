"""Headers of the rasters of a data set, kept between runs for as long as the files do not change."""

import hashlib
import json
from pathlib import Path
from typing import Any

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.cache import Stamp, file_stamps
from geo_seg.raster.paths import is_remote
from geo_seg.raster.reader import RasterInfo, read_info
from geo_seg.runtime.cache_dir import cache_dir, write_cache_file

_VERSION = 2  # of what is kept; another one is read anew


class HeaderCache:
    """Reads headers, each file's once: thousands of scenes start in seconds that way.

    Remote files are opened at every start: they may change without a sign.

    Args:
        config: the data set; its headers lie in one file of the cache folder.
    """

    def __init__(self, config: DatasetConfig) -> None:
        files = (str(Path(config.root).absolute()), config.images, config.masks, config.manifest)
        name = hashlib.sha256(repr((_VERSION, files)).encode()).hexdigest()[:32]
        self._file = cache_dir(config.cache_dir) / f"{name}.headers"
        self._known = _load(self._file)
        self._used: dict[str, tuple[Stamp, RasterInfo]] = {}

    def get(self, path: str) -> RasterInfo:
        """The header of a raster; threads may ask at the same time.

        Raises:
            DataError: the file can't be opened.
        """
        stamp = None if is_remote(path) else file_stamps([path])
        if stamp is None:
            return read_info(path)
        known = self._known.get(path)
        found = known if known and known[0] == stamp else (stamp, read_info(path))
        self._used[path] = found
        return found[1]

    def save(self) -> None:
        """Keeps the headers that were asked for.

        Raises:
            DataError: the cache folder can't be written to.
        """
        same = self._used.keys() == self._known.keys()
        if not same or any(found is not self._known[path] for path, found in self._used.items()):
            listed = [(stamp, vars(info)) for stamp, info in self._used.values()]
            write_cache_file(self._file, json.dumps(listed).encode())


def _load(file: Path) -> dict[str, tuple[Stamp, RasterInfo]]:
    shared: dict[str | None, str | None] = {}  # scenes have few CRSs; a text each would fill memory
    try:
        return {row["path"]: (stamp, _header(row, shared)) for stamp, row in json.loads(file.read_bytes())}
    except (OSError, ValueError, KeyError, TypeError):  # missing, or not written by this program
        return {}


def _header(row: dict[str, Any], shared: dict[str | None, str | None]) -> RasterInfo:
    made: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}
    made["crs"] = shared.setdefault(row["crs"], row["crs"])
    return RasterInfo(**made)
