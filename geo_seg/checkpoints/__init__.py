"""Checkpoints: finding, reading and checking them."""
