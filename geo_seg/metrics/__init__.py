"""Scores: confusion matrices, boundary IoU, calibration and intervals."""
