"""geo_seg: semantic segmentation of satellite and aerial GeoTIFFs, chosen by name."""

import os

__version__ = "0.1.0"

# idle OpenMP threads that spin take the processor from the threads that read: on a busy machine of two cores
# a training step takes several times as long; to be set before torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
