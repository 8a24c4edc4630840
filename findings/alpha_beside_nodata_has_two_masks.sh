#!/usr/bin/env bash
# Whether an alpha band counts depends on nodata, on the data type and on the function asked.
#
# Versions: rasterio 1.4.4 (its wheel: GDAL 3.10.3), numpy 2.4.6, Python 3.11.
#
# Behaviour: for RGB + alpha, read_masks() of a data band follows alpha in uint8 and uint16,
# as long as no nodata is declared. With a nodata it follows nodata alone, and in float32 it never
# looks at alpha. dataset_mask() of the same files answers otherwise: with a nodata it follows alpha
# alone, in float32 too, although the warning that rasterio gives says that nodata decides.
#
# Output seen (alpha is [0, full, 0, full], the colours [1, 0, 1, 1]; data type, nodata, mask of
# band 1, dataset_mask; uint16 is as uint8):
#   uint8 None [0, 255, 0, 255] [0, 255, 0, 255]
#   uint8 0 [255, 0, 255, 255] [0, 255, 0, 255]
#   float32 None [255, 255, 255, 255] [255, 255, 255, 255]
#   float32 0 [255, 0, 255, 255] [0, 255, 0, 255]
#
# Why it matters to users of geo_seg: orthophotos carry alpha, and adding a nodata to them (or
# converting them to float32) makes all that alpha hid valid again for whoever asks the bands. Keep
# one way of saying what is valid: alpha without a nodata in an integer type, or a nodata alone.
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
for dtype, full in (("uint8", 255), ("uint16", 65535), ("float32", 1)):
    for nodata in (None, 0):
        pixels = np.ones((4, 1, 4), dtype)
        pixels[:3, 0, 1] = 0
        pixels[3] = [[0, full, 0, full]]
        with rasterio.open("rgba.tif", "w", driver="GTiff", width=4, height=1, count=4, dtype=dtype,
                           nodata=nodata, photometric="RGB", alpha="YES",
                           transform=from_origin(0, 1, 1, 1)) as file:
            file.write(pixels)
        with rasterio.open("rgba.tif") as file:
            assert file.colorinterp[3].name == "alpha"
            seen[dtype, nodata] = file.read_masks(1)[0].tolist(), file.dataset_mask()[0].tolist()
        print(dtype, nodata, *seen[dtype, nodata])
alpha, colours, everything = [0, 255, 0, 255], [255, 0, 255, 255], [255] * 4
expected = {
    ("uint8", None): (alpha, alpha), ("uint8", 0): (colours, alpha),
    ("uint16", None): (alpha, alpha), ("uint16", 0): (colours, alpha),
    ("float32", None): (everything, everything), ("float32", 0): (colours, alpha),
}
sys.exit(0 if seen == expected else "the behaviour changed")
EOF
