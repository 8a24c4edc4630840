#!/usr/bin/env bash
# FlatGeobuf hands features back in another order than they were written, so labels burn otherwise.
#
# Versions: pyogrio 0.13.0 (its wheel: GDAL 3.12.4), shapely 2.2.0, rasterio 1.4.4, numpy 2.4.6,
# Python 3.11.
#
# Behaviour: a FlatGeobuf file has a spatial index unless told otherwise, and its features are
# stored along the index's Hilbert curve. Reading gives them in this order. Where
# polygons overlap, rasterize lets the later one win, so the same labels as FlatGeobuf and as
# GeoPackage give different rasters. SPATIAL_INDEX=NO keeps the order.
#
# Output seen (class as written: 1 a field, 2 a pond inside it, 3 and 4 elsewhere; classes in the
# order read, class burnt in the middle of the pond):
#   labels.gpkg {} [1, 2, 3, 4] 2
#   labels.fgb {} [4, 2, 1, 3] 1
#   labels.fgb {'SPATIAL_INDEX': 'NO'} [1, 2, 3, 4] 2
#
# Why it matters to users of geo_seg: polygons that overlap on purpose (a pond drawn over a field)
# rely on the order. Converted to FlatGeobuf, the pond is gone, without any message. Keep
# such labels in a GeoPackage, write FlatGeobuf without index, or hold the order in a field.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet rasterio==1.4.4 numpy==2.4.6 affine==3.0.1 pyogrio==0.13.0 shapely==2.2.0
venv/bin/python -W ignore - <<'EOF'
import sys

import numpy as np
import pyogrio.raw
import shapely
from rasterio.features import rasterize
from rasterio.transform import from_origin

polygons = [shapely.box(*box) for box in ((0, 0, 10, 10), (8, 8, 9, 9), (0, 0, 5, 5), (100, 100, 101, 101))]
geometry = np.array(shapely.to_wkb(polygons), dtype=object)
seen = []
for path, options in (("labels.gpkg", {}), ("labels.fgb", {}), ("labels.fgb", {"SPATIAL_INDEX": "NO"})):
    pyogrio.raw.write(path, geometry, [np.arange(1, 5)], fields=["class"], geometry_type="Polygon",
                      crs="EPSG:32631", **options)
    _, _, read, (classes,) = pyogrio.raw.read(path)
    burnt = rasterize(zip(shapely.from_wkb(read), classes), out_shape=(10, 10), dtype="uint8",
                      transform=from_origin(0, 10, 1, 1))
    seen.append((classes.tolist(), int(burnt[1, 8])))
    print(path, options, *seen[-1])
expected = [([1, 2, 3, 4], 2), ([4, 2, 1, 3], 1), ([1, 2, 3, 4], 2)]
sys.exit(0 if seen == expected else "the behaviour changed")
EOF
