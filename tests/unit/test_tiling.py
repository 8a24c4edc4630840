"""Windows cover everything, and the weights of their overlaps sum to 1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_seg.tiling import OUTPUT_STRIDE, Axis, BlendSpec, Grid, place_windows

sizes = st.integers(1, 900)
windows = st.integers(2, 12).map(lambda n: n * OUTPUT_STRIDE)


@st.composite
def seams(draw: st.DrawFn, window: int) -> BlendSpec:
    margin = draw(st.integers(0, window // 4))
    overlap = draw(st.integers(0, window // 2 - 2 * margin))
    return BlendSpec(margin, overlap, draw(st.sampled_from(["crop", "linear", "hann"])))


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    window = draw(windows)
    whole = place_windows(draw(sizes), window, draw(seams(window)))
    return draw(st.sampled_from([whole, *whole.split(draw(st.integers(1, 4)))]))


@given(axes())
def test_the_weights_of_all_windows_sum_to_1_at_every_pixel(axis: Axis) -> None:
    total = np.zeros(axis.end)
    for index in range(len(axis)):
        begin, end = axis.inner(index)
        weights = axis.weights(index)
        assert weights.min() >= 0
        total[begin:end] += weights
    np.testing.assert_allclose(total[axis.begin :], 1, atol=1e-6)
    assert not total[: axis.begin].any()


@given(axes())
def test_windows_lie_on_the_output_stride_and_hold_their_inner_pixels(axis: Axis) -> None:
    assert all(start % OUTPUT_STRIDE == 0 for start in axis.starts)
    assert list(axis.starts) == sorted(set(axis.starts))
    for index, start in enumerate(axis.starts):
        begin, end = axis.inner(index)
        assert start <= begin < end <= min(start + axis.window, axis.end)
    assert axis.end <= axis.starts[-1] + axis.window


@given(axes())
def test_what_is_finished_gets_nothing_more(axis: Axis) -> None:
    for index in range(len(axis) - 1):
        assert axis.final_before(index) <= axis.inner(index + 1)[0]
    assert axis.final_before(len(axis) - 1) == axis.end


@given(sizes, windows, st.data())
def test_pixels_in_the_margin_of_a_window_never_count(length: int, window: int, data: st.DataObject) -> None:
    how = data.draw(seams(window))
    axis = place_windows(length, window, how)
    for index, start in enumerate(axis.starts):
        begin, end = axis.inner(index)
        assert begin == 0 or begin - start >= how.margin
        assert end == length or start + axis.window - end >= how.margin


@given(sizes, windows, st.data())
def test_there_are_no_more_and_no_larger_windows_than_it_takes(
    length: int, window: int, data: st.DataObject
) -> None:
    how = data.draw(seams(window))
    axis = place_windows(length, window, how)
    shared = -(-how.shared // OUTPUT_STRIDE) * OUTPUT_STRIDE
    assert len(axis) == max(0, -(-(length - window) // (window - shared))) + 1
    less = axis.window - OUTPUT_STRIDE
    assert len(axis) * (less - shared) + shared < length
    assert axis.starts[-1] + axis.window < length + OUTPUT_STRIDE


@given(axes(), st.integers(1, 4))
def test_pieces_follow_each_other_without_gaps_and_use_every_window_once(axis: Axis, size: int) -> None:
    pieces = axis.split(size)
    assert [start for piece in pieces for start in piece.starts] == list(axis.starts)
    lines = [pieces[0].begin, *(piece.end for piece in pieces)]
    assert (lines[0], lines[-1]) == (axis.begin, axis.end)
    assert lines == sorted(set(lines))
    assert [piece.begin for piece in pieces] == lines[:-1]


def test_a_blend_rises_over_the_overlap_as_it_is_called() -> None:
    def weights(blend: str) -> np.ndarray:
        axis = place_windows(160, 96, BlendSpec(0, 32, blend))
        assert axis.starts == (0, 64)
        assert axis.seams == (80 if blend == "crop" else 64,)
        begin, _ = axis.inner(1)
        return np.concatenate([np.zeros(begin - 64), axis.weights(1)])[:32]

    share = (np.arange(32) + 0.5) / 32
    np.testing.assert_allclose(weights("linear"), share, atol=1e-6)
    np.testing.assert_allclose(weights("hann"), np.sin(np.pi / 2 * share) ** 2, atol=1e-6)
    np.testing.assert_array_equal(weights("crop"), share > 0.5)


@pytest.mark.parametrize(("rows", "cols", "parts"), [(1, 1, 6), (2, 1, 3), (1, 3, 2), (9, 9, 1)])
def test_parts_give_every_tile_once_and_cover_every_pixel_once(rows: int, cols: int, parts: int) -> None:
    grid = Grid.over(height=150, width=210, window=96, seams=BlendSpec(0, 16))
    assert (len(grid.rows), len(grid.cols)) == (2, 3)
    made = grid.split(rows, cols)
    seen = np.zeros((150, 210), int)
    for part in made:
        row, col, height, width = part.area
        seen[row : row + height, col : col + width] += 1
    assert (seen == 1).all()
    assert len(made) == parts
    assert sorted(tile.window for part in made for tile in part) == sorted(tile.window for tile in grid)


def test_a_grid_gives_every_tile_with_the_part_that_counts() -> None:
    grid = Grid.over(height=100, width=200, window=96, seams=BlendSpec(0, 16))
    seen = np.zeros((100, 200), int)
    for tile in grid:
        row, col, height, width = tile.inner
        seen[row : row + height, col : col + width] += 1
    assert seen.min() == 1
    assert len(list(grid)) == len(grid) == 6


@pytest.mark.parametrize(
    ("window", "margin", "overlap"),
    [(100, 0, 0), (64, 0, 40), (64, 0, -1), (64, -1, 9), (64, 16, 8), (0, 0, 0)],
)
def test_numbers_that_dont_fit_are_refused(window: int, margin: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        place_windows(500, window, BlendSpec(margin, overlap))
