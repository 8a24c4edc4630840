"""Outlines of labelled pixels as polygons whose neighbours have all vertices of a border in common."""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geo_seg.vectorize.regions import Ids

_RIGHT, _DOWN, _LEFT, _UP = range(4)  # directions, clockwise in an image


def polygonize(labels: Ids, above: Ids | None, below: Ids | None, top: int) -> NDArray[Any]:
    """Return polygons of labelled areas.

    Vertices are where an outline turns and where more than two areas meet; the latter belong to all areas
    there, so that the polygons are a coverage as shapely understands it. Along the upper and lower edge
    they are also where values of the rows beyond change: what lies there has the same vertices.

    Args:
        labels: (height, width) areas from `label`; every number from 0 on is one connected area.
        above: (width,) any numbers that tell the areas in the row above apart, or None at the raster's edge.
        below: (width,) the same of the row below.
        top: row of the raster that the first row of the labels is.

    Returns:
        (areas,) shapely polygons in pixels of the raster, column and row.
    """
    height, width = labels.shape
    framed = np.full((height + 2, width + 2), -1, np.int64)
    framed[1:-1, 1:-1] = labels
    edges, following = _edges(framed)
    place, rings = _walk(following)
    ring_edges = np.empty_like(edges)
    ring_edges[place] = edges
    starts = np.cumsum(rings) - rings
    corner, direction = np.divmod(ring_edges, 4)
    before = np.arange(-1, len(corner) - 1)
    before[starts] = starts + rings - 1
    nodes = _nodes(framed, above, below)
    kept = (direction != direction[before]) | nodes.ravel()[corner]
    counts = np.add.reduceat(kept, starts)
    corner = corner[kept]
    row, col = np.divmod(corner, width + 1)
    owner = labels.ravel()[_own_pixel(ring_edges[starts], width)]
    return _polygons(col, row + top, counts, owner)


def _edges(framed: Ids) -> tuple[Ids, Ids]:
    """Return the pixel edges between different labels, once for each side, as 4 * corner + direction.

    The pixel that an edge belongs to lies on its right, so that outlines run clockwise and holes do not.

    Returns:
        edges: (n,) sorted.
        following: (n,) index of the edge that comes next around the same area.
    """
    width = framed.shape[1]  # of a row of pixels; one more than there are corners in a row
    # flat distances to the pixels around a corner, from the upper left one: right and left of an edge that
    # begins there, by its direction
    right_of, left_of = np.array([width + 1, width, 0, 1]), np.array([1, width + 1, width, 0])
    across, down = framed[:, :-1] != framed[:, 1:], framed[:-1] != framed[1:]
    inside = framed >= 0
    is_edge = np.empty((len(framed) - 1, width - 1, 4), bool)
    is_edge[..., _RIGHT] = down[:, 1:] & inside[1:, 1:]
    is_edge[..., _DOWN] = across[1:] & inside[1:, :-1]
    is_edge[..., _LEFT] = down[:, :-1] & inside[:-1, :-1]
    is_edge[..., _UP] = across[:-1] & inside[:-1, 1:]
    edges = np.flatnonzero(is_edge)
    corner, direction = np.divmod(edges, 4)
    pixels, pixel = framed.ravel(), corner + corner // (width - 1)
    area = pixels[pixel + right_of[direction]]
    steps = np.array([1, width - 1, -1, 1 - width])
    end = corner + steps[direction]
    ahead = end + end // (width - 1)
    # an area that touches itself at a corner goes on to the left: what it encloses there is a hole of it
    turns_left = pixels[ahead + left_of[direction]] == area
    goes_on = pixels[ahead + right_of[direction]] == area
    turn = np.where(turns_left, 3, np.where(goes_on, 0, 1))
    return edges, np.searchsorted(edges, 4 * end + (direction + turn) % 4)


def _walk(following: Ids) -> tuple[Ids, Ids]:
    """Put the members of cycles in order, by doubling the length of steps.

    Args:
        following: (n,) a permutation.

    Returns:
        place: (n,) of each member, cycle after cycle.
        sizes: (cycles,) members of each.
    """
    first = _first_of_cycle(following)
    steps = _steps_to_end(following, first)
    heads, sizes = np.unique(first, return_counts=True)
    begins = np.cumsum(sizes) - sizes
    cycle = np.searchsorted(heads, first)
    # the first member has come from farthest
    return begins[cycle] + (sizes[cycle] - steps) % sizes[cycle], sizes


def _first_of_cycle(following: Ids) -> Ids:
    """Return (n,) the lowest member of the cycle of each."""
    lowest, jump = np.arange(len(following)), following.copy()
    active = np.arange(len(following))
    while len(active):
        lowest_ahead = lowest[jump[active]]
        # two stretches have the same lowest member when they overlap: then they are all of the cycle
        done = lowest[active] == lowest_ahead
        reach, far = np.minimum(lowest[active], lowest_ahead), jump[jump[active]]
        lowest[active], jump[active] = reach, far
        active = active[~done]
    return lowest


def _steps_to_end(following: Ids, first: Ids) -> Ids:
    """Return (n,) steps to the first member of the cycle of each; 0 for itself."""
    n = len(following)
    head = first == np.arange(n)
    steps, jump = np.where(head, 0, 1), np.where(head, np.arange(n), following)
    active = np.flatnonzero(~head[jump])
    while len(active):
        further, far = steps[active] + steps[jump[active]], jump[jump[active]]
        steps[active], jump[active] = further, far
        active = active[~head[far]]
    return steps


def _nodes(framed: Ids, above: Ids | None, below: Ids | None) -> NDArray[np.bool_]:
    """Return (height + 1, width + 1) bool: corners where more than two areas meet."""
    across = framed[:, :-1] != framed[:, 1:]
    down = framed[:-1] != framed[1:]
    nodes = across[:-1].astype(np.int8) + across[1:] + down[:, :-1] + down[:, 1:] > 2
    for edge, beyond in ((0, above), (-1, below)):
        if beyond is not None:
            nodes[edge, 1:-1] |= beyond[:-1] != beyond[1:]
    return nodes


def _own_pixel(edges: Ids, width: int) -> Ids:
    """Return the flat index of the pixel that each edge belongs to."""
    corner, direction = np.divmod(edges, 4)
    row, col = np.divmod(corner, width + 1)
    row = row - (direction >= _LEFT)
    col = col - ((direction == _DOWN) | (direction == _LEFT))
    return row * width + col


def _polygons(col: Ids, row: Ids, counts: Ids, owner: Ids) -> NDArray[Any]:
    """Build polygons from rings: of each owner one outline, then its holes.

    Args:
        col: of all vertices, ring after ring.
        row: likewise.
        counts: (rings,) vertices of each.
        owner: (rings,) area that each belongs to.
    """
    begins = np.cumsum(counts) - counts
    follows = np.arange(1, len(col) + 1)
    follows[begins + counts - 1] = begins
    hole = np.add.reduceat(col * row[follows] - col[follows] * row, begins) < 0
    order = np.lexsort((hole, owner))
    closed = counts[order] + 1
    ends = np.cumsum(closed)
    within = np.arange(ends[-1]) - np.repeat(ends - closed, closed)
    picked = np.repeat(begins[order], closed) + within % np.repeat(counts[order], closed)
    points = np.stack([col[picked], row[picked]], 1).astype(float)
    rings = np.bincount(owner)
    offsets = np.concatenate([[0], ends]), np.concatenate([[0], np.cumsum(rings)])
    return np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, offsets))
