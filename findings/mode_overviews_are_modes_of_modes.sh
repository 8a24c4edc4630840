#!/usr/bin/env bash
# Overviews by mode vote level by level, so a class in the minority can win the coarser level.
#
# Versions: rasterio 1.4.4 (its wheel: GDAL 3.10.3), numpy 2.4.6, Python 3.11.
#
# Behaviour: with the levels 2 and 4, the second is made from the first: its pixel is the mode of
# four modes, and what the first level voted down has no say. The level 4 on its own is made from the
# full resolution, and so is a reduced read with resampling=mode of a file without overviews. So the
# same pixels reduced by 4 with the same method depend on which levels were asked for.
#
# Output seen (4 x 4 pixels, 7 of class 2, 6 of class 1, 3 of class 3; the pixel at 1:4):
#   levels [2, 4] 1
#   levels [4] 2
#   no overviews 2
#
# Why it matters to users of geo_seg: what a class map shows at small scale isn't the share of the
# classes; areas must be counted at full resolution, never from a reduced read.
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
from rasterio.enums import Resampling
from rasterio.transform import from_origin

voted_down = [[1, 1], [2, 3]]  # a block of two 1 against one 2
pixels = np.block([[np.array(voted_down), np.array(voted_down)], [np.array(voted_down), np.full((2, 2), 2)]])
assert np.bincount(pixels.ravel()).tolist() == [0, 6, 7, 3]
seen = []
for levels in ([2, 4], [4], []):
    with rasterio.open("classes.tif", "w", driver="GTiff", width=4, height=4, count=1, dtype="uint8",
                       transform=from_origin(0, 4, 1, 1)) as file:
        file.write(pixels[None].astype("uint8"))
    if levels:
        with rasterio.open("classes.tif", "r+") as file:
            file.build_overviews(levels, Resampling.mode)
    with rasterio.open("classes.tif") as file:
        assert file.overviews(1) == levels
        seen.append(int(file.read(1, out_shape=(1, 1), resampling=Resampling.mode)[0, 0]))
    print(f"levels {levels}" if levels else "no overviews", seen[-1])
sys.exit(0 if seen == [1, 2, 2] else "the behaviour changed")
EOF
