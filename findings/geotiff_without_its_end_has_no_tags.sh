#!/usr/bin/env bash
# A GeoTIFF that lost its last bytes opens and reads every pixel right; only its tags are gone.
#
# Versions: rasterio 1.4.4 (its wheel: GDAL 3.10.3), numpy 2.4.6, Python 3.11.
#
# Behaviour: tags and band names that are set after the pixels were written go to the end of the
# file, behind the pixels. A copy that lacks 20 bytes there opens, has its grid and nodata, and
# all its pixels are right: GDAL drops the tag that it can't read whole and logs a warning, which
# nobody sees who hasn't set up logging. Set before the first pixel, the tags lie in front, and
# the same loss raises on reading.
#
# Output seen (when the tags were set: tags, band name, pixels of the file less 20 bytes):
#   after the pixels: {} None right
#   before the pixels: {'legend': 'water,forest'} class RasterioIOError
#
# Why it matters to users of geo_seg: "it opens and all pixels are read" doesn't prove that a copy or
# a download is whole; class names and scales can be missing all the same. Compare sizes or checksums.
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
from rasterio.errors import RasterioIOError
from rasterio.transform import from_origin

pixels = np.arange(64 * 64, dtype="uint8").reshape(1, 64, 64)


def name(file):
    """Set the tags."""
    file.update_tags(legend="water,forest")
    file.set_band_description(1, "class")


def cut(first):
    """Return the tags, band name and pixels of a file that lost its last 20 bytes."""
    with rasterio.open("whole.tif", "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8",
                       nodata=255, crs="EPSG:32631", transform=from_origin(0, 64, 1, 1)) as file:
        if first:
            name(file)
        file.write(pixels)
        if not first:
            name(file)
    with rasterio.open("whole.tif") as file:
        assert file.tags()["legend"] == "water,forest" and file.descriptions == ("class",)
    open("cut.tif", "wb").write(open("whole.tif", "rb").read()[:-20])
    with rasterio.open("cut.tif") as file:
        assert file.nodata == 255 and file.crs.to_epsg() == 32631
        try:
            read = "right" if (file.read() == pixels).all() else "wrong"
        except RasterioIOError as error:
            read = type(error).__name__
        tags = {key: value for key, value in file.tags().items() if key != "AREA_OR_POINT"}
        return tags, file.descriptions[0], read


seen = [cut(first=False), cut(first=True)]
print("after the pixels:", *seen[0])
print("before the pixels:", *seen[1])
expected = [({}, None, "right"), ({"legend": "water,forest"}, "class", "RasterioIOError")]
sys.exit(0 if seen == expected else "the behaviour changed")
EOF
