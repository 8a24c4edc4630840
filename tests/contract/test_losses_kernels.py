"""Fused kernels of `losses.kernels` against naive forms of a few lines, in float64, with ignored pixels."""

import pytest
import torch

from losses.errors import LossError
from losses.kernels.autograd import attach_gradient
from losses.kernels.batch import LossInputs, two_class_grad_
from losses.kernels.soft_confusion import soft_confusion, soft_confusion_grad
from losses.kernels.validation import validate_batch, validate_range

F64 = torch.float64
SHAPE = (2, 5, 6)
every_task = pytest.mark.parametrize(
    ("num_classes", "binary"), [(2, True), (2, False), (4, False)], ids=["binary", "two", "multiclass"]
)
multiclass_tasks = pytest.mark.parametrize("num_classes", [2, 4])
every_mask = pytest.mark.parametrize("ignored", [0.0, 0.3], ids=["all_valid", "ignored"])


class Naive:
    """The same batch with one-hot labels, masks and autograd: what the kernels compute without them.

    Attributes:
        z: (N, C, H, W) logits, a leaf.
        labels: (N, H, W), 255 at ignored pixels.
        valid: (N, H, W) in float64.
        g: (N, K, H, W) one-hot labels, 0 at ignored pixels.
        p: (N, K, H, W) probabilities of all classes, 0 at ignored pixels.
    """

    def __init__(self, num_classes, binary, ignored, seed=0):
        generator = torch.Generator().manual_seed(seed)
        channels = 1 if binary else num_classes
        self.z = torch.randn(SHAPE[0], channels, *SHAPE[1:], generator=generator, dtype=F64).requires_grad_()
        self.labels = torch.randint(0, num_classes, SHAPE, generator=generator)
        self.labels[torch.rand(SHAPE, generator=generator) < ignored] = 255
        self.valid = (self.labels != 255).to(F64)
        self.g = torch.stack([(self.labels == k).to(F64) for k in range(num_classes)], 1)
        p1 = torch.sigmoid(self.z)
        p = torch.cat([1 - p1, p1], 1) if binary else self.z.softmax(1)
        self.p = p * self.valid.unsqueeze(1)

    def inputs(self, num_classes, binary):
        """The batch for the kernels, with NaN under the ignored pixels."""
        z = self.z.detach().masked_fill((self.labels == 255).unsqueeze(1), float("nan")).requires_grad_()
        return LossInputs(z, self.labels, num_classes=num_classes, ignore_index=255, binary=binary)


def draw(num_classes, binary, ignored):
    naive = Naive(num_classes, binary, ignored)
    return naive, naive.inputs(num_classes, binary)


def assert_close(kernel, naive):
    torch.testing.assert_close(kernel, naive.detach(), rtol=1e-12, atol=1e-14)


def random_like(values, seed=1):
    return torch.randn(values.shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


# --- batch: properties -------------------------------------------------------------------------------------


@every_task
@every_mask
def test_probabilities_are_softmax_or_sigmoid_and_0_at_ignored_pixels(num_classes, binary, ignored):
    naive, inputs = draw(num_classes, binary, ignored)
    assert_close(inputs.probabilities, naive.p[:, 1:] if binary else naive.p)
    assert inputs.probabilities is inputs.probabilities


@multiclass_tasks
@every_mask
def test_label_probabilities_are_the_sum_of_p_times_one_hot(num_classes, ignored):
    naive, inputs = draw(num_classes, False, ignored)
    assert_close(inputs.label_probabilities, (naive.p * naive.g).sum(1))


@every_task
@every_mask
def test_targets_masks_and_counts_are_those_of_the_one_hot_labels(num_classes, binary, ignored):
    naive, inputs = draw(num_classes, binary, ignored)
    if num_classes == 2:
        assert_close(inputs.foreground_target, naive.g[:, 1])
    assert_close(inputs.valid_float, naive.valid)
    assert inputs.valid_count == naive.valid.sum()
    assert (inputs.valid is None) == (ignored == 0)


@every_task
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_zero_ignored_multiplies_by_the_mask_even_nan_and_inf(num_classes, binary, dtype):
    naive, inputs = draw(num_classes, binary, 0.3)
    for values in (random_like(naive.valid).to(dtype), random_like(naive.g).to(dtype)):
        mask = naive.valid.bool() if values.dim() == 3 else naive.valid.bool().unsqueeze(1)
        for junk in (float("nan"), float("inf")):
            spoilt = torch.where(mask, values, junk)
            kernel = inputs.zero_ignored_(spoilt)
            assert kernel is spoilt
            assert torch.equal(kernel, torch.where(mask, values, 0.0))


# --- batch: the channel of the label -----------------------------------------------------------------------


@multiclass_tasks
@every_mask
def test_label_index_and_gather_labels_pick_the_channel_of_the_label(num_classes, ignored):
    naive, inputs = draw(num_classes, False, ignored)
    values = random_like(naive.g)
    channel = torch.where(naive.labels == 255, 0, naive.labels).unsqueeze(1)
    assert_close(inputs.gather_labels(values), values.gather(1, channel).squeeze(1))
    assert_close(values.flatten()[inputs.label_index].view(SHAPE), values.gather(1, channel).squeeze(1))


@multiclass_tasks
@every_mask
def test_scatter_add_labels_adds_to_the_one_hot_channel(num_classes, ignored):
    naive, inputs = draw(num_classes, False, ignored)
    values, additions = random_like(naive.g), random_like(naive.valid, 2) * naive.valid
    expected = values + naive.g * additions.unsqueeze(1)
    kernel = inputs.scatter_add_labels_(values, additions)
    assert kernel is values
    assert_close(kernel, expected)


@every_task
@every_mask
def test_lookup_by_label_is_the_product_of_one_hot_labels_and_numbers(num_classes, binary, ignored):
    naive, inputs = draw(num_classes, binary, ignored)
    per_class = torch.arange(1.0, num_classes + 1)
    assert_close(inputs.lookup_by_label(per_class), torch.einsum("nkhw,k->nhw", naive.g, per_class.double()))


@every_task
@pytest.mark.parametrize("chunk_values", [1, 7, 30, 10**6])
def test_chunks_cover_every_value_once(num_classes, binary, chunk_values, monkeypatch):
    monkeypatch.setattr("losses.kernels.batch._CACHE_VALUES", chunk_values)
    _, inputs = draw(num_classes, binary, 0.3)
    visits = torch.zeros_like(inputs.logits).flatten(2)
    for images, pixels in inputs.chunks():
        visits[images, :, pixels] += 1
        # equal chunks: the size is rounded up by less than a pixel
        assert visits[images, :, pixels].numel() <= chunk_values + inputs.logits.shape[1]
    assert (visits == 1).all()


# --- batch: cross entropy, and the chain rule --------------------------------------------------------------


@multiclass_tasks
@every_mask
@pytest.mark.parametrize("smooth", [0.0, 0.2])
@pytest.mark.parametrize("scale", [1.0, 200.0], ids=["plain", "underflow"])
def test_cross_entropies_and_their_gradient_are_those_of_log_softmax(num_classes, ignored, smooth, scale):
    naive = Naive(num_classes, False, ignored)
    naive.z = (naive.z.detach() * scale).requires_grad_()
    inputs = naive.inputs(num_classes, False)
    q = naive.g * (1 - smooth) + smooth / num_classes
    expected = -(q * naive.z.log_softmax(1)).sum(1) * naive.valid
    torch.testing.assert_close(inputs.cross_entropies(smooth), expected.detach(), rtol=1e-12, atol=1e-12)

    grad_nll = random_like(naive.valid) * naive.valid
    (expected_grad,) = torch.autograd.grad((grad_nll * expected).sum(), naive.z)
    torch.testing.assert_close(
        inputs.cross_entropy_grad(grad_nll, smooth), expected_grad, rtol=1e-12, atol=1e-12
    )


@multiclass_tasks
@pytest.mark.parametrize("smooth", [0.0, 0.2])
def test_a_scalar_is_the_same_for_every_pixel_of_a_cross_entropy_gradient(num_classes, smooth):
    naive = Naive(num_classes, False, 0.0)
    scalar = torch.tensor(0.3, dtype=F64)
    per_pixel = naive.inputs(num_classes, False).cross_entropy_grad(scalar.expand(SHAPE).clone(), smooth)
    assert_close(naive.inputs(num_classes, False).cross_entropy_grad(scalar, smooth), per_pixel)


@every_task
@every_mask
def test_activation_backward_is_the_autograd_of_softmax_or_sigmoid(num_classes, binary, ignored):
    naive, inputs = draw(num_classes, binary, ignored)
    p = naive.p[:, 1:] if binary else naive.p
    grad_p = random_like(p)
    (expected,) = torch.autograd.grad((grad_p * p).sum(), naive.z)
    assert_close(inputs.activation_backward(grad_p.clone()), expected)


def test_two_class_grad_has_opposite_signs_in_the_two_channels():
    grad_z1 = random_like(torch.empty(SHAPE))
    grad = torch.full((SHAPE[0], 2, *SHAPE[1:]), float("nan"), dtype=F64)
    assert two_class_grad_(grad, grad_z1) is grad
    assert torch.equal(grad, torch.stack([-grad_z1, grad_z1], 1))


@every_mask
def test_probabilities_lend_their_memory_to_the_gradient_unless_they_are_shared(ignored):
    _, inputs = draw(4, False, ignored)
    inputs.shared = True
    p, grad = inputs.release_probabilities()
    assert p.data_ptr() != grad.data_ptr()
    assert p is inputs.probabilities
    inputs.shared = False
    p, grad = inputs.release_probabilities()
    assert p.data_ptr() == grad.data_ptr()
    assert p.isfinite().all()


def test_attach_gradient_multiplies_the_gradient_by_that_of_what_follows():
    logits = torch.zeros(1, 2, 1, 1, dtype=torch.float16, requires_grad=True)
    grad = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1)
    (attach_gradient(logits, torch.tensor(5.0), grad) * 4).backward()
    assert torch.equal(logits.grad, (4 * grad).half())
    assert not attach_gradient(logits, torch.tensor(5.0), None).requires_grad


# --- soft confusion ----------------------------------------------------------------------------------------


@every_task
@every_mask
def test_soft_confusion_and_its_gradient_are_those_of_sums_over_pixels(num_classes, binary, ignored):
    naive, inputs = draw(num_classes, binary, ignored)
    intersection, predicted, target = (
        (naive.p * naive.g).sum((0, 2, 3)),
        naive.p.sum((0, 2, 3)),
        naive.g.sum((0, 2, 3)),
    )
    confusion = soft_confusion(inputs)
    assert_close(confusion.intersection, intersection)
    assert_close(confusion.predicted, predicted)
    assert_close(confusion.target, target)

    grad_intersection, grad_predicted = random_like(intersection), random_like(predicted, 2)
    value = (grad_intersection * intersection + grad_predicted * predicted).sum()
    (expected,) = torch.autograd.grad(value, naive.z)
    assert_close(soft_confusion_grad(inputs, grad_intersection, grad_predicted), expected)


# --- validation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize("ignore_index", [255, 1, None])
@every_mask
def test_validate_range_returns_int64_labels_and_the_mask_of_those_that_count(dtype, ignore_index, ignored):
    labels = torch.randint(0, 3, SHAPE, generator=torch.Generator().manual_seed(0))
    if ignored and ignore_index is not None:
        labels[torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) < ignored] = ignore_index
    expected_valid = labels != (-7 if ignore_index is None else ignore_index)
    kernel, valid = validate_range(labels.to(dtype), 3, ignore_index)
    assert kernel.dtype == torch.int64
    assert torch.equal(kernel, torch.where(expected_valid, labels, 0))
    assert torch.equal(torch.ones(SHAPE, dtype=torch.bool) if valid is None else valid, expected_valid)
    labels[1, 2, 3] = 3
    with pytest.raises(LossError, match=r"labels must be 0 to 2 or ignore_index, found \[3\]"):
        validate_range(labels.to(dtype), 3, ignore_index)


def test_validate_batch_drops_a_channel_of_one():
    labels = torch.randint(0, 3, SHAPE)
    assert torch.equal(validate_batch(torch.zeros(2, 3, 5, 6), labels.unsqueeze(1), 3, False), labels)
