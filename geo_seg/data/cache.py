"""What is kept of a scene between runs, for as long as its files do not change."""

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

Stamp = list[list[Any]]
_VERSION = 4  # of what an entry holds; one of another version is made anew
_SIDECARS = ("", ".msk", ".aux.xml")  # after a file's name
_BESIDE = (".hdr", ".wld", ".prj")  # instead of its suffix
_SHAPEFILE_PARTS = (".dbf", ".shx", ".prj", ".cpg")  # the same, of a shapefile


class SceneCache:
    """A folder with an entry per scene and way of reading it, and a decoded copy where one was made.

    An entry is found by the paths of the scene and by what decides its content; it is out of date when a
    file's size or times of change differ. Files come into being under another name and are renamed, so
    that several runs may share the folder.

    Args:
        table: the classes.
        config: what is nodata, and the folder.
    """

    def __init__(self, table: ClassTable, config: DatasetConfig) -> None:
        self.folder = cache_dir(config.cache_dir)
        self._reading = repr((_VERSION, table, config.nodata, config.zero_is_nodata))

    def decoded_path(self, scene: Scene) -> Path:
        """Where the decoded copy of a scene lies, if there is one."""
        paths = [absolute_path(raster.path) for raster in (scene.image, scene.mask)]
        name = hashlib.sha256(repr((self._reading, paths, scene.bands)).encode()).hexdigest()[:32]
        return self.folder / f"{name}.raw"

    def load(self, scene: Scene, stamp: Stamp) -> dict[str, NDArray[Any]] | None:
        """The arrays of an entry, or None where there is none of this stamp."""
        try:
            head, _, body = self.decoded_path(scene).with_suffix(".index").read_bytes().partition(b"\n")
            found = json.loads(head)
            if found["stamp"] != stamp:
                return None
            arrays, start = {}, 0
            for name, dtype, shape in found["arrays"]:
                count = math.prod(shape)
                arrays[name] = np.frombuffer(body, dtype, count, start).reshape(shape)
                start += arrays[name].nbytes
        except (OSError, ValueError, KeyError, TypeError):  # missing, or not written by this program
            return None
        return arrays

    def store(self, scene: Scene, stamp: Stamp, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Writes an entry, replacing an older one."""
        listed = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
        head = json.dumps({"stamp": stamp, "arrays": listed}).encode()
        body = b"".join(array.tobytes() for array in arrays.values())
        write_cache_file(self.decoded_path(scene).with_suffix(".index"), head + b"\n" + body)


def file_state(found: os.stat_result) -> list[int]:
    """Return what tells a file from any other that takes its place or is written over it.

    Size and time of change may be those of another file: copies keep times, and programs set them. Nobody
    sets the time when the file itself was changed, which renaming does, too. Numbers of inodes say nothing
    more, and are drawn anew on file systems of networks.

    Args:
        found: what the system says of it.

    Returns:
        Bytes, and nanoseconds since the epoch of the changes of its content and of the file itself.
    """
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def file_stamps(files: Sequence[str]) -> Stamp | None:
    """Path and state of files and their sidecars, see file_state.

    Returns:
        None if one isn't in the file system, or is a folder, whose files may change without a sign.
    """
    stamp: Stamp = []
    for file in map(container_of, files):
        stem, suffix = os.path.splitext(file)  # noqa: PTH122 - thousands of files: a Path each takes longer
        world = f".{suffix[1:2]}{suffix[-1:]}w"  # .tfw of a .tif
        beside = _SHAPEFILE_PARTS if suffix.lower() == ".shp" else (*_BESIDE, world)
        names = [file + ending for ending in _SIDECARS] + [stem + ending for ending in beside]
        for name in names:
            try:
                found = os.stat(name)  # noqa: PTH116
                if name == file and S_ISDIR(found.st_mode):
                    return None
            except OSError:
                if name == file:
                    return None
                continue
            stamp.append([name, *file_state(found)])
    return stamp


def constituent_files(path: str | Path) -> list[Path]:
    """The files that a raster consists of: itself, what lies beside it, and what a VRT refers to.

    Raises:
        DataError: it can't be opened.
    """
    found: list[Path] = []
    waiting = [str(path)]
    while waiting:
        name = waiting.pop()
        try:
            with rasterio.open(name) as source:
                inside = [str(file) for file in source.files]
        except RasterioError as error:
            raise DataError(f"{name}: cannot be opened as a raster ({error})") from error
        new = [file for file in dict.fromkeys(inside) if Path(file).absolute() not in found]
        found += [Path(file).absolute() for file in new]
        waiting += [file for file in new if file.lower().endswith(".vrt") and file != name]
    return sorted(set(found))
