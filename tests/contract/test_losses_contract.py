"""What every loss promises (DESIGN.md section 4), for every registered loss in every mode that it has."""

import itertools

import pytest
import torch

import losses

CASES = [(name, mode) for name in losses.available() for mode in losses.modes(name)]
IGNORE = [255, -1, -100, 0, None]


def for_losses(cases):
    return pytest.mark.parametrize(("name", "mode"), cases, ids=["-".join(case) for case in cases])


every_loss = for_losses(CASES)


def make(name, mode, ignore_index=255, **options):
    counts = (50, 40, 10) if mode == "multiclass" else (90, 10)
    task = losses.Task(mode, len(counts), ignore_index, class_counts=counts)
    return task, losses.build(name, task, **options)


def draw(task, shape=(3, 10, 12), seed=0, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, task.num_classes, (shape[0], 6, 6), generator=generator)
    labels = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, : shape[1], : shape[2]].clone()
    logits = torch.randn(shape[0], task.channels, *shape[1:], generator=generator) * spread
    return logits, labels


def run(loss, logits, labels):
    """Value and gradient."""
    leaf = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(leaf, labels)
    value.backward()
    return value.detach(), leaf.grad


def assert_equal(actual, expected, tolerance=1e-6):
    torch.testing.assert_close(actual[0], expected[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(actual[1], expected[1], rtol=tolerance, atol=tolerance * 0.1)


def saturated(task, labels, size=40.0):
    """Logits that say what the labels say, very surely."""
    if task.channels == 1:
        return (labels.unsqueeze(1).float() * 2 - 1) * size
    return (torch.nn.functional.one_hot(labels, task.channels).permute(0, 3, 1, 2).float() * 2 - 1) * size


# --- ignored pixels ----------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("ignore_index", [i for i in IGNORE if i is not None])
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_logits_under_ignored_pixels_change_nothing_and_get_no_gradient(name, mode, ignore_index, junk):
    task, loss = make(name, mode, ignore_index)
    logits, labels = draw(task)
    ignored = torch.rand(labels.shape, generator=torch.manual_seed(1)) < 0.3
    labels[ignored] = ignore_index
    ignored = labels == ignore_index  # of a real class all pixels are ignored
    clean = run(loss, logits, labels)
    spoilt = run(loss, logits.masked_fill(ignored.unsqueeze(1), junk), labels)
    assert torch.equal(clean[0], spoilt[0])
    assert torch.equal(clean[1], spoilt[1])
    assert clean[1].abs().amax(1)[ignored].max() == 0
    assert clean[1].abs().max() > 0


@every_loss
def test_a_masked_tile_has_the_loss_of_its_valid_part(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    masked = labels.clone()
    masked[:, 7:] = 255
    masked[:, :, :3] = 255
    value, grad = run(loss, logits, masked)
    part = run(loss, logits[:, :, :7, 3:], labels[:, :7, 3:])
    assert_equal((value, grad[:, :, :7, 3:]), part)


@every_loss
def test_one_valid_pixel_gives_the_loss_of_that_pixel_alone(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    alone = torch.full_like(labels, 255)
    alone[1, 4, 5] = labels[1, 4, 5]
    value, grad = run(loss, logits, alone)
    pixel = run(loss, logits[1:2, :, 4:5, 5:6], labels[1:2, 4:5, 5:6])
    assert_equal((value, grad[1:2, :, 4:5, 5:6]), pixel)


@every_loss
def test_a_batch_without_valid_pixels_gives_exactly_0_and_zero_gradients(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    for spoilt in (logits, torch.full_like(logits, float("nan"))):
        value, grad = run(loss, spoilt, torch.full_like(labels, 255))
        assert value == 0
        assert torch.equal(grad, torch.zeros_like(grad))


@every_loss
def test_a_tile_without_valid_pixels_changes_nothing(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    labels[1] = 255
    value, grad = run(loss, logits, labels)
    assert_equal((value, grad[[0, 2]]), run(loss, logits[[0, 2]], labels[[0, 2]]))


@for_losses([case for case in CASES if "per_image" in losses.options(case[0])])
def test_per_image_losses_leave_tiles_without_valid_pixels_out_of_the_mean(name, mode):
    task, loss = make(name, mode, per_image=True)
    logits, labels = draw(task)
    labels[1] = 255
    value, grad = run(loss, logits, labels)
    assert_equal((value, grad[[0, 2]]), run(loss, logits[[0, 2]], labels[[0, 2]]))


@every_loss
def test_an_empty_batch_gives_0(name, mode):
    task, loss = make(name, mode)
    for shape in ((0, 4, 4), (2, 0, 4)):
        value, _ = run(
            loss, torch.zeros(shape[0], task.channels, *shape[1:]), torch.zeros(shape, dtype=torch.long)
        )
        assert value == 0


@every_loss
@pytest.mark.parametrize("ignore_index", IGNORE)
def test_any_integer_can_be_the_ignored_label(name, mode, ignore_index):
    task, loss = make(name, mode, ignore_index)
    logits, labels = draw(task)
    value, grad = run(loss, logits, labels)
    assert value.isfinite()
    assert (grad.abs().amax(1)[labels == 0].max() == 0) == (ignore_index == 0)


# --- numbers -----------------------------------------------------------------------------------------------


def hard_batches(task):
    """Saturated right and wrong logits, of one class and of all, full, empty, one pixel."""
    _, labels = draw(task)
    lone = torch.full_like(labels, 255)
    lone[1, 4, 5] = task.num_classes - 1
    speck = torch.zeros_like(labels)
    speck[1, 4, 5] = task.num_classes - 1
    masks = [labels, torch.zeros_like(labels), torch.full_like(labels, task.num_classes - 1), lone, speck]
    classes = torch.where(labels == 255, 0, labels)
    for mask in masks:
        for size in (0.0, 1.0, 1e2, 6e4):
            yield saturated(task, classes, size), mask
            yield -saturated(task, classes, size), mask
            yield torch.full_like(saturated(task, classes), size), mask


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_and_gradients_are_finite_for_saturated_empty_full_and_one_pixel_masks(name, mode, dtype):
    task, loss = make(name, mode)
    for logits, labels in hard_batches(task):
        value, grad = run(loss, logits.to(dtype), labels)
        assert value.isfinite()
        assert grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(name, mode, dtype):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    rounded = logits.to(dtype)
    value, grad = run(loss, rounded, labels)
    exact, exact_grad = run(loss, rounded.float(), labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)
    assert grad.dtype == dtype
    assert torch.equal(grad, exact_grad.to(dtype))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(name, mode, dtype):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    with torch.autocast("cpu", dtype=dtype):
        inside = run(loss, logits, labels)
    outside = run(loss, logits, labels)
    assert torch.equal(inside[0], outside[0])
    assert torch.equal(inside[1], outside[1])


@every_loss
def test_the_gradient_of_half_precision_logits_survives_a_loss_scale(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task, shape=(3, 12, 12))
    leaf = logits.half().requires_grad_()
    (loss(leaf, labels) * 1024).backward()
    exact = logits.half().float().requires_grad_()
    loss(exact, labels).backward()
    torch.testing.assert_close(leaf.grad.float() / 1024, exact.grad, rtol=1e-3, atol=1e-7)


@every_loss
def test_the_gradient_scales_with_what_comes_after_and_can_be_asked_twice(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    _, grad = run(loss, logits, labels)
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, labels) * 3
    value.backward(retain_graph=True)
    value.backward()
    torch.testing.assert_close(leaf.grad, grad * 6)


@every_loss
def test_a_perfect_prediction_gives_0(name, mode):
    task, loss = make(name, mode)
    _, labels = draw(task)
    absent = torch.where(labels == 1, 0, labels)
    for mask in (labels, absent, torch.zeros_like(labels), torch.full_like(labels, task.num_classes - 1)):
        value, _ = run(loss, saturated(task, mask), mask)
        assert value.abs() < 1e-6


@every_loss
def test_a_step_down_the_gradient_lowers_the_loss(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task, seed=4)
    value, grad = run(loss, logits.double(), labels)
    after, _ = run(loss, logits.double() - 1e-4 * grad / grad.norm(), labels)
    assert after < value


BOUNDARY_LOSSES = ("boundary", "duo")  # a tile of one class has none to miss, and repeating a tile adds some
PIXEL_LOSSES = [case for case in CASES if case[0] not in BOUNDARY_LOSSES]


@for_losses(PIXEL_LOSSES)
def test_a_wrong_prediction_of_a_tile_without_foreground_costs_something(name, mode):
    task, loss = make(name, mode)
    _, labels = draw(task)
    empty = torch.zeros_like(labels)
    logits = -0.5 * saturated(task, empty, 2.0) + 0.1 * draw(task)[0]
    value, grad = run(loss, logits, empty)
    assert value > 0.1
    assert (grad[:, -1] >= 0).all()
    assert grad.abs().max() > 0


SOFTMAX = [name for name in losses.available("multiclass") if name not in ("focal", "compound")]


@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax_losses_dont_change_when_a_constant_is_added_to_the_logits_of_a_pixel(name):
    task, loss = make(name, "multiclass")
    logits, labels = draw(task)
    shift = torch.randn(3, 1, 10, 12, generator=torch.manual_seed(2)) * 4
    plain, shifted = run(loss, logits.double(), labels), run(loss, logits.double() + shift, labels)
    assert_equal(plain, shifted)
    torch.testing.assert_close(plain[1].sum(1), torch.zeros(3, 10, 12).double(), rtol=0, atol=1e-12)


@every_loss
def test_the_order_of_a_batch_changes_nothing(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    labels[0, :3] = 255
    order = [2, 0, 1]
    value, grad = run(loss, logits, labels)
    assert_equal((value, grad[order]), run(loss, logits[order], labels[order]))


@for_losses(PIXEL_LOSSES)
def test_repeating_the_content_changes_nothing(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    value, grad = run(loss, logits.double(), labels)
    twice, grad_twice = run(loss, logits.double().repeat(2, 1, 1, 1), labels.repeat(2, 1, 1))
    torch.testing.assert_close(value, twice)
    if name != "lovasz":  # equal errors share their steps in any order
        torch.testing.assert_close(grad, 2 * grad_twice[:3])


# --- inputs ------------------------------------------------------------------------------------------------


@every_loss
def test_label_dtypes_and_a_channel_of_one_make_no_difference(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    plain = run(loss, logits, labels)
    dtypes = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16]
    for dtype in [*dtypes, *([torch.bool] if mode == "binary" else [])]:
        converted = run(loss, logits, labels.to(dtype).unsqueeze(1))
        assert torch.equal(plain[0], converted[0])
        assert torch.equal(plain[1], converted[1])


@every_loss
def test_strides_make_no_difference_and_inputs_stay_as_they_are(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    labels[0, :3] = 255
    plain = run(loss, logits, labels)
    last = logits.contiguous(memory_format=torch.channels_last)
    turned, turned_labels = logits.transpose(2, 3).contiguous().transpose(2, 3), labels.mT.contiguous().mT
    sliced = torch.stack([logits, logits], -1)[..., 0]
    for strange, mask in itertools.product((last, turned, sliced), (labels, turned_labels)):
        before, mask_before = strange.clone(), mask.clone()
        assert_equal(run(loss, strange, mask), plain)
        assert torch.equal(strange, before)
        assert torch.equal(mask, mask_before)


@every_loss
def test_without_a_gradient_to_compute_the_value_is_the_same(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    value, _ = run(loss, logits, labels)
    assert torch.equal(loss(logits, labels), value)
    with torch.no_grad():
        quiet = loss(logits.clone().requires_grad_(), labels)
    assert torch.equal(quiet, value)
    assert not quiet.requires_grad


@every_loss
def test_inputs_that_dont_fit_are_errors_that_say_what_was_expected(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    high = labels.clone()
    high[0, 0, 0] = task.num_classes
    low = labels.clone()
    low[2, 3, 4] = -3
    last = task.num_classes - 1
    wrong = [
        (logits[:, 0], labels, rf"logits must be \(N, {task.channels}, H, W\).* got \(3, 10, 12\)"),
        (logits.repeat(1, 2, 1, 1), labels, rf"logits must be \(N, {task.channels}, H, W\)"),
        (logits.long(), labels, "logits must be .*float.* got .*int64"),
        (logits, labels.mT, r"labels must be \(3, 10, 12\), got \(3, 12, 10\)"),
        (logits, labels[:2], r"labels must be \(3, 10, 12\), got \(2, 10, 12\)"),
        (logits, labels.float(), "labels must be integers.* got torch.float32"),
        (logits, high, rf"labels must be 0 to {last} or ignore_index, found \[{task.num_classes}\]"),
        (logits, low, rf"labels must be 0 to {last} or ignore_index, found \[-3\]"),
    ]
    if mode == "multiclass":
        wrong.append((logits, labels > 0, "labels must be integers.* got torch.bool"))
    for bad_logits, bad_labels, message in wrong:
        with pytest.raises(ValueError, match=message) as caught:
            loss(bad_logits, bad_labels)
        assert "\n" not in str(caught.value)


@every_loss
def test_class_weights_are_used_from_a_buffer_or_refused(name, mode):
    plain, loss = make(name, mode)
    weights = [1.0, 3.0, 0.5][: plain.num_classes]
    task = losses.Task(mode, plain.num_classes, class_weights=weights, class_counts=plain.class_counts)
    logits, labels = draw(task)
    try:
        weighted = losses.build(name, task)
    except ValueError as error:
        assert name in str(error)
        assert "weight" in str(error)
        return
    buffers = [b for b in weighted.state_dict().values() if b.tolist() == weights]
    assert buffers
    assert not torch.equal(weighted(logits, labels), loss(logits, labels))
    moved = losses.build(name, task).to("meta")
    assert all(b.device.type == "meta" for b in moved.buffers())
    reloaded = losses.build(name, task)
    reloaded.load_state_dict(weighted.state_dict())
    assert torch.equal(reloaded(logits, labels), weighted(logits, labels))


@every_loss
def test_one_tensor_of_the_size_of_the_logits_is_kept_for_backward(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    labels[0, :3] = 255
    saved = []
    leaf = logits.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        loss(leaf, labels)
    assert sum(t.numel() for t in saved) <= logits.numel() + 16


@every_loss
def test_deterministic_algorithms_and_inference_mode_change_nothing(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    labels[0, :3] = 255
    expected = run(loss, logits, labels)
    torch.use_deterministic_algorithms(True)
    try:
        assert_equal(run(loss, logits, labels), expected, 0.0)
    finally:
        torch.use_deterministic_algorithms(False)
    with torch.inference_mode():
        assert torch.equal(loss(logits.clone(), labels.clone()), expected[0])


@every_loss
def test_it_compiles_into_one_graph(name, mode):
    task, loss = make(name, mode)
    logits, labels = draw(task)
    labels[0, :3] = 255
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_equal(run(compiled, logits, labels), run(loss, logits, labels))
