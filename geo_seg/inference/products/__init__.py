"""Outputs of a map: each product is one file, and everything else iterates over them."""
