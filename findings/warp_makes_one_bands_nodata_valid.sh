#!/usr/bin/env bash
# A warp to another nodata turns a band's nodata into a valid value where another band has data.
#
# Versions: rasterio 1.4.4 (its wheel: GDAL 3.10.3), numpy 2.4.6, Python 3.11.
#
# Behaviour: rasterio warps the bands of a raster as one: a pixel is nodata only where ALL bands
# hold nodata. Where one band does and another doesn't, the old nodata value is copied as if it
# were data, beside the new nodata: the hole becomes valid. One band at a time, or with the
# warp option UNIFIED_SRC_NODATA=NO, each band's holes are holes again. WarpedVRT does the same.
#
# Output seen (two bands of nodata 0, [0, 5, 0] and [7, 7, 0], warped to nodata 255):
#   together [[0, 5, 255], [7, 7, 255]]
#   WarpedVRT [[0, 5, 255], [7, 7, 255]]
#   band by band [[255, 5, 255], [7, 7, 255]]
#   UNIFIED_SRC_NODATA=NO [[255, 5, 255], [7, 7, 255]]
#
# Why it matters to users of geo_seg: dead lines and saturated pixels of single bands are nodata in
# the imagery of most sensors. After a warp with a new nodata they are dark pixels that no mask
# knows of. Keep the nodata value in a warp (dst_nodata = src_nodata), or pass the option.
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
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject

grid = dict(crs="EPSG:32631", transform=from_origin(500000, 5000000, 10, 10))
with rasterio.open("bands.tif", "w", driver="GTiff", width=3, height=1, count=2, dtype="uint8",
                   nodata=0, **grid) as file:
    file.write(np.array([[[0, 5, 0]], [[7, 7, 0]]], "uint8"))


def warped(file, bands, **options):
    """Return these bands warped to their own grid with nodata 255."""
    target = np.full((len(bands), 1, 3), 99, "uint8")
    reproject(rasterio.band(file, bands), target, dst_crs=grid["crs"], dst_transform=grid["transform"],
              dst_nodata=255, **options)
    return target[:, 0].tolist()


with rasterio.open("bands.tif") as file:
    with WarpedVRT(file, nodata=255) as view:
        vrt = view.read()[:, 0].tolist()
    seen = {
        "together": warped(file, [1, 2]),
        "WarpedVRT": vrt,
        "band by band": warped(file, [1]) + warped(file, [2]),
        "UNIFIED_SRC_NODATA=NO": warped(file, [1, 2], UNIFIED_SRC_NODATA="NO"),
    }
for name, pixels in seen.items():
    print(name, pixels)
joined, apart = [[0, 5, 255], [7, 7, 255]], [[255, 5, 255], [7, 7, 255]]
sys.exit(0 if list(seen.values()) == [joined, joined, apart, apart] else "the behaviour changed")
EOF
