"""Values and gradients against oracles in float64, and against the libraries where those are right."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch import losses as smp
from torch import nn
from torch.nn import functional as F

import losses
from losses.boundary_loss import BoundaryLoss
from losses.ohem_loss import OhemCrossEntropy2d
from tests.contract import loss_oracles as oracles

MODES = ("binary", "multiclass")
WEIGHTS = (0.5, 2.0, 1.0, 3.0)
COUNTS = (100, 0, 7, 50)

# name, mode, options, class weights; every option of every loss away from its default at least once
VARIANTS = [
    ("cross_entropy", "multiclass", {}, None),
    ("cross_entropy", "multiclass", {"smooth_factor": 0.2}, None),
    ("cross_entropy", "multiclass", {"smooth_factor": 0.1}, WEIGHTS),
    ("weighted_cross_entropy", "multiclass", {}, None),
    ("weighted_cross_entropy", "multiclass", {"weights": [1, 2, 3, 4], "smooth_factor": 0.1}, None),
    ("weighted_cross_entropy", "multiclass", {"weights": "inverse"}, None),
    ("weighted_cross_entropy", "binary", {}, None),
    ("weighted_cross_entropy", "binary", {"weights": [1, 3], "smooth_factor": 0.1}, None),
    ("soft_bce", "binary", {}, None),
    ("soft_bce", "binary", {"smooth_factor": 0.1, "pos_weight": 3.0}, None),
    ("focal", "binary", {}, None),
    ("focal", "binary", {"gamma": 0.5, "alpha": 0.25}, None),
    ("focal", "multiclass", {}, None),
    ("focal", "multiclass", {"gamma": 1.5, "alpha": 0.3}, WEIGHTS),
    ("focal", "multiclass", {"gamma": 0.0}, None),
    ("softmax_focal", "multiclass", {}, None),
    ("softmax_focal", "multiclass", {"gamma": 0.5}, WEIGHTS),
    ("softmax_focal", "multiclass", {"gamma": 3.0, "alpha": [1, 2, 0, 4], "reduction": "sum"}, None),
    ("dice", "binary", {}, None),
    ("dice", "multiclass", {}, WEIGHTS),
    ("dice", "multiclass", {"smooth": 3.0, "log_loss": True, "classes": "all"}, None),
    ("dice", "multiclass", {"classes": [0, 1, 2]}, WEIGHTS),
    ("jaccard", "binary", {"smooth": 1.0}, None),
    ("jaccard", "multiclass", {"log_loss": True}, WEIGHTS),
    ("jaccard", "multiclass", {"classes": "all"}, WEIGHTS),
    ("tversky", "binary", {"alpha": 0.2, "beta": 0.9, "log_loss": True}, None),
    ("tversky", "multiclass", {"alpha": 0.2, "beta": 0.9, "smooth": 2.0, "classes": [0, 1, 3]}, None),
    ("focal_tversky", "binary", {}, None),
    ("focal_tversky", "multiclass", {"alpha": 0.4, "beta": 0.6, "gamma": 2.0, "smooth": 1.0}, WEIGHTS),
    ("focal_tversky", "multiclass", {"classes": "all"}, None),
    ("generalized_dice", "binary", {}, None),
    ("generalized_dice", "multiclass", {}, None),
    ("mcc", "binary", {}, None),
    ("mcc", "multiclass", {}, None),
    ("lovasz", "binary", {}, None),
    ("lovasz", "binary", {"per_image": True}, None),
    ("lovasz", "multiclass", {}, None),
    ("lovasz", "multiclass", {"per_image": True, "classes": "all"}, None),
    ("lovasz", "multiclass", {"classes": [0, 1, 3]}, None),
    ("boundary", "multiclass", {}, None),
    ("boundary", "multiclass", {"theta0": 5, "theta": 3, "classes": "all"}, None),
    ("boundary", "multiclass", {"theta0": 1, "theta": 19}, None),
    ("boundary", "multiclass", {"theta0": 19, "theta": 7}, None),
    ("ohem", "multiclass", {}, None),
    ("ohem", "multiclass", {"thresh": 0.01, "min_kept": 30}, WEIGHTS),
    ("ohem", "multiclass", {"thresh": 0.3, "min_kept": 10**6}, None),
    ("duo", "multiclass", {}, None),
    ("duo", "multiclass", {"theta0": 5, "theta": 7, "per_image": True}, None),
    ("compound", "binary", {}, None),
    ("compound", "multiclass", {"terms": {"cross_entropy": 1, "boundary": 0.5, "lovasz": 0.25}}, None),
    ("compound", "multiclass", {"terms": {"dice": 2, "cross_entropy": 0.5}}, WEIGHTS),
]
IDS = [
    "-".join([name, mode, *options, *(["weights"] if weights else [])])
    for name, mode, options, weights in VARIANTS
]


def make_task(mode, weights=None, ignore_index=255):
    if mode == "binary":
        return losses.Task("binary", ignore_index=ignore_index, class_counts=(90, 10))
    return losses.Task("multiclass", 4, ignore_index, weights, COUNTS)


def draw(task, seed, shape=(2, 6, 7), spread=2.0, ignored=0.3, classes=None):
    """Labels in blobs (boundaries everywhere say little), some ignored but never all, and random logits."""
    generator = torch.Generator().manual_seed(seed)
    blobs = [-(-side // 3) for side in shape[1:]]
    coarse = torch.randint(0, classes or task.num_classes, (shape[0], *blobs), generator=generator)
    labels = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, : shape[1], : shape[2]].clone()
    logits = torch.randn(shape[0], task.channels, *shape[1:], generator=generator) * spread
    if ignored and task.ignore_index is not None:
        ignore = torch.rand(labels.shape, generator=generator) < ignored
        ignore[0, 0, 0] = False
        labels[ignore] = task.ignore_index
    return logits, labels


def both(loss, oracle, logits, labels):
    """Value and gradient of the loss, and of the oracle in float64 on the same numbers."""
    ours = logits.detach().clone().requires_grad_()
    value = loss(ours, labels)
    value.backward()
    exact = logits.detach().double().requires_grad_()
    expected = oracle(exact, labels)
    expected.backward()
    return value, ours.grad, expected, exact.grad


def assert_same(loss, oracle, logits, labels, tolerance=1e-5):
    value, grad, expected, expected_grad = both(loss, oracle, logits, labels)
    torch.testing.assert_close(value.double(), expected.detach(), rtol=tolerance, atol=tolerance)
    scale = expected_grad.abs().max().item()
    torch.testing.assert_close(
        grad.double(), expected_grad, rtol=tolerance, atol=tolerance * max(scale, 1e-3)
    )


@pytest.mark.parametrize(("name", "mode", "options", "weights"), VARIANTS, ids=IDS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
def test_value_and_gradient_equal_the_oracle(name, mode, options, weights, seed, shape):
    task = make_task(mode, weights)
    loss = losses.build(name, task, **options)
    oracle = getattr(oracles, name)
    for ignored, classes in ((0.0, None), (0.3, None), (0.3, 2)):  # all classes, or some absent
        logits, labels = draw(task, seed, shape, ignored=ignored, classes=classes)
        assert_same(loss, lambda z, y: oracle(z, y, task, **options), logits, labels)


# of two classes much is computed otherwise: their probabilities add up to 1
TWO = [(name, {}, None) for name in losses.available() if "multiclass" in losses.modes(name)] + [
    ("cross_entropy", {"smooth_factor": 0.2}, (1.0, 3.0)),
    ("softmax_focal", {"gamma": 0.5}, (1.0, 3.0)),
    ("ohem", {"thresh": 0.4, "min_kept": 9}, None),
    ("dice", {"classes": [0, 1]}, None),
    ("dice", {"log_loss": True}, (2.0, 1.0)),
    ("tversky", {"alpha": 0.2, "beta": 0.9, "smooth": 2.0}, None),
    ("compound", {"terms": {"dice": 2, "cross_entropy": 0.5}}, None),
]


@pytest.mark.parametrize(("name", "options", "weights"), TWO, ids=[f"{n}-{o}-{w}" for n, o, w in TWO])
@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), shape=st.tuples(st.integers(1, 3), st.integers(2, 9), st.integers(2, 9)))
def test_two_classes_equal_the_oracle_too(name, options, weights, seed, shape):
    task = losses.Task("multiclass", 2, 255, weights, (300, 100))
    loss = losses.build(name, task, **options)
    for spread, ignored, classes in ((2.0, 0.0, None), (2.0, 0.3, None), (8.0, 0.3, None), (2.0, 0.3, 1)):
        logits, labels = draw(task, seed, shape, spread, ignored, classes)
        assert_same(loss, lambda z, y: getattr(oracles, name)(z, y, task, **options), logits, labels)
        spoilt = logits.masked_fill((labels == 255).unsqueeze(1), float("nan"))
        value, grad, *_ = both(loss, lambda z, y: z.sum(), spoilt, labels)
        expected, expected_grad, *_ = both(loss, lambda z, y: z.sum(), logits, labels)
        assert torch.equal(value, expected)
        assert torch.equal(grad, expected_grad)


@pytest.mark.parametrize(("name", "mode", "options", "weights"), VARIANTS, ids=IDS)
def test_gradcheck_in_float64(name, mode, options, weights):
    task = make_task(mode, weights)
    logits, labels = draw(task, 3, shape=(2, 4, 5))
    logits = logits.double().requires_grad_()
    loss = losses.build(name, task, **options)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), (logits,), eps=1e-7, atol=1e-6)


def test_every_loss_of_the_design_has_an_oracle_and_every_option_a_variant():
    named = {variant[0] for variant in VARIANTS}
    assert named >= set(losses.available()) & set(dir(oracles))
    assert named == {
        *("cross_entropy", "weighted_cross_entropy", "soft_bce", "focal", "softmax_focal", "dice"),
        *("generalized_dice", "lovasz", "boundary", "ohem", "duo", "compound", "jaccard", "tversky"),
        *("focal_tversky", "mcc"),
    }
    for name in named:
        tried = {option for variant in VARIANTS if variant[0] == name for option in variant[2]}
        # beta and cap are tested with the class weights, bins below
        assert tried >= set(losses.options(name)) - {"beta", "cap", "bins"}


# --- the libraries, where they are right -----------------------------------------------------------------


def plain(task, seed=0, shape=(2, 12, 12)):
    """A batch without ignored pixels and with all classes."""
    logits, labels = draw(task, seed, shape, ignored=0.0)
    labels[0, 0, : task.num_classes] = torch.arange(task.num_classes)
    return logits, labels


def smp_soft_bce(logits, labels):
    return smp.SoftBCEWithLogitsLoss(smooth_factor=0.1)(logits, labels.unsqueeze(1).float())


SMP = {
    ("cross_entropy", "multiclass"): smp.SoftCrossEntropyLoss(smooth_factor=0.1),
    ("soft_bce", "binary"): smp_soft_bce,
    ("mcc", "binary"): lambda logits, labels: smp.MCCLoss()(logits.sigmoid(), labels),
    **{("focal", mode): smp.FocalLoss(mode) for mode in MODES},
    **{("dice", mode): smp.DiceLoss(mode) for mode in MODES},
    **{("jaccard", mode): smp.JaccardLoss(mode) for mode in MODES},
    **{("tversky", mode): smp.TverskyLoss(mode) for mode in MODES},
    **{("lovasz", mode): smp.LovaszLoss(mode) for mode in MODES},
}


@pytest.mark.parametrize(("name", "mode"), SMP, ids=["-".join(case) for case in SMP])
def test_smp_gives_the_same_where_smp_is_right(name, mode):
    task = make_task(mode, ignore_index=None)
    logits, labels = plain(task)
    options = {"smooth_factor": 0.1} if "smooth_factor" in losses.options(name) else {}
    ours = losses.build(name, task, **options)(logits, labels)
    theirs = SMP[name, mode](logits, labels).reshape(())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 if name == "mcc" else 1e-6)


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky"])
def test_classes_all_gives_smps_number_when_classes_are_absent(name):
    task = make_task("multiclass")
    logits, labels = draw(task, 1, classes=2)
    peer = {"dice": smp.DiceLoss, "jaccard": smp.JaccardLoss, "tversky": smp.TverskyLoss}[name]
    ours = losses.build(name, task, classes="all")(logits, labels)
    torch.testing.assert_close(
        ours, peer("multiclass", ignore_index=255)(logits, labels), rtol=1e-5, atol=1e-6
    )


def test_cross_entropy_equals_torch_with_class_weights_and_ignored_pixels():
    task = make_task("multiclass", WEIGHTS)
    logits, labels = draw(task, 5)
    expected = F.cross_entropy(logits, labels, torch.tensor(WEIGHTS), ignore_index=255)
    torch.testing.assert_close(losses.build("cross_entropy", task)(logits, labels), expected)


def test_softmax_focal_with_gamma_0_is_cross_entropy():
    task = make_task("multiclass")
    logits, labels = draw(task, 6)
    ours = losses.build("softmax_focal", task, gamma=0.0)(logits, labels)
    torch.testing.assert_close(ours, losses.build("cross_entropy", task)(logits, labels))


def published_boundary(pred, gt, theta0, theta):
    """The published formula with torch's pooling: mean over all pairs of image and class."""
    p, y = pred.softmax(1), F.one_hot(gt, pred.shape[1]).permute(0, 3, 1, 2).to(pred.dtype)

    def edges(x):
        edge = F.max_pool2d(1 - x, theta0, 1, theta0 // 2) - (1 - x)
        return edge, F.max_pool2d(edge, theta, 1, theta // 2)

    (edge_p, wide_p), (edge_y, wide_y) = edges(p), edges(y)
    precision = (edge_p * wide_y).sum((2, 3)) / (edge_p.sum((2, 3)) + 1e-7)
    recall = (wide_p * edge_y).sum((2, 3)) / (edge_y.sum((2, 3)) + 1e-7)
    return (1 - 2 * precision * recall / (precision + recall + 1e-7)).mean()


@pytest.mark.parametrize(("theta0", "theta"), [(3, 5), (19, 19), (5, 3), (7, 31), (33, 35)])
@pytest.mark.parametrize("shape", [(2, 12, 12), (2, 70, 45)])
def test_boundary_loss_equals_the_published_formula_without_ignored_pixels(theta0, theta, shape):
    logits, labels = plain(make_task("multiclass"), shape=shape)
    labels[1, 3, 2:6] = torch.arange(4)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value, expected = (
        BoundaryLoss(theta0, theta)(ours, labels),
        published_boundary(theirs, labels, theta0, theta),
    )
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    # where the two largest values of a window differ by less than 2^-21, either may get the gradient
    off = (ours.grad - theirs.grad).abs()
    assert (off > 1e-7 + 1e-4 * theirs.grad.abs()).float().mean() < 0.002
    assert off.sum() < 0.01 * theirs.grad.abs().sum()


@pytest.mark.parametrize("theta", [5, 33])
def test_ignored_pixels_of_a_larger_image_are_like_pixels_outside_for_boundaries(theta):
    logits, labels = plain(make_task("multiclass"), shape=(2, 60, 70))
    labels[:, 41:] = 255
    labels[:, :, 52:] = 255
    loss = BoundaryLoss(3, theta, 255)
    torch.testing.assert_close(loss(logits, labels), loss(logits[:, :, :41, :52], labels[:, :41, :52]))


def test_boundary_with_classes_all_gives_gdls_number_when_classes_are_absent():
    task = make_task("multiclass", ignore_index=None)
    logits, labels = draw(task, 2, classes=2, ignored=0.0)
    ours = losses.build("boundary", task, theta0=3, theta=5, classes="all")(logits, labels)
    torch.testing.assert_close(ours, published_boundary(logits, labels, 3, 5), rtol=1e-5, atol=1e-6)


def test_ohem_keeps_the_pixels_that_tie_with_the_limit():
    logits = torch.tensor([2.0, 1.0, 1.0, 0.0, 5.0]).view(1, 1, 1, 5)
    logits = torch.cat([logits, torch.zeros_like(logits)], 1)
    labels = torch.zeros(1, 1, 5, dtype=torch.long)
    pixel = F.softplus(-logits[0, 0, 0])
    two_hardest_and_a_tie = pixel[[1, 2, 3]].mean()
    torch.testing.assert_close(
        OhemCrossEntropy2d(thresh=0.0, min_kept=2)(logits, labels), two_hardest_and_a_tie
    )
    assert OhemCrossEntropy2d(thresh=0.4)(logits, labels) == 0  # keeps nothing


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "focal_tversky"])
def test_a_small_object_in_a_large_batch_gets_the_true_gradient(name):
    task = losses.Task("binary")
    labels = torch.zeros(4, 512, 512, dtype=torch.uint8)
    labels[1, 100:107, 100:107] = 1
    logits = torch.full((4, 1, 512, 512), -4.0) + 0.5 * torch.rand(
        4, 1, 512, 512, generator=torch.manual_seed(0)
    )
    loss = losses.build(name, task)
    value, grad, expected, expected_grad = both(
        loss, lambda z, y: getattr(oracles, name)(z, y, task), logits, labels
    )
    torch.testing.assert_close(value.double(), expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-4, atol=1e-12)
    torch.testing.assert_close(grad.double().sum(), expected_grad.sum(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("per_image", [False, True])
def test_lovasz_ranks_more_rows_than_32_bit_keys_can_number(per_image):
    task = losses.Task("multiclass", 70)
    logits, labels = draw(task, 0, ignored=0.2)
    loss = losses.build("lovasz", task, per_image=per_image)
    assert_same(loss, lambda z, y: oracles.lovasz(z, y, task, per_image), logits, labels)


@pytest.mark.parametrize("bins", [2, 16, 1024])
@pytest.mark.parametrize("options", [{}, {"per_image": True, "classes": "all"}])
def test_binned_lovasz_is_below_the_exact_one_by_at_most_the_width_of_a_bin(bins, options):
    task = make_task("multiclass")
    for seed in range(5):
        logits, labels = draw(task, seed, (8, 12, 12), spread=0.5 + seed)
        ours, exact = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        value = losses.build("lovasz", task, bins=bins, **options)(ours, labels)
        expected = losses.build("lovasz", task, **options)(exact, labels)
        assert -1e-6 <= expected - value <= 1 / bins
        value.backward()
        expected.backward()
        agreement = torch.nn.functional.cosine_similarity(ours.grad.flatten(), exact.grad.flatten(), 0)
        assert agreement > {2: 0.8, 16: 0.9, 1024: 0.99}[bins]


def test_binned_lovasz_of_a_masked_tile_is_that_of_its_valid_part():
    task = make_task("multiclass")
    logits, labels = draw(task, 1, (3, 12, 12), ignored=0.0)
    masked = labels.clone()
    masked[:, 7:] = 255
    for options in ({}, {"per_image": True}):
        loss = losses.build("lovasz", task, bins=8, **options)
        torch.testing.assert_close(loss(logits, masked), loss(logits[:, :, :7], labels[:, :7]))


def test_bins_are_refused_in_binary_mode():
    with pytest.raises(ValueError, match="bins=8 is for multiclass mode"):
        losses.build("lovasz", make_task("binary"), bins=8)


def test_binned_lovasz_is_exact_where_every_interval_holds_one_kind_of_pixel():
    task = losses.Task("multiclass", 2, None)
    p = torch.tensor([0.9, 0.1, 0.7, 0.35]).view(1, 1, 1, 4).double()
    logits = torch.cat([p, 1 - p], 1).log()
    labels = torch.tensor([[[0, 0, 1, 1]]])
    exact = losses.build("lovasz", task)(logits, labels)
    torch.testing.assert_close(losses.build("lovasz", task, bins=1000)(logits, labels), exact)


def test_compound_adds_losses_that_are_plain_modules():
    class Spread(nn.Module):
        def forward(self, logits, labels):
            return logits.float().square().mean()

    @losses.register("spread_for_this_test", modes=("multiclass",))
    def spread(task, *, unused: int = 0):
        return Spread()

    try:
        task = make_task("multiclass")
        logits, labels = draw(task, 4)
        logits.requires_grad_()
        loss = losses.build("compound", task, terms={"cross_entropy": 2, "spread_for_this_test": 3})
        loss(logits, labels).backward()
        expected = logits.detach().clone().requires_grad_()
        alone = 2 * losses.build("cross_entropy", task)(expected, labels) + 3 * Spread()(expected, labels)
        alone.backward()
        torch.testing.assert_close(logits.grad, expected.grad)
        assert list(loss.terms()) == ["cross_entropy", "spread_for_this_test"]
    finally:
        losses.registry._LOSSES.pop("spread_for_this_test")
