#!/usr/bin/env bash
# rasterio.warp.transform raises for a whole array when one of its points has no place in a CRS.
#
# Versions: rasterio 1.4.4 (its wheel: GDAL 3.10.3), pyproj 3.7.2, numpy 2.4.6, Python 3.11.
#
# Behaviour: one corner of a global map in Mollweide, or of a full disk of a geostationary
# satellite, lies outside the Earth, and the coordinates of all other points are lost with it. pyproj
# gives inf for this point and the right place for the rest. The exception is CPLE_AppDefinedError
# of the private module rasterio._err, which isn't a RasterioError, nor an error of rasterio.errors.
#
# Output seen (the centre and a corner, to EPSG:4326; rasterio's error and whether it is a
# RasterioError, pyproj's longitudes):
#   Mollweide ('CPLE_AppDefinedError', False) [0.0, inf]
#   geostationary ('CPLE_AppDefinedError', False) [0.0, inf]
#
# Why it matters to users of geo_seg: footprints and label polygons are moved between CRSs point by
# point; with rasterio's function one vertex off the Earth takes a whole scene away, and an
# `except RasterioError` doesn't see it. Use pyproj and drop the points that are inf.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet rasterio==1.4.4 numpy==2.4.6 affine==3.0.1 pyproj==3.7.2
venv/bin/python -W ignore - <<'EOF'
import sys

import pyproj
from rasterio.errors import RasterioError
from rasterio.warp import transform

seen = []
for name, crs, corner in (
    ("Mollweide", "+proj=moll +datum=WGS84", (1.79e7, 8.9e6)),
    ("geostationary", "+proj=geos +h=35785831 +datum=WGS84", (5.4e6, 5.4e6)),
):
    xs, ys = (0.0, corner[0]), (0.0, corner[1])
    longitudes, _ = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(xs, ys)
    assert transform(crs, "EPSG:4326", [0.0], [0.0])[0] == [0.0]  # the centre alone is no trouble
    try:
        answer = transform(crs, "EPSG:4326", xs, ys)
    except Exception as error:
        answer = type(error).__name__, isinstance(error, RasterioError)
    seen.append((answer, list(longitudes)))
    print(name, *seen[-1])
expected = [(("CPLE_AppDefinedError", False), [0.0, float("inf")])] * 2
sys.exit(0 if seen == expected else "the behaviour changed")
EOF
