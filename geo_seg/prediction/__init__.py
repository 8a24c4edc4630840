"""Prediction: windows of a raster through one or more models, blended into rows of classes."""
