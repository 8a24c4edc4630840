"""Reductions, sort keys, window maxima and Lovász steps against naive forms of a few lines, in float64."""

import pytest
import torch

from losses.kernels.reductions import safe_divide, sum_by_label, to_double
from losses.kernels.sort_keys import sortable_int_keys
from losses.kernels.window_max import WindowArgmax, windowed_max
from losses.lovasz_loss import binned_steps, lovasz_steps
from tests.contract.loss_oracles import lovasz_of

F64 = torch.float64


# --- reductions and sort keys ------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [0, 1, 3])
@pytest.mark.parametrize("on_host", [True, False], ids=["scatter", "one_hot"])
def test_sum_by_label_is_a_loop_over_images_and_classes(images, on_host, monkeypatch):
    monkeypatch.setattr("losses.kernels.reductions.can_sync", lambda values: on_host)
    labels = torch.randint(0, 4, (images, 5, 6), generator=torch.Generator().manual_seed(0))
    values = torch.randn(labels.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    expected = torch.zeros(images, 4, dtype=F64)
    for n in range(images):
        for c in range(4):
            expected[n, c] = values[n][labels[n] == c].sum()
    torch.testing.assert_close(sum_by_label(values, labels, 4), expected)


def test_safe_divide_is_a_division_and_0_where_the_denominator_is_0():
    numerator = torch.tensor([1.0, 2.0, 0.0, -3.0])
    denominator = torch.tensor([4.0, 0.0, 0.0, -2.0])
    expected = [n / d if d else 0.0 for n, d in zip(numerator.tolist(), denominator.tolist(), strict=True)]
    assert safe_divide(numerator, denominator).tolist() == expected
    assert to_double(numerator).dtype == F64


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_sortable_int_keys_have_the_order_of_the_numbers(dtype):
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.rand(200, generator=generator, dtype=dtype), torch.tensor([0.0, 1e-30, 3e30])])
    values = values.to(dtype)[torch.randperm(203, generator=generator)]
    keys = sortable_int_keys(values)
    assert torch.equal(values[keys.argsort()], values.sort().values)
    assert keys.min() >= 0
    assert keys.max().item() < 1 << 31


# --- windows -----------------------------------------------------------------------------------------------


def naive_window(values, valid, size, largest):
    """The extreme valid value of the window around every pixel; NaN without a valid pixel."""
    height, width = values.shape
    radius, out = size // 2, torch.full_like(values, float("nan"))
    for i in range(height):
        for j in range(width):
            window = (slice(max(i - radius, 0), i + radius + 1), slice(max(j - radius, 0), j + radius + 1))
            inside = values[window][valid[window]]
            if len(inside):
                out[i, j] = inside.max() if largest else inside.min()
    return out


SIZES = pytest.mark.parametrize("size", [1, 3, 5, 7, 31, 33])


@SIZES
def test_windowed_max_is_the_largest_value_of_every_window(size):
    values = torch.randint(0, 1000, (9, 40), generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(values, dtype=torch.bool)
    expected = naive_window(values.double(), valid, size, largest=True)
    assert torch.equal(windowed_max(values, size, -1).double(), expected)


@SIZES
@pytest.mark.parametrize("largest", [True, False], ids=["largest", "smallest"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("ignored", [0.0, 0.3], ids=["all_valid", "ignored"])
def test_window_argmax_decodes_to_the_pixel_of_the_extreme(size, largest, dtype, ignored):
    generator = torch.Generator().manual_seed(0)
    values = (torch.randperm(1000, generator=generator)[: 2 * 9 * 40] / 1000).to(dtype).view(1, 2, 9, 40)
    valid = torch.rand(1, 9, 40, generator=generator) >= ignored
    windows = WindowArgmax(values, size)
    index = windows.decode_index(
        windows.extreme_keys(values, valid if ignored else None, largest=largest)
    ).long()
    assert 0 <= index.min() <= index.max() < 9 * 40
    for channel in range(2):
        expected = naive_window(values[0, channel], valid[0], size, largest)
        extremes = values[0, channel].flatten()[index[0, channel]]
        decided = ~expected.isnan()
        assert torch.equal(extremes[decided], expected[decided])


# --- the steps of the Lovász extension ---------------------------------------------------------------------


def naive_rows(rows=3, size=25, seed=0):
    """Distinct errors (R, P), so that their order is unique, and targets: one row without any."""
    generator = torch.Generator().manual_seed(seed)
    errors = (torch.randperm(1000, generator=generator)[: rows * size].to(F64) + 1) / 1001
    target = torch.rand(rows, size, generator=generator) < 0.4
    target[0] = False
    return errors.view(rows, size).requires_grad_(), target


def naive_steps(errors, target):
    """The derivative of the extension by the errors, from its definition."""
    value = sum(lovasz_of(row, mask) for row, mask in zip(errors, target, strict=True))
    return torch.autograd.grad(value, errors)[0]


def test_lovasz_steps_are_the_derivative_of_the_extension():
    errors, target = naive_rows()
    torch.testing.assert_close(lovasz_steps(errors.detach(), target), naive_steps(errors, target))


def test_binned_steps_are_the_same_where_every_bin_holds_one_pixel():
    errors, target = naive_rows()
    torch.testing.assert_close(
        binned_steps(errors.detach(), target.to(F64), 1001), naive_steps(errors, target)
    )
