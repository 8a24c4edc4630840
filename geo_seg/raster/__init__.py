"""Rasters: reading, writing, grids, bands, validity and sidecar files. No torch in here."""
