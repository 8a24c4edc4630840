"""geo_seg: semantic segmentation of satellite and aerial GeoTIFFs, chosen by name."""

__version__ = "0.1.0"
