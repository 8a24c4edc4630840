"""Settings of a process, for entry points and workers: importing geo_seg sets none. No torch in here."""

import logging
import os
import warnings

PROCESS_VARIABLES = {
    # idle OpenMP threads that spin take the processor from the threads that read: on a busy machine of two
    # cores a training step takes several times as long
    "OMP_WAIT_POLICY": "passive",
    "GDAL_HTTP_MAX_RETRY": "4",  # of remote rasters: a busy server is asked again
    "GDAL_HTTP_RETRY_DELAY": "1",  # seconds, growing
    # masks and world files are asked for by name: listing a folder of thousands takes as long as all else
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    # megabytes of decoded blocks that a process keeps, whatever its memory: windows are rarely read twice
    "GDAL_CACHEMAX": "512",
}
"""Environment variables of OpenMP and GDAL, unless the user has set them; child processes inherit them."""


def setup_process() -> None:
    """Set the variables of a process, and suppress messages of rasterio and pyogrio that tell a user nothing.

    Call it before torch is imported and the first raster is opened: OpenMP reads its variable when it is
    loaded, GDAL the size of its cache once.
    """
    for name, value in PROCESS_VARIABLES.items():
        os.environ.setdefault(name, value)
    # rasters without georeference (PNG, JPG, plain TIFF) are welcome, and their maps are written the same way
    # (by the texts of NotGeoreferencedWarning: importing rasterio takes longer than answering a typo)
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    warnings.filterwarnings("ignore", message="The given matrix is equal to Affine.identity")
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # it logs what it raises, too
    logging.getLogger("pyogrio").setLevel(logging.WARNING)  # it logs every batch
