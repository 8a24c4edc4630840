"""Cache of scene indexes and decoded copies, valid as long as the files of a scene do not change."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.class_table import ClassTable
from geo_seg.data.scenes.scene import Scene
from geo_seg.errors import DataError
from geo_seg.raster.paths import absolute_path, container_of
from geo_seg.runtime.cache_dir import cache_dir, write_cache_file

Stamp = list[list[str | int]]
"""Path and state of each file of a scene; see file_stamps."""

_VERSION = 4  # format of an entry; entries of other versions are rebuilt
_SIDECAR_ENDINGS = ("", ".msk", ".aux.xml")  # appended to a file's name
_SIDECAR_SUFFIXES = (".hdr", ".wld", ".prj")  # in place of its suffix
_SHAPEFILE_PARTS = (".dbf", ".shx", ".prj", ".cpg")  # likewise, for a shapefile


class SceneCache:
    """A folder of scene indexes and decoded copies.

    The key of an entry is a hash of the scene's paths, the class table and the nodata options; an entry is
    stale when the size or a timestamp of a file differs. Writes are atomic, so that several runs may share
    the folder.

    Args:
        table: the classes.
        config: nodata options and the cache folder.
    """

    def __init__(self, table: ClassTable, config: DatasetConfig) -> None:
        self.folder = cache_dir(config.cache_dir)
        self._read_options = repr((_VERSION, table, config.nodata, config.zero_is_nodata))

    def decoded_path(self, scene: Scene) -> Path:
        """Return the path of the decoded copy of a scene, whether it exists or not."""
        paths = [absolute_path(raster.path) for raster in (scene.image, scene.mask)]
        name = hashlib.sha256(repr((self._read_options, paths, scene.bands)).encode()).hexdigest()[:32]
        return self.folder / f"{name}.raw"

    def load(self, scene: Scene, stamp: Stamp) -> dict[str, NDArray[Any]] | None:
        """Return the arrays of a scene's entry, or None if there is none with this stamp."""
        try:
            head, _, body = self.decoded_path(scene).with_suffix(".index").read_bytes().partition(b"\n")
            header = json.loads(head)
            if header["stamp"] != stamp:
                return None
            arrays, start = {}, 0
            for name, dtype, shape in header["arrays"]:
                count = math.prod(shape)
                arrays[name] = np.frombuffer(body, dtype, count, start).reshape(shape)
                start += arrays[name].nbytes
        except (OSError, ValueError, KeyError, TypeError):  # missing, or not written by this program
            return None
        return arrays

    def store(self, scene: Scene, stamp: Stamp, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the entry of a scene, replacing an older one."""
        layout = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
        head = json.dumps({"stamp": stamp, "arrays": layout}).encode()
        body = b"".join(array.tobytes() for array in arrays.values())
        write_cache_file(self.decoded_path(scene).with_suffix(".index"), head + b"\n" + body)


def file_state(stat: os.stat_result) -> list[int]:
    """Return size and timestamps, by which a replaced or overwritten file is recognized.

    Size and modification time alone are not enough: copies keep times, and programs set them. No program
    sets the time of the inode's change (ctime), which renaming updates, too. Inode numbers add nothing, and
    network file systems renumber them.

    Args:
        stat: result of os.stat.

    Returns:
        Size in bytes, and mtime and ctime in nanoseconds.
    """
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def file_stamps(files: Sequence[str]) -> Stamp | None:
    """Return path and state of files and of their sidecars; see file_state.

    Returns:
        None if a file is not in the file system, or is a folder, whose content may change unnoticed.
    """
    stamp: Stamp = []
    for file in map(container_of, files):
        stem, suffix = os.path.splitext(file)  # noqa: PTH122 - thousands of files: a Path each takes longer
        world = f".{suffix[1:2]}{suffix[-1:]}w"  # .tfw of a .tif
        suffixes = _SHAPEFILE_PARTS if suffix.lower() == ".shp" else (*_SIDECAR_SUFFIXES, world)
        names = [file + ending for ending in _SIDECAR_ENDINGS] + [stem + ending for ending in suffixes]
        for name in names:
            try:
                stat = os.stat(name)  # noqa: PTH116
                if name == file and S_ISDIR(stat.st_mode):
                    return None
            except OSError:
                if name == file:
                    return None
                continue
            stamp.append([name, *file_state(stat)])
    return stamp


def constituent_files(path: str | Path) -> list[Path]:
    """Return the files that a raster consists of: itself, its sidecars, and the sources of a VRT.

    Raises:
        DataError: a file can't be opened.
    """
    files: list[Path] = []
    pending = [str(path)]
    while pending:
        name = pending.pop()
        try:
            with rasterio.open(name) as source:
                referenced = [str(file) for file in source.files]
        except RasterioError as error:
            raise DataError(f"{name}: cannot be opened as a raster ({error})") from error
        new = [file for file in dict.fromkeys(referenced) if Path(file).absolute() not in files]
        files += [Path(file).absolute() for file in new]
        pending += [file for file in new if file.lower().endswith(".vrt") and file != name]
    return sorted(set(files))
