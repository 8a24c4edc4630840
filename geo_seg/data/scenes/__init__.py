"""Scenes: their files, splits and labels."""
