"""Labels on the grid of their image, from masks and polygons."""
