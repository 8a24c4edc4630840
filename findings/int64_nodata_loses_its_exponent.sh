#!/usr/bin/env bash
# A large nodata of an int64 GeoTIFF comes back as its first digit.
#
# Versions: rasterio 1.4.4 (its wheel: GDAL 3.10.3), numpy 2.4.6, Python 3.11.
#
# Behaviour: rasterio hands nodata to GDAL as a double. From 1e17 on the file's nodata tag is written
# with an exponent ("1e+17"), and GDAL reads the tag of an int64 band as an integer, which ends at
# the first letter or point. So 10**17 becomes 1 and the lowest int64 becomes -9: pixels with the
# nodata of the file are valid, and pixels of value 1 are masked. Up to 2**53 all is well; between
# 2**53 and 1e17 the value is rounded to a double.
#
# Output seen (nodata given, nodata read, tag in the file, mask of the pixels [nodata, 1, 5]):
#   1000  1000.0  1000  [0, 255, 255]
#   9007199254740993  9007199254740992.0  9007199254740992  [255, 255, 255]
#   100000000000000000  1.0  1e+17  [255, 0, 255]
#   -9223372036854775808  -9.0  -9.2233720368547758e+18  [255, 255, 255]
# The lowest int64 written out in full, as other programs do, and a copy with the file's own profile:
#   written out in full: -9.223372036854776e+18 [0, 255, 255]
#   copied with its profile: -9.0 [255, 255, 255]
#
# Why it matters to users of geo_seg: rasters of 64-bit identifiers may have the lowest int64 as
# nodata. A clip or copy by rasterio with `profile=source.profile` has none, or masks class 1.
# Store labels as uint8 or uint16 with a nodata that fits, or as int64 with a small nodata.
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

TAG = 42113  # GDAL_NODATA


def tag_of(path):
    """Return the text of the nodata tag of a little-endian classic TIFF."""
    data = open(path, "rb").read()
    number = lambda at, size: int.from_bytes(data[at : at + size], "little")
    directory = number(4, 4)
    for at in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if number(at, 2) == TAG:
            count = number(at + 4, 4)
            start = at + 8 if count <= 4 else number(at + 8, 4)
            return data[start : start + count].rstrip(b"\0").decode()
    return None


seen = []
for nodata in (1000, 2**53 + 1, 10**17, -(2**63)):
    profile = dict(driver="GTiff", width=3, height=1, count=1, dtype="int64", nodata=nodata)
    with rasterio.open("ids.tif", "w", transform=from_origin(0, 1, 1, 1), **profile) as file:
        file.write(np.array([[[nodata, 1, 5]]], "int64"))
    with rasterio.open("ids.tif") as file:
        seen.append((nodata, file.nodata, tag_of("ids.tif"), file.read_masks(1)[0].tolist()))
        assert file.read(1)[0].tolist() == [nodata, 1, 5]  # the pixels themselves are kept
    print(*seen[-1], sep="  ")
full = str(-(2**63)).encode()
data = open("ids.tif", "rb").read()
short = tag_of("ids.tif").encode()
open("full.tif", "wb").write(data.replace(short, full.ljust(len(short), b"\0")))
copies = []
with rasterio.open("full.tif") as file:
    copies.append((file.nodata, file.read_masks(1)[0].tolist()))
    with rasterio.open("copy.tif", "w", **file.profile) as copy:
        copy.write(file.read())
with rasterio.open("copy.tif") as file:
    copies.append((file.nodata, file.read_masks(1)[0].tolist()))
print("written out in full:", *copies[0])
print("copied with its profile:", *copies[1])
expected = [
    (1000, 1000.0, "1000", [0, 255, 255]),
    (2**53 + 1, 2.0**53, "9007199254740992", [255, 255, 255]),
    (10**17, 1.0, "1e+17", [255, 0, 255]),
    (-(2**63), -9.0, "-9.2233720368547758e+18", [255, 255, 255]),
]
same = seen == expected and copies == [(-(2.0**63), [0, 255, 255]), (-9.0, [255, 255, 255])]
sys.exit(0 if same else "the behaviour changed")
EOF
