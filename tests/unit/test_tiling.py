"""Windows cover everything, and the weights of their overlaps sum to 1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_seg.tiling import STRIDE, Axis, Grid, spread

sizes = st.integers(1, 900)
windows = st.integers(2, 12).map(lambda n: n * STRIDE)


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    window = draw(windows)
    return spread(draw(sizes), window, draw(st.integers(0, window // 2)))


@given(axes())
def test_the_weights_of_all_windows_sum_to_1_at_every_pixel(axis: Axis) -> None:
    total = np.zeros(axis.length)
    for index in range(len(axis)):
        begin, end = axis.inner(index)
        weights = axis.weights(index)
        assert weights.min() >= 0
        total[begin:end] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(axes())
def test_windows_lie_on_the_output_stride_and_hold_their_inner_pixels(axis: Axis) -> None:
    assert all(start % STRIDE == 0 for start in axis.starts)
    assert list(axis.starts) == sorted(set(axis.starts))
    for index, start in enumerate(axis.starts):
        begin, end = axis.inner(index)
        assert start <= begin < end <= min(start + axis.window, axis.length)
    assert axis.length <= axis.starts[-1] + axis.window < axis.length + STRIDE + axis.window


@given(axes())
def test_what_is_finished_gets_nothing_more(axis: Axis) -> None:
    for index in range(len(axis) - 1):
        assert axis.finished(index) <= axis.inner(index + 1)[0]
    assert axis.finished(len(axis) - 1) == axis.length


@given(axes())
def test_seams_keep_away_from_the_edges_of_windows(axis: Axis) -> None:
    for index, seam in enumerate(axis.seams):
        after, before = axis.starts[index + 1], axis.starts[index] + axis.window
        margins = (seam - after, before - (seam + axis.overlap))
        assert min(margins) >= 0
        assert abs(margins[0] - margins[1]) <= 1


@given(sizes, windows, st.data())
def test_there_are_no_more_windows_than_the_overlap_asks_for(
    length: int, window: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, window // 2))
    stride = (window - overlap) // STRIDE * STRIDE
    assert len(spread(length, window, overlap)) == max(0, -(-(length - window) // stride)) + 1


def test_a_grid_gives_every_tile_with_the_part_that_counts() -> None:
    grid = Grid(height=100, width=200, window=96, overlap=16)
    seen = np.zeros((100, 200), int)
    for tile in grid:
        row, col, height, width = tile.inner
        seen[row : row + height, col : col + width] += 1
    assert seen.min() == 1
    assert len(list(grid)) == len(grid) == 6


@pytest.mark.parametrize(("window", "overlap"), [(100, 0), (64, 40), (64, -1), (0, 0)])
def test_numbers_that_dont_fit_are_refused(window: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        spread(500, window, overlap)
