"""Scenes: discovery of their files, splits, band order and leakage."""
