"""Engines: who predicts the parts of maps."""
