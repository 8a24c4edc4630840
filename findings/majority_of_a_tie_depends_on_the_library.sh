#!/usr/bin/env bash
# The majority class of a polygon is another one in rasterstats and in exactextract where two classes tie.
#
# Versions: rasterstats 0.21.0, exactextract 0.3.0, geopandas 1.2.0, rasterio 1.4.4, numpy 2.4.6, Python 3.11.
#
# Behaviour: of classes with equally many pixels, rasterstats gives the lowest value for "majority" and for
# "minority" alike, so that one class may be both; exactextract gives the largest as majority and the lowest as
# minority. Neither says that it was a tie.
#
# Output seen (a parcel over two pixels of class 1 and two of class 2):
#   rasterstats majority 1 minority 1
#   exactextract majority 2 minority 1
#
# Why it matters to users of geo_seg: a map that is summed up by parcels gives other classes to small parcels,
# where ties are frequent, by the library alone; a comparison of two such tables shows change that isn't there.
# Take the shares of all classes (frac and unique, categorical=True), or the mean of geo_seg's probabilities.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet rasterstats==0.21.0 exactextract==0.3.0 geopandas==1.2.0 rasterio==1.4.4 numpy==2.4.6
venv/bin/python -W ignore - <<'EOF'
import sys

import exactextract
import geopandas
import numpy as np
import rasterio
import rasterstats
from rasterio.transform import from_origin
from shapely.geometry import box

with rasterio.open("map.tif", "w", driver="GTiff", width=4, height=1, count=1, dtype="uint8", nodata=255,
                   crs="EPSG:32631", transform=from_origin(0, 10, 10, 10)) as file:
    file.write(np.array([[[1, 2, 2, 1]]], "uint8"))
parcel = geopandas.GeoDataFrame({"id": [1]}, geometry=[box(0, 0, 40, 10)], crs="EPSG:32631")
stats = ["majority", "minority"]
one = rasterstats.zonal_stats(parcel, "map.tif", stats=stats)[0]
other = exactextract.exact_extract("map.tif", parcel, stats, output="pandas").to_dict("records")[0]
seen = [tuple(int(row[name]) for name in stats) for row in (one, other)]
print("rasterstats majority", seen[0][0], "minority", seen[0][1])
print("exactextract majority", seen[1][0], "minority", seen[1][1])
sys.exit(0 if seen == [(1, 1), (2, 1)] else "the behaviour changed")
EOF
