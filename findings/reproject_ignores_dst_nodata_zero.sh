#!/usr/bin/env bash
# rasterio.warp.reproject takes dst_nodata=0 for "not given" and writes src_nodata instead.
#
# Versions: rasterio 1.4.4 (its wheel: GDAL 3.10.3), numpy 2.4.6, Python 3.11.
#
# Behaviour: every other value of dst_nodata fills the pixels without data; 0 doesn't. The pixels
# that no source reaches and those that are nodata in the source get src_nodata, without a word.
# WarpedVRT(nodata=0) does it right.
#
# Output seen (a row [1, 2, 255, 5] of nodata 255, warped to a row two pixels longer):
#   dst_nodata 9 [1, 2, 9, 5, 9, 9]
#   dst_nodata 0 [1, 2, 255, 5, 255, 255]
#   WarpedVRT, nodata 0 [1, 2, 0, 5, 0, 0]
#
# Why it matters to users of geo_seg: a label raster of nodata 255 that is warped to the grid of the
# imagery with dst_nodata=0, and written with nodata=0, has valid pixels of class 255 where there
# was nothing: a class too many, or an error for a class that isn't in the legend. Warp labels
# with their own nodata and change it afterwards, or read through a WarpedVRT.
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

source = np.array([[1, 2, 255, 5]], "uint8")
grid = dict(crs="EPSG:32631", transform=from_origin(500000, 5000000, 10, 10))
seen = []
for nodata in (9, 0):
    target = np.full((1, 6), 77, "uint8")
    reproject(
        source, target, src_nodata=255, dst_nodata=nodata, src_crs=grid["crs"], dst_crs=grid["crs"],
        src_transform=grid["transform"], dst_transform=grid["transform"],
    )
    seen.append(target[0].tolist())
    print("dst_nodata", nodata, seen[-1])
with rasterio.open("labels.tif", "w", driver="GTiff", width=4, height=1, count=1, dtype="uint8",
                   nodata=255, **grid) as file:
    file.write(source[None])
with rasterio.open("labels.tif") as file, WarpedVRT(file, nodata=0, width=6, height=1, **grid) as warped:
    seen.append(warped.read(1)[0].tolist())
print("WarpedVRT, nodata 0", seen[-1])
expected = [[1, 2, 9, 5, 9, 9], [1, 2, 255, 5, 255, 255], [1, 2, 0, 5, 0, 0]]
sys.exit(0 if seen == expected else "the behaviour changed")
EOF
