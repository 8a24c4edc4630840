"""Callbacks of the Trainer: checkpoints, weight averaging, loss guard, tables."""
