"""Windows over a raster: the grids that they lie on, and the weights that blend their overlaps."""

from typing import NamedTuple


class Window(NamedTuple):
    """A rectangle of pixels.

    Attributes:
        row: first row; negative above the raster.
        col: first column; negative left of the raster.
        height: rows, at least 1.
        width: columns, at least 1.
    """

    row: int
    col: int
    height: int
    width: int
