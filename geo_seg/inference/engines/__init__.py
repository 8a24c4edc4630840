"""Engines: distribution of the parts of maps over processes."""
