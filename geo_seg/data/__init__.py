"""From rasters and masks to batches."""
