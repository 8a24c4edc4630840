"""Options of GDAL, and filters for messages of rasterio and pyogrio. No import of either in here."""

import logging
import os
import warnings

_GDAL_OPTIONS = {
    "GDAL_HTTP_MAX_RETRY": "4",  # of remote rasters: a busy server is asked again
    "GDAL_HTTP_RETRY_DELAY": "1",  # seconds, growing
    # masks and world files are asked for by name: listing a folder of thousands takes as long as all else
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    # megabytes of decoded blocks that a process keeps, whatever its memory: windows are rarely read twice
    "GDAL_CACHEMAX": "512",
}


def configure_gdal() -> None:
    """Set the options of GDAL that the user hasn't set, and suppress messages that tell a user nothing.

    The options are environment variables, so that child processes inherit them. Call it before the first
    raster is opened: GDAL reads the size of its cache once.
    """
    for name, value in _GDAL_OPTIONS.items():
        os.environ.setdefault(name, value)
    # rasters without georeference (PNG, JPG, plain TIFF) are welcome, and their maps are written the same way
    # (by the texts of NotGeoreferencedWarning: importing rasterio takes longer than answering a typo)
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    warnings.filterwarnings("ignore", message="The given matrix is equal to Affine.identity")
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # it logs what it raises, too
    logging.getLogger("pyogrio").setLevel(logging.WARNING)  # it logs every batch
