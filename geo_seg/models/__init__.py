"""Models by name, their layers and their weights."""
