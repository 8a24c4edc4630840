"""Data doctor: content of a data set, problems to fix before training, suggested options."""
