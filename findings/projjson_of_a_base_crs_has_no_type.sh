#!/usr/bin/env bash
# The base of a projected CRS, taken out of its PROJJSON, is a CRS with one wheel of rasterio and none with another.
#
# Versions: rasterio 1.4.3 (its wheel: GDAL 3.9.3, PROJ 9.4.1) and rasterio 1.4.4 (GDAL 3.10.3, PROJ 9.7.1),
# numpy 2.4.6, Python 3.11.
#
# Behaviour: CRS.to_dict(projjson=True) says "type": "GeographicCRS" in the base_crs of a projected CRS with
# PROJ 9.7. With PROJ 9.4 the member is missing, which the format allows (the place says what it is), and
# CRS.from_dict() of that base raises a CRSError. Adding the type makes it the same CRS again.
#
# Output seen (rasterio, PROJ, members of base_crs but its parts, from_dict of it, from_dict with the type):
#   1.4.3 9.4.1 ['name'] CRSError EPSG:4326
#   1.4.4 9.7.1 ['name', 'type'] EPSG:4326 EPSG:4326
#
# Why it matters to users of geo_seg: a patch release of rasterio decides what `base_crs["type"]` gives. Code
# that asks it in order to find the ellipsoid takes a CRS on the earth for a plane without a word: areas are
# then those of the projection, up to 0.1 % off in UTM and by a factor of 4 in web Mercator at 60 degrees.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
for version in 1.4.3 1.4.4; do
  venv/bin/python -m pip install --quiet "rasterio==$version" numpy==2.4.6 affine==2.4.0
  venv/bin/python -W ignore - <<'EOF'
import sys

import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError

base = CRS.from_epsg(32633).to_dict(projjson=True)["base_crs"]
texts = sorted(name for name, value in base.items() if isinstance(value, str))
try:
    alone = CRS.from_dict(base).to_string()
except CRSError as error:
    alone = type(error).__name__
typed = CRS.from_dict({"type": "GeographicCRS", **base}).to_string()
print(rasterio.__version__, rasterio.__proj_version__, texts, alone, typed)
expected = {
    "1.4.3": ("9.4.1", ["name"], "CRSError", "EPSG:4326"),
    "1.4.4": ("9.7.1", ["name", "type"], "EPSG:4326", "EPSG:4326"),
}
seen = rasterio.__proj_version__, texts, alone, typed
sys.exit(0 if seen == expected[rasterio.__version__] else "the behaviour changed")
EOF
done
