"""Metrics: confusion matrices, scores, boundary IoU, bootstrap intervals, calibration and epoch means."""
