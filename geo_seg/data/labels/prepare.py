"""Label rasters on the grid of the image: the mask itself, or a cached conversion of it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.cache import Stamp, constituent_files, file_stamps
from geo_seg.data.class_table import ClassTable
from geo_seg.data.labels.polygons import PolygonFile
from geo_seg.data.labels.strips import LabelStrips, PolygonLabelStrips, RasterLabelStrips, describe_polygons
from geo_seg.data.scenes.file_pairs import SceneFiles, is_vector
from geo_seg.errors import ConfigError, DataError, did_you_mean
from geo_seg.raster.georeference import affine_of, describe_grid, same_grid
from geo_seg.raster.paths import absolute_path, display_name
from geo_seg.raster.reader import RasterInfo, RasterReader, read_info
from geo_seg.raster.writer import is_complete_geotiff, write_error
from geo_seg.runtime.cache_dir import cache_dir, write_cache_file

_VERSION = 3  # format of a cached label; labels of other versions are rebuilt
_STRIP_PIXELS = 1 << 23  # of a strip
_BLOCK = 256  # side of the tiles of a cached label
_NOTES_TAG = "GEO_SEG_NOTES"  # metadata item of a cached label
_INTEGER_PREFIXES = ("int", "uint")


class LabelPreparer:
    """Converter of labels (rasters on other grids, coloured masks, polygons) to rasters of mask values.

    Args:
        config: the data set.
        table: the classes.
        read_header: returns the header of a raster.

    Raises:
        ConfigError: dataset.label.uncovered is not a class.
    """

    def __init__(
        self, config: DatasetConfig, table: ClassTable, read_header: Callable[[str], RasterInfo] = read_info
    ) -> None:
        self._config = config
        self._table = table
        self._read_header = read_header
        self._folder = cache_dir(config.cache_dir) / "labels"
        self._uncovered = _uncovered_value(config.label.uncovered, table)

    def prepare(self, source: SceneFiles, image: RasterInfo) -> tuple[RasterInfo, list[str]]:
        """Return the header of a raster of mask values on the image's grid, and warnings for the user.

        Raises:
            DataError: a file can't be read, doesn't match the image, or holds values of no class.
        """
        if is_vector(source.mask):
            return self._cached_raster(source, image, None)
        mask = self._read_header(source.mask)
        # palette indices are class values, unless the class table lists colours
        colored = (len(mask.bands) == 3 and mask.dtype == "uint8") or (
            mask.palette and mask.dtype == "uint8" and self._lists_colors()
        )
        self._check_mask(mask, image, colored)
        raster_notes = [] if colored else self._nodata_of_classes(mask)
        usable = not colored and not mask.masked and mask.dtype.startswith(_INTEGER_PREFIXES)
        if usable and same_grid(image, mask) and source.aoi is None:
            return mask, raster_notes
        files = [str(file) for file in constituent_files(source.mask)]
        header, notes = self._cached_raster(source, image, (mask, files, colored))
        return header, [*raster_notes, *notes]

    def _nodata_of_classes(self, mask: RasterInfo) -> list[str]:
        """Return a warning if a mask declares a class value as nodata: the class table takes precedence."""
        classes = zip(self._table.names, self._table.values, strict=True)
        return [
            f"the mask declares {mask.nodata[0]:g} as nodata, which class {name!r} has; such pixels "
            "are of that class, as dataset.classes says"
            for name, values in classes
            if mask.nodata[0] in values
        ]

    def _check_mask(self, mask: RasterInfo, image: RasterInfo, colored: bool) -> None:
        if len(mask.bands) != 1 and not (colored and self._has_colors()):
            raise DataError(
                f"{mask.path}: the mask has {len(mask.bands)} bands, expected one band of class values, or "
                "three of uint8 and a color for every class in dataset.classes"
            )
        if not mask.dtype.startswith((*_INTEGER_PREFIXES, "float")):
            raise DataError(
                f"{mask.path}: the mask holds {mask.dtype}, expected whole numbers (class values); convert it"
            )
        if not colored and self._table.text_keys:
            raise DataError(
                f"{mask.path}: the mask holds numbers, the class table has the value "
                f"{self._table.text_keys[0]!r}"
            )
        if same_grid(image, mask):
            return
        if mask.transform is None or image.transform is None:
            raise DataError(
                f"{mask.path}: the mask has {mask.height} rows x {mask.width} columns, its image "
                f"{image.path} has {image.height} x {image.width}; they must lie on the same grid"
            )
        if self._config.label.align != "reproject":
            raise DataError(
                f"{mask.path}: the mask has {describe_grid(mask)}; its image {image.path} has "
                f"{describe_grid(image)}; repair the wrong one, or set dataset.label.align=reproject"
            )
        for info in (mask, image):
            if info.crs is None:
                raise DataError(
                    f"{info.path}: has no CRS, so that the mask cannot be reprojected; write it into the file"
                )

    def _has_colors(self) -> bool:
        rows = self._config.classes
        all_colored = all(not isinstance(row, str) and "color" in row for row in rows)
        return all_colored or self._lists_colors()

    def _lists_colors(self) -> bool:
        return any(key.startswith("#") for key in self._table.codes)

    def _cached_raster(
        self, source: SceneFiles, image: RasterInfo, raster: tuple[RasterInfo, list[str], bool] | None
    ) -> tuple[RasterInfo, list[str]]:
        files = [source.mask, *(raster[1] if raster else ()), *([source.aoi] if source.aoi else ())]
        stamp = file_stamps([absolute_path(file) for file in files])
        path = self._folder / f"{display_name(source.mask)}_{self._hash(files, stamp, image)}.tif"
        if stamp is None or not path.exists():  # remote files and folders may change unnoticed
            write_cache_file(path, lambda part: self._write(part, source, image, raster))
        with RasterReader(path) as reader:
            info, notes = reader.info, reader.tags.get(_NOTES_TAG, "[]")
        return info, json.loads(notes)

    def _hash(self, files: Sequence[str], stamp: Stamp | None, image: RasterInfo) -> str:
        table = self._table
        grid = (image.height, image.width, image.crs, image.transform)
        classes = (table.values, table.codes, table.colors, table.ignore_unlisted, self._uncovered)
        content = (_VERSION, list(files), stamp, grid, classes, asdict(self._config.label))
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]

    def _write(
        self,
        path: Path,
        source: SceneFiles,
        image: RasterInfo,
        raster: tuple[RasterInfo, list[str], bool] | None,
    ) -> None:
        label = self._config.label
        area = PolygonFile(source.aoi, image, None, None) if source.aoi else None
        strips: LabelStrips
        if raster is not None:
            strips = RasterLabelStrips(raster[0], image, self._table, raster[2])
        else:
            polygons = PolygonFile(source.mask, image, label.layer, label.attribute)
            strips = PolygonLabelStrips(polygons, image, self._table, label, self._uncovered)
        profile = {
            "driver": "GTiff",
            "width": image.width,
            "height": image.height,
            "count": 1,
            "dtype": strips.dtype.name,
            "nodata": strips.nodata,
            "crs": image.crs,
            "transform": affine_of(image) if image.transform else None,
            "tiled": True,
            "blockxsize": _BLOCK,
            "blockysize": _BLOCK,
            "compress": "deflate",
            "bigtiff": "if_safer",
        }
        rows = max(_STRIP_PIXELS // image.width // _BLOCK, 1) * _BLOCK
        try:
            with rasterio.open(path, "w", **profile) as target:
                for top in range(0, image.height, rows):
                    bottom = min(top + rows, image.height)
                    values = strips.read(top, bottom)
                    if area is not None:
                        values[~area.coverage_mask(top, bottom)] = strips.nodata
                    target.write(values, 1, window=Window(0, top, image.width, bottom - top))
                notes = strips.close() + (describe_polygons(area) if area else [])
                target.update_tags(**{_NOTES_TAG: json.dumps(notes)})
            if not is_complete_geotiff(path):  # GDAL doesn't report what it couldn't write while closing
                raise write_error(path, None)
        except (RasterioError, CPLE_BaseError) as error:
            raise DataError(f"{path}: the label of {source.name} cannot be written ({error})") from error


def _uncovered_value(name: str, table: ClassTable) -> int | None:
    if name == "ignore":
        return None
    if name not in table.names:
        raise ConfigError(
            f"dataset.label.uncovered={name}: unknown class {name!r}; "
            f"{did_you_mean(name, [*table.names, 'ignore'])}"
        )
    return table.values[table.names.index(name)][0]


def first_unused_option(config: DatasetConfig) -> str | None:
    """Return the first option for vector labels that is not at its default, or None."""
    options = asdict(config.label)
    for key in ("layer", "attribute", "uncovered", "order", "all_touched"):
        if options[key] != type(config.label).__dataclass_fields__[key].default:
            return key
    return None
