#!/usr/bin/env bash
# pystac writes an item of STAC 1.0 as one of 1.1 and leaves its bands where 1.0 had them.
#
# Versions: pystac 1.15.2 (with its pystac-ext-* packages of that day), Python 3.11.
#
# Behaviour: STAC 1.1 merged eo:bands and raster:bands into the common field "bands", and the extensions eo 2.0
# and raster 2.0 dropped theirs. Reading an item of 1.0 and writing it again, also with migrate=True, gives
# stac_version 1.1.0, but the assets keep eo:bands and raster:bands, with the schemas of eo 1.1 and raster 1.1,
# and have no "bands".
#
# Output seen:
#   read 1.0.0, written 1.1.0
#   keys of the asset: eo:bands, href, raster:bands
#   with migrate=True: eo:bands, href, raster:bands
#
# Why it matters to users of geo_seg: a reader that looks for "bands" because the version says 1.1.0 finds neither
# names nor scale and offset, and takes bands by number and reflectance as stored. geo_seg reads both forms whatever
# the version says; check items that went through pystac before handing them to anything else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet pystac==1.15.2
venv/bin/python -W ignore - <<'EOF'
import sys

import pystac

SCHEMAS = "https://stac-extensions.github.io/"
item = {
    "type": "Feature", "stac_version": "1.0.0", "id": "scene", "geometry": None, "links": [],
    "properties": {"datetime": "2026-06-01T00:00:00Z"},
    "stac_extensions": [f"{SCHEMAS}eo/v1.1.0/schema.json", f"{SCHEMAS}raster/v1.1.0/schema.json"],
    "assets": {"B04": {"href": "B04.tif", "eo:bands": [{"name": "B04", "common_name": "red"}],
                       "raster:bands": [{"data_type": "uint16", "nodata": 0, "scale": 1e-4, "offset": -0.1}]}},
}
seen = []
for migrate in (False, True):
    written = pystac.Item.from_dict(item, migrate=migrate).to_dict(include_self_link=False)
    seen.append((written["stac_version"], sorted(written["assets"]["B04"])))
print("read 1.0.0, written", seen[0][0])
print("keys of the asset:", ", ".join(seen[0][1]))
print("with migrate=True:", ", ".join(seen[1][1]))
expected = [("1.1.0", ["eo:bands", "href", "raster:bands"])] * 2
sys.exit(0 if seen == expected else "the behaviour changed")
EOF
