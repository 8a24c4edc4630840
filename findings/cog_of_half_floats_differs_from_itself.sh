#!/usr/bin/env bash
# Copies of one raster to a COG of 16-bit floats differ in their bytes, while all pixels are equal.
#
# Versions: rasterio 1.4.4 (its wheel: GDAL 3.10.3), numpy 2.4.6, Python 3.11.
#
# Behaviour: with NBITS=16 and two bands, whose sides are no multiples of the block, the COG driver gives
# a file of other bytes, and of another size, each time. Pixels and overviews are the same to the bit. With
# one band, in 32 bits, on a grid of whole blocks, or with the GTiff driver and the same options, all copies
# are equal.
#
# Output seen (driver, bands, bits, side; different files of 4 copies, different pixels):
#   COG 2 16 700 4 1
#   COG 1 16 700 1 1
#   COG 2 32 700 1 1
#   COG 2 16 1024 1 1
#   GTiff 2 16 700 1 1
#
# Why it matters to users of geo_seg: checksums, rsync and content-addressed stores take such maps
# (probability_type=float16 with several classes, or uncertainty=true) for changed when nothing is. Compare
# their pixels (`gdalinfo -checksum`), or write float32 or uint8, whose bytes are the same every time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet rasterio==1.4.4 numpy==2.4.6 affine==3.0.1
venv/bin/python -W ignore - <<'EOF'
import hashlib
import sys
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.transform import from_origin

OPTIONS = {"COG": {"blocksize": 512}, "GTiff": {"tiled": True, "blockxsize": 512, "blockysize": 512,
                                               "interleave": "pixel"}}
seen = {}
for driver, bands, bits, side in (("COG", 2, 16, 700), ("COG", 1, 16, 700), ("COG", 2, 32, 700),
                                  ("COG", 2, 16, 1024), ("GTiff", 2, 16, 700)):
    pixels = np.random.default_rng(0).random((bands, side, side), dtype=np.float32)
    with rasterio.open("source.tif", "w", driver="GTiff", width=side, height=side, count=bands, dtype="float32",
                       crs="EPSG:32632", transform=from_origin(0, 0, 1, 1)) as file:
        file.write(pixels)
    files, contents = set(), set()
    for number in range(4):
        path = Path(f"copy_{number}.tif")
        rasterio.shutil.copy("source.tif", path, driver=driver, compress="deflate",
                             **OPTIONS[driver], **({"nbits": 16} if bits == 16 else {}))
        files.add(hashlib.sha256(path.read_bytes()).digest())
        with rasterio.open(path) as file:
            read = file.read()
            assert file.count == bands and abs(read - pixels).max() < 0.001
            contents.add(hashlib.sha256(read.tobytes()).digest())
    seen[driver, bands, bits, side] = len(files), len(contents)
    print(driver, bands, bits, side, len(files), len(contents))
varying = {key for key, (files, _) in seen.items() if files > 1}
same_pixels = all(contents == 1 for _, contents in seen.values())
sys.exit(0 if varying == {("COG", 2, 16, 700)} and same_pixels else "the behaviour changed")
EOF
