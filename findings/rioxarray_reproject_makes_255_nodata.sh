#!/usr/bin/env bash
# rioxarray's reproject gives a raster without nodata one of its own choice: the brightest value of its type.
#
# Versions: rioxarray 0.19.0, xarray 2026.9.0, rasterio 1.4.4 (its wheel: GDAL 3.10.3), odc-geo 0.5.3,
# dask 2026.8.0, numpy 2.4.6, Python 3.11.
#
# Behaviour: an 8-bit image that declares no nodata uses all 256 values. After rio.reproject the array
# declares nodata 255 (uint16: 65535, int16: -32768), also where no pixel had to be filled, and writes that
# into the file: every saturated pixel has become "no data". odc-geo fills with 0 and declares nothing: there,
# pixels that no source reaches can't be told from dark ones.
#
# Output seen (one row 1, 255, 2, 255; reprojected to its own grid, then one with an empty column beside it):
#   rioxarray, own grid: [1, 255, 2, 255] nodata 255 valid on disk: 2 of 4
#   rioxarray, wider grid: [1, 255, 2, 255, 255] nodata 255
#   odc-geo, wider grid: [1, 255, 2, 255, 0] nodata None
#
# Why it matters to users of geo_seg: clouds, roofs and sand are saturated in 8-bit orthophotos; geo_seg believes
# the file and leaves nodata pixels out of loss, statistics and maps. Give the data a nodata value that no pixel
# has (rio.write_nodata, or a wider type) before reprojecting, or reproject with an alpha band.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet rioxarray==0.19.0 xarray==2026.9.0 rasterio==1.4.4 numpy==2.4.6 odc-geo==0.5.3 dask==2026.8.0
venv/bin/python -W ignore - <<'EOF'
import sys

import numpy as np
import odc.geo.xr  # noqa: F401 - adds .odc
import rasterio
import rioxarray
from rasterio.transform import from_origin

grid = {"crs": "EPSG:32631", "transform": from_origin(500000, 5000000, 10, 10), "driver": "GTiff", "height": 1}
with rasterio.open("a.tif", "w", width=4, count=1, dtype="uint8", **grid) as file:
    file.write(np.array([[[1, 255, 2, 255]]], "uint8"))
with rasterio.open("wide.tif", "w", width=5, count=1, dtype="uint8", **grid) as file:
    file.write(np.zeros((1, 1, 5), "uint8"))
image, wide = rioxarray.open_rasterio("a.tif"), rioxarray.open_rasterio("wide.tif")
same = image.rio.reproject_match(image)
same.rio.to_raster("same.tif")
with rasterio.open("same.tif") as file:
    valid = int((file.read_masks(1) > 0).sum())
print("rioxarray, own grid:", same.values.ravel().tolist(), "nodata", same.rio.nodata, f"valid on disk: {valid} of 4")
more = image.rio.reproject_match(wide)
print("rioxarray, wider grid:", more.values.ravel().tolist(), "nodata", more.rio.nodata)
other = image.odc.reproject(wide.odc.geobox)
print("odc-geo, wider grid:", other.values.ravel().tolist(), "nodata", other.odc.nodata)
seen = (same.rio.nodata, valid, more.values.ravel().tolist(), other.values.ravel().tolist(), other.odc.nodata)
sys.exit(0 if seen == (255, 2, [1, 255, 2, 255, 255], [1, 255, 2, 255, 0], None) else "the behaviour changed")
EOF
