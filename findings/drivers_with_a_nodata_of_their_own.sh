#!/usr/bin/env bash
# Raster drivers of fixed nodata take any other without complaint and have their own when read.
#
# Versions: rasterio 1.4.4 (its wheel: GDAL 3.10.3), numpy 2.4.6, Python 3.11.
#
# Behaviour: the formats fix nodata, so the value given to rasterio.open(..., "w", nodata=7) is
# dropped. Surfer's grids (GSBG, GS7BG) have 1.7e38: pixels of 7 become valid. ISIS cubes of uint8
# have 0, and their mask leaves out 255 as well, which no attribute tells (the format's special
# values). An ILWIS map of uint8 is read as int32 with -2147483647. GSAG, Surfer's text
# grid, stands out: it replaces the pixels of 7 by its own nodata, as one would wish. The pixels
# of all the others come back as they were, so nothing looks wrong.
#
# Output seen (pixels [0, 1, 7, 255] written with nodata 7: data type, nodata, mask read):
#   GSBG   float32 1.701410009187828e+38 [255, 255, 255, 255]
#   GS7BG  float64 1.701410009187828e+38 [255, 255, 255, 255]
#   ISIS3  uint8 0.0 [0, 255, 255, 0]
#   ILWIS  int32 -2147483647.0 [255, 255, 255, 255]
#   GSAG   float64 1.70141e+38 [255, 255, 0, 255]
#
# Why it matters to users of geo_seg: elevation models and planetary imagery come in these formats.
# A conversion to one of them turns holes into values, and in an ISIS cube class 0 of a label raster
# into a hole. Read the nodata back after writing, or stay with GeoTIFF.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet rasterio==1.4.4 numpy==2.4.6 affine==3.0.1
venv/bin/python -W ignore - <<'EOF'
import sys

import numpy as np
import rasterio
from rasterio.transform import from_origin

seen = {}
for driver, path, dtype in (
    ("GSBG", "a.grd", "float32"), ("GS7BG", "b.grd", "float64"), ("ISIS3", "c.cub", "uint8"),
    ("ILWIS", "d.mpr", "uint8"), ("GSAG", "e.grd", "float32"),
):
    with rasterio.open(path, "w", driver=driver, width=4, height=2, count=1, dtype=dtype, nodata=7,
                       crs="EPSG:32631", transform=from_origin(500000, 5000000, 10, 10)) as file:
        file.write(np.array([[[0, 1, 7, 255]] * 2], dtype))
    with rasterio.open(path) as file:
        seen[driver] = file.dtypes[0], file.nodata, file.read_masks(1)[0].tolist()
        assert driver == "GSAG" or file.read(1)[0].tolist() == [0, 1, 7, 255]
    print(driver, *seen[driver])
expected = {
    "GSBG": ("float32", 1.701410009187828e38, [255] * 4),
    "GS7BG": ("float64", 1.701410009187828e38, [255] * 4),
    "ISIS3": ("uint8", 0.0, [0, 255, 255, 0]),
    "ILWIS": ("int32", -2147483647.0, [255] * 4),
    "GSAG": ("float64", 1.70141e38, [255, 255, 0, 255]),
}
sys.exit(0 if seen == expected else "the behaviour changed")
EOF
