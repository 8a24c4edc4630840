"""Checkpoints: where they lie, what they hold, and reading them."""
