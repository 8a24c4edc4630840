"""Cache of raster headers, valid as long as the files do not change."""

import hashlib
import json
from pathlib import Path
from typing import Any

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.cache import Stamp, file_stamps
from geo_seg.raster.paths import is_remote
from geo_seg.raster.reader import RasterInfo, read_info
from geo_seg.runtime.cache_dir import cache_dir, write_cache_file

_VERSION = 2  # format of the cache file; files of other versions are not read


class HeaderCache:
    """Raster headers of a data set, so that a run with thousands of scenes starts in seconds.

    Remote files are opened at every start: they may change unnoticed.

    Args:
        config: the data set; its headers are stored in one file of the cache folder.
    """

    def __init__(self, config: DatasetConfig) -> None:
        files = (str(Path(config.root).absolute()), config.images, config.masks, config.manifest)
        name = hashlib.sha256(repr((_VERSION, files)).encode()).hexdigest()[:32]
        self._file = cache_dir(config.cache_dir) / f"{name}.headers"
        self._cached = _load(self._file)
        self._used: dict[str, tuple[Stamp, RasterInfo]] = {}

    def get(self, path: str) -> RasterInfo:
        """Return the header of a raster; safe to call from several threads.

        Raises:
            DataError: the file can't be opened.
        """
        stamp = None if is_remote(path) else file_stamps([path])
        if stamp is None:
            return read_info(path)
        cached = self._cached.get(path)
        entry = cached if cached and cached[0] == stamp else (stamp, read_info(path))
        self._used[path] = entry
        return entry[1]

    def save(self) -> None:
        """Write the headers that were requested to the cache folder, if any has changed.

        Raises:
            DataError: the cache folder can't be written to.
        """
        unchanged = self._used.keys() == self._cached.keys()
        if not unchanged or any(entry is not self._cached[path] for path, entry in self._used.items()):
            entries = [(stamp, vars(info)) for stamp, info in self._used.values()]
            write_cache_file(self._file, json.dumps(entries).encode())


def _load(file: Path) -> dict[str, tuple[Stamp, RasterInfo]]:
    crs_texts: dict[str | None, str | None] = {}  # few distinct CRSs: one string each, not one a scene
    try:
        return {row["path"]: (stamp, _header(row, crs_texts)) for stamp, row in json.loads(file.read_bytes())}
    except (OSError, ValueError, KeyError, TypeError):  # missing, or not written by this program
        return {}


def _header(row: dict[str, Any], crs_texts: dict[str | None, str | None]) -> RasterInfo:
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}
    fields["crs"] = crs_texts.setdefault(row["crs"], row["crs"])
    return RasterInfo(**fields)
