"""Sweeps: launching many runs, searching hyperparameters, comparing results."""
