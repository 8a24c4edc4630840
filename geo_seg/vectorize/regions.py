"""Regions of a class raster: connected pixels of one class, and merging of small ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


def connected_components(count: int, first: Ids, second: Ids) -> Ids:
    """Return the connected components of a graph.

    Args:
        count: number of nodes.
        first: (pairs,) one end of each pair.
        second: (pairs,) the other.

    Returns:
        (count,) numbers of components from 0, in the order of their first nodes.
    """
    root = np.arange(count)
    while len(first):
        low, high = np.minimum(first, second), np.maximum(first, second)
        np.minimum.at(root, high, low)
        while (further := root[root]).tobytes() != root.tobytes():
            root = further
        first, second = root[first], root[second]
        apart = first != second
        first, second = first[apart], second[apart]
    return np.unique(root, return_inverse=True)[1]


def label_regions(values: NDArray[np.integer]) -> tuple[Ids, int]:
    """Label the connected areas of equal values; pixels that touch at a corner only are not connected.

    Args:
        values: (height, width) integers.

    Returns:
        (height, width) numbers from 0, in the order of the areas' first pixels; and how many there are.
    """
    begins = np.ones(values.shape, bool)  # of runs of equal values along rows
    begins[:, 1:] = values[:, 1:] != values[:, :-1]
    runs = (np.cumsum(begins.ravel()) - 1).reshape(values.shape)
    meets = values[1:] == values[:-1]
    once = begins[1:] | begins[:-1]  # two runs meet at one stretch: its first pixel tells of all
    upper, lower = runs[:-1][meets & once], runs[1:][meets & once]
    components = connected_components(int(runs[-1, -1]) + 1, upper, lower)
    return components[runs], int(components.max()) + 1


def border_pairs(labels: Ids) -> tuple[Ids, Ids]:
    """Return both sides of every pixel edge between different labels.

    Args:
        labels: (height, width).
    """
    sides = []
    for before, after in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        differ = before != after
        sides.append((before[differ], after[differ]))
    return np.concatenate([a for a, _ in sides]), np.concatenate([b for _, b in sides])


def shared_lengths(first: Ids, second: Ids, lengths: Ids | None = None) -> tuple[Ids, Ids, Ids]:
    """Sum the border lengths of equal pairs.

    Args:
        first: (n,) one side.
        second: (n,) the other; which is which doesn't matter.
        lengths: (n,) of each, by default 1.

    Returns:
        (pairs,) the lower side, the higher one, and the length that they share.
    """
    # one number for a pair sorts several times faster than two
    keys = (np.minimum(first, second) << 32) | np.maximum(first, second)
    pairs, index = np.unique(keys, return_inverse=True)
    weights = np.ones(len(keys)) if lengths is None else lengths
    total = np.bincount(index, weights, len(pairs)).astype(np.int64)
    return pairs >> 32, pairs & 0xFFFFFFFF, total


@dataclass(frozen=True)
class Neighbours:
    """Pairs of regions with a common border, each pair once.

    Attributes:
        first: (pairs,) one region.
        second: (pairs,) the other.
        lengths: (pairs,) pixel edges between them.
    """

    first: Ids
    second: Ids
    lengths: Ids

    def after_merge(self, parts: Ids) -> "Neighbours":
        """Return the neighbours after regions were merged.

        Args:
            parts: (regions,) what each becomes a part of.
        """
        first, second = parts[self.first], parts[self.second]
        apart = first != second
        return Neighbours(*shared_lengths(first[apart], second[apart], self.lengths[apart]))


def merge_small_regions(classes: Ids, areas: NDArray[np.float64], near: Neighbours, min_area: float) -> Ids:
    """Merge small regions to their neighbours until none is smaller than `min_area`.

    In rounds: every region that is still too small joins the neighbour with which it shares the longest
    border (the lowest class among equals); regions that so come together count as one in the next
    round and have the class of the largest of them.

    Args:
        classes: (regions,) class of each.
        areas: (regions,) of each.
        near: which may be joined; not those that hold no data.
        min_area: area of a region that stays.

    Returns:
        (regions,) for each region the number of the one that it is a part of: the largest in it.
        Small regions without neighbours stay as they are.
    """
    whole = np.arange(len(classes))  # region -> number of the joined region
    leader = whole  # joined region -> its largest original region
    joined, largest = areas, areas  # area of each joined region, and of its leader
    while True:
        small = joined < min_area
        ends = np.concatenate([near.first, near.second]), np.concatenate([near.second, near.first])
        asks = small[ends[0]]
        source, target = ends[0][asks], ends[1][asks]
        if not len(source):
            return leader[whole]
        lengths = np.concatenate([near.lengths, near.lengths])[asks]
        order = np.lexsort((target, classes[leader[target]], -lengths, source))
        best = order[np.unique(source[order], return_index=True)[1]]
        parts = connected_components(len(joined), source[best], target[best])
        order = np.lexsort((np.arange(len(parts)), -largest, parts))
        first = order[np.unique(parts[order], return_index=True)[1]]
        joined = np.bincount(parts, joined).astype(np.float64)
        leader, largest = leader[first], largest[first]
        near = near.after_merge(parts)
        whole = parts[whole]
