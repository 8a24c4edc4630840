#!/usr/bin/env bash
# rasterio.features.shapes takes float64 arrays, and polygonizes them in float32: ids beyond 2**24 flow together.
#
# Versions: rasterio 1.4.4 (its wheel: GDAL 3.10.3), numpy 2.4.6, Python 3.11.
#
# Behaviour: of the types that it lists, float64 is one; its values are rounded to float32 before regions are
# sought. Two neighbouring regions with ids 16777217 and 16777218 become one polygon with an id that is neither's
# for sure. int32 keeps them apart; int64, uint32 and uint64 are refused, which is why ids get cast to float64.
#
# Output seen (two regions side by side, ids 16777217 and 16777218):
#   int32   2 polygons: 16777217, 16777218
#   float64 1 polygon: 16777218
#   int64   refused
#
# Why it matters to users of geo_seg: parcels, buildings and connected components of a country have ids of that
# size. Polygonize int32, or let geo_seg do it (polygons=true), whose regions are counted in int64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet rasterio==1.4.4 numpy==2.4.6
venv/bin/python -W ignore - <<'EOF'
import sys

import numpy as np
from rasterio.features import shapes

ids = np.array([[2**24 + 1, 2**24 + 2]])
seen = {}
for dtype in ("int32", "float64", "int64"):
    try:
        values = sorted(int(value) for _, value in shapes(ids.astype(dtype)))
        seen[dtype] = values
        print(f"{dtype:7} {len(values)} polygon(s): {', '.join(map(str, values))}")
    except ValueError:
        seen[dtype] = "refused"
        print(f"{dtype:7} refused")
expected = seen["int32"] == [2**24 + 1, 2**24 + 2] and len(seen["float64"]) == 1 and seen["int64"] == "refused"
sys.exit(0 if expected else "the behaviour changed")
EOF
