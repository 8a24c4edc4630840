"""Class rasters as polygons in a GeoPackage."""
