#!/usr/bin/env bash
# The mask of a float64 band takes in values beside nodata that float64 tells apart with ease.
#
# Versions: rasterio 1.4.4 (its wheel: GDAL 3.10.3), numpy 2.4.6, Python 3.11.
#
# Behaviour: GDAL compares a float64 pixel with nodata up to a relative tolerance of about
# 4.8e-7, four times the epsilon of float32, not of float64. Around -9999 that is an interval of
# .0095, which holds some 5 billion float64 values; around 0 the comparison is exact. rasterio's
# read(masked=True) and read_masks() hand on the same mask.
#
# Output seen (nodata, side, then by the distance from nodata relative to it: masked or not):
#   -9999.0 1 {0: True, 1e-09: True, 4e-07: True, 4.7e-07: True, 4.9e-07: False}
#   -9999.0 -1 {0: True, 1e-09: True, 4e-07: True, 4.7e-07: True, 4.9e-07: False}
#   1000000.0, both sides: the same
#   0.0 [True, False] (pixels 0 and 1e-300)
#
# Why it matters to users of geo_seg: float64 rasters of coordinates, times or indices scaled to a
# range that reaches nodata lose valid pixels at its border, and a mask made by `pixels == nodata`
# isn't the one that GDAL's programs use. Keep nodata far from the data, or NaN in float rasters.
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


def masked(nodata, pixels):
    """Return which pixels of a float64 raster GDAL takes for nodata."""
    profile = dict(driver="GTiff", width=len(pixels), height=1, count=1, dtype="float64", nodata=nodata)
    with rasterio.open("float64.tif", "w", transform=from_origin(0, 1, 1, 1), **profile) as file:
        file.write(np.array([[pixels]]))
    with rasterio.open("float64.tif") as file:
        assert (file.read(1, masked=True).mask == (file.read_masks(1) == 0)).all()
        return (file.read_masks(1)[0] == 0).tolist()


seen = []
steps = [0, 1e-9, 4e-7, 4.7e-7, 4.9e-7]
for nodata in (-9999.0, 1e6):
    for sign in (1, -1):
        seen.append(masked(nodata, [nodata * (1 + sign * step) for step in steps]))
        print(nodata, sign, dict(zip(steps, seen[-1])))
zero = masked(0.0, [0.0, 1e-300])
print(0.0, zero)
ok = seen == [[True, True, True, True, False]] * 4 and zero == [True, False]
sys.exit(0 if ok else "the behaviour changed")
EOF
