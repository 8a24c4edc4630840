"""Losses by name: options, messages, tasks, class weights, schedules, and what GDL scripts import."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import losses
from losses.boundary_loss import BoundaryLoss
from losses.duo_loss import DuoLoss
from losses.lovasz_loss import LovaszSoftmax
from losses.ohem_loss import OhemCrossEntropy2d

REPOSITORY = Path(__file__).parents[2]
NAMES = {
    *("cross_entropy", "weighted_cross_entropy", "soft_bce", "focal", "softmax_focal", "dice", "jaccard"),
    *("generalized_dice", "lovasz", "boundary", "ohem", "duo", "compound", "tversky", "focal_tversky", "mcc"),
}
BINARY = losses.Task("binary")
CLASSES = losses.Task("multiclass", 3)


def message_of(error, call):
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def build_message(name, task=CLASSES, **options):
    return message_of(ValueError, lambda: losses.build(name, task, **options))


# --- names and options -------------------------------------------------------------------------------------


def test_the_losses_of_the_design_are_there_and_sorted():
    assert set(losses.available()) >= NAMES
    assert list(losses.available()) == sorted(losses.available())
    both = set(losses.available("binary")) & set(losses.available("multiclass"))
    assert both == {name for name in losses.available() if losses.modes(name) == ("binary", "multiclass")}


def test_every_loss_has_a_yaml_that_lists_its_options_and_defaults_in_order():
    configs = {
        path.stem: yaml.safe_load(path.read_text()) for path in (REPOSITORY / "config/loss").glob("*.yaml")
    }
    assert set(configs) == set(losses.available())
    for name, options in configs.items():
        assert next(iter(options)) == "name"
        assert options.pop("name") == name
        assert list(options.items()) == list(losses.options(name).items())


@pytest.mark.parametrize("name", losses.available())
def test_every_yaml_says_what_the_loss_is_and_comments_every_option(name):
    lines = (REPOSITORY / "config/loss" / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert ":" in lines[0] or ";" in lines[0]  # what it is: when to choose it
    options = [line for line in lines if line[0] != "#" and not line.startswith("name:")]
    assert all("# " in line for line in options)


@pytest.mark.parametrize("name", losses.available())
def test_every_docstring_tells_arguments_and_result(name):
    text = inspect.getdoc(losses.registry._LOSSES[name].factory)
    assert "Args:" in text
    assert "Returns:" in text
    assert all(f"{option}:" in text for option in losses.options(name))


def test_typos_get_the_nearest_name():
    assert build_message("focl").startswith("unknown loss 'focl'; did you mean 'focal'? Available: boundary,")
    assert (
        build_message("focal", gama=2)
        == "loss 'focal' has no option 'gama'; did you mean 'gamma'? Available: alpha, gamma"
    )
    assert "did you mean 'multiclass'" in message_of(ValueError, lambda: losses.Task("multi-class", 3))
    assert "did you mean 'binary'" in message_of(ValueError, lambda: losses.available("binry"))
    assert "unknown loss 'dise'; did you mean 'dice'?" in message_of(
        ValueError, lambda: losses.options("dise")
    )
    assert "unknown loss" in message_of(ValueError, lambda: losses.modes("nothing like it"))


@pytest.mark.parametrize(
    ("name", "option", "value", "expected"),
    [
        ("focal", "gamma", "abc", "a number"),
        ("focal", "gamma", True, "a number"),
        ("focal", "gamma", float("nan"), "a number"),
        ("focal", "alpha", [1], "a number or null"),
        ("ohem", "min_kept", 0.5, "an integer"),
        ("dice", "log_loss", 1, "true or false"),
        ("dice", "classes", "presnt", "'present' or 'all' or a list of an integer"),
        ("dice", "classes", [0, 1.5], "'present' or 'all' or a list of an integer"),
        ("softmax_focal", "reduction", "none", "'mean' or 'sum'"),
        ("compound", "terms", "dice", "a mapping or null"),
        (
            "weighted_cross_entropy",
            "weights",
            "inverted",
            "'inverse' or 'sqrt' or 'median' or 'effective' or a list of a number",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_that_says_which_is_right(name, option, value, expected):
    assert build_message(name, **{option: value}) == f"loss {name!r}: {option}={value!r} should be {expected}"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cross_entropy", {"smooth_factor": 1.0}, "smooth_factor"),
        ("focal", {"gamma": -1}, "gamma"),
        ("focal", {"alpha": 2.0}, "alpha"),
        ("softmax_focal", {"alpha": [1.0, 2.0]}, "one number for each of 3 classes"),
        ("dice", {"smooth": -1.0}, "smooth"),
        ("dice", {"classes": [3]}, "from 0 to 2"),
        ("dice", {"classes": []}, "from 0 to 2"),
        ("tversky", {"alpha": 0.0, "beta": 0.0}, "not both 0"),
        ("focal_tversky", {"gamma": 0.0}, "gamma must be positive"),
        ("boundary", {"theta0": 4}, "theta0 .* odd"),
        ("boundary", {"theta": 0}, "theta .* odd"),
        ("lovasz", {"bins": 1}, "bins must be 2 to"),
        ("ohem", {"thresh": 1.5}, "thresh is a probability"),
        ("ohem", {"min_kept": -1}, "min_kept"),
        ("weighted_cross_entropy", {}, "needs the class counts"),
        ("weighted_cross_entropy", {"weights": [1.0, 2.0]}, "one number for each of 3 classes"),
        (
            "weighted_cross_entropy",
            {"weights": [1.0, 7.0, 0.0], "cap": 3.0},
            "differ by 7 times, more than cap=3",
        ),
        ("compound", {"terms": {}}, "terms is empty"),
        ("compound", {"terms": {"dise": 1}}, "did you mean 'dice'"),
        ("compound", {"terms": {"dice": -1}}, "weight of dice"),
        ("compound", {"terms": {"dice": "1"}}, "weight of dice"),
        ("compound", {"terms": {"dice": 0}}, "all weights are 0"),
        ("compound", {"terms": {"focal": {"gama": 2}}}, "did you mean 'gamma'"),
        ("compound", {"terms": {"dice": {"from": 0, "to": 1}}}, "a schedule is {from: 0, to: 1, over: 10}"),
        ("compound", {"terms": {"dice": {"from": 0, "to": 1, "over": 0}}}, "over is a number of epochs"),
        ("compound", {"terms": {"dice": {"weight": {"from": 0, "over": 1}}}}, "a schedule is"),
        ("compound", {"terms": {"soft_bce": 1}}, "'soft_bce' needs a binary task"),
    ],
)
def test_an_option_out_of_range_is_an_error_with_the_name_of_the_loss(name, options, words):
    text = build_message(name, **options)
    assert text.startswith(f"loss {name!r}: ")
    assert re.search(words, text)


def test_a_loss_refuses_a_mode_that_it_has_not():
    assert build_message("boundary", BINARY).startswith(
        "loss 'boundary' needs a multiclass task; available for binary: compound,"
    )
    assert build_message("soft_bce").startswith(
        "loss 'soft_bce' needs a binary task; available for multiclass: boundary,"
    )


@pytest.mark.parametrize("name", ["boundary", "duo", "generalized_dice", "lovasz", "mcc"])
def test_class_weights_are_refused_where_they_have_no_meaning(name):
    assert "no place for class weights" in build_message(
        name, losses.Task("multiclass", 3, class_weights=[1, 2, 3])
    )


@pytest.mark.parametrize(
    ("name", "instead"),
    [("soft_bce", "pos_weight"), ("focal", "alpha"), ("dice", "foreground"), ("jaccard", "foreground")],
)
def test_class_weights_in_binary_mode_are_refused_with_what_to_take_instead(name, instead):
    assert instead in build_message(name, losses.Task("binary", class_weights=[1, 2]))


def test_register_refuses_duplicates_modes_it_does_not_know_and_options_without_default():
    def good(task, *, a: int = 1): ...
    def bare(task, *, a=1): ...
    def open_ended(task, *, a: int): ...

    assert "two losses are named 'dice'" in message_of(
        ValueError, lambda: losses.register("dice", modes=("binary",))(good)
    )
    for modes in ((), ("multilabel",)):
        assert "modes" in message_of(
            ValueError, lambda modes=modes: losses.register("new", modes=modes)(good)
        )
    for factory in (bare, open_ended):
        text = message_of(
            ValueError, lambda factory=factory: losses.register("new", modes=("binary",))(factory)
        )
        assert text == "loss 'new': option a needs an annotation and a default"
    assert "new" not in losses.available()


NEW_LOSS = """
from torch import nn
from losses.registry import Task, register


class Square(nn.Module):
    def forward(self, logits, labels):
        return (logits - labels.unsqueeze(1)).square().mean()


@register("square", modes=("binary",))
def square(task: Task, *, power: float = 2.0) -> nn.Module:
    return Square()
"""
USE = """
import torch, losses
loss = losses.build("square", losses.Task("binary"))
print(losses.options("square"), loss(torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2)))
"""


def test_a_new_loss_is_one_file(tmp_path):
    shutil.copytree(REPOSITORY / "losses", tmp_path / "losses")
    (tmp_path / "losses" / "square.py").write_text(NEW_LOSS)
    process = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "{'power': 2.0} tensor(1.)"


# --- tasks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [None, 1, 2])
def test_a_binary_task_has_two_classes_and_one_channel(number):
    task = losses.Task(mode="binary", num_classes=number)
    assert (task.num_classes, task.channels) == (2, 1)
    logits = torch.tensor([-2.0, 0.0, 3.0]).view(1, 1, 1, 3)
    p = task.probabilities(logits.half())
    assert p.shape == (1, 2, 1, 3)
    assert p.dtype == torch.float32
    torch.testing.assert_close(p[:, 1:], torch.sigmoid(logits))
    torch.testing.assert_close(p.sum(1), torch.ones(1, 1, 3))
    assert task.decode(logits).tolist() == [[[0, 0, 1]]]
    assert task.decode(logits).dtype == torch.int64


def test_a_multiclass_task_decodes_to_the_most_likely_class():
    logits = torch.randn(2, 3, 4, 5)
    p = CLASSES.probabilities(logits.bfloat16())
    assert p.dtype == torch.float32
    torch.testing.assert_close(p, logits.bfloat16().float().softmax(1))
    assert torch.equal(CLASSES.decode(logits), logits.argmax(1))
    assert CLASSES.decode(logits).dtype == torch.int64


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mode": "multilabel", "num_classes": 3}, "Available: binary, multiclass"),
        ({"mode": "multiclass"}, "num_classes of at least 2, got None"),
        ({"mode": "multiclass", "num_classes": 1}, "num_classes of at least 2, got 1"),
        ({"mode": "multiclass", "num_classes": 2.0}, "num_classes of at least 2, got 2.0"),
        ({"mode": "binary", "num_classes": 3}, "2 classes"),
        ({"mode": "binary", "ignore_index": 1.5}, "ignore_index"),
        ({"mode": "binary", "ignore_index": True}, "ignore_index"),
        (
            {"mode": "multiclass", "num_classes": 3, "class_weights": [1, 2]},
            "one number for each of 3 classes",
        ),
        ({"mode": "multiclass", "num_classes": 2, "class_weights": [1, -2]}, "not negative"),
        ({"mode": "multiclass", "num_classes": 2, "class_weights": [1, float("inf")]}, "finite"),
        ({"mode": "multiclass", "num_classes": 2, "class_weights": [0, 0]}, "not all 0"),
        ({"mode": "multiclass", "num_classes": 2, "class_weights": 3}, "a list of 2 numbers"),
        ({"mode": "multiclass", "num_classes": 2, "class_weights": "ab"}, "a list of 2 numbers"),
        ({"mode": "multiclass", "num_classes": 2, "class_counts": [1]}, "one number for each of 2 classes"),
        ({"mode": "multiclass", "num_classes": 2, "class_counts": [1.5, 2]}, "whole numbers"),
    ],
)
def test_a_task_that_does_not_fit_is_an_error(arguments, words):
    assert words in message_of(ValueError, lambda: losses.Task(**arguments))


def test_a_task_is_frozen_and_keeps_its_lists_as_tuples():
    task = losses.Task("multiclass", 3, class_weights=torch.tensor([1.0, 2.0, 0.0]), class_counts=[1, 2, 3])
    assert task.class_weights == (1.0, 2.0, 0.0)
    assert task.class_counts == (1, 2, 3)
    with pytest.raises(AttributeError):
        task.mode = "binary"


# --- class weights -----------------------------------------------------------------------------------------


def test_inverse_weights_are_total_over_classes_times_count_and_0_for_an_absent_class():
    assert losses.class_weights([60, 0, 30, 10], "inverse") == pytest.approx(
        [100 / 180, 0, 100 / 90, 100 / 30]
    )


def test_sqrt_weights_are_one_over_the_square_root_of_the_frequency_with_mean_1():
    counts = np.array([900, 0, 90, 10])
    raw = [1 / np.sqrt(n / counts.sum()) if n else 0 for n in counts]
    made = losses.class_weights(counts.tolist(), "sqrt")
    assert made == pytest.approx([w * 3 / sum(raw) for w in raw])
    assert losses.class_weights((7 * counts).tolist(), "sqrt") == pytest.approx(made)  # shares alone count


@pytest.mark.fault(
    "config", "weights=median is inverse: Eigen and Fergus count the images that have the class"
)
def test_median_weights_are_median_over_frequency_in_the_images_that_hold_the_class():
    images = np.array([[60, 0, 0, 40], [30, 0, 10, 0], [0, 0, 20, 0]])  # pixels of each class in three images
    frequency = [90 / 140, 0, 30 / 60, 40 / 100]  # of the pixels of the images that have the class
    expected = [0.5 / f if f else 0 for f in frequency]
    image_pixels = ((images > 0) * images.sum(1, keepdims=True)).sum(0)
    weights = losses.class_weights(images.sum(0).tolist(), "median", image_pixels=image_pixels.tolist())
    assert weights == pytest.approx(expected)


@pytest.mark.fault(
    "config", "weights=median is inverse: Eigen and Fergus count the images that have the class"
)
def test_where_every_image_has_all_classes_median_weights_are_median_over_count():
    weights = losses.class_weights([60, 0, 30, 10], "median", image_pixels=[100, 0, 100, 100])
    assert weights == pytest.approx([0.5, 0, 1, 3])


@pytest.mark.fault(
    "config", "weights=median is inverse: Eigen and Fergus count the images that have the class"
)
@pytest.mark.parametrize(("pixels", "words"), [(None, "need image_pixels"), ([1, 2], "no fewer than those")])
def test_median_weights_need_the_pixels_of_the_images_that_hold_a_class(pixels, words):
    assert words in message_of(
        ValueError, lambda: losses.class_weights([2, 2], "median", image_pixels=pixels)
    )


def test_effective_weights_follow_the_number_of_samples_that_say_something_new():
    weights = losses.class_weights([1000, 0, 10], "effective", beta=0.99)
    raw = [0.01 / (1 - 0.99**1000), 0, 0.01 / (1 - 0.99**10)]
    assert weights == pytest.approx([w * 2 / sum(raw) for w in raw])
    nearly_inverse = losses.class_weights([60, 0, 30, 10], "effective", beta=1 - 1e-9)
    assert [w / nearly_inverse[0] for w in nearly_inverse] == pytest.approx([1, 0, 2, 6], rel=1e-4)


def test_cap_bounds_the_ratio_and_keeps_the_mean_at_1():
    weights = losses.class_weights([10**6, 0, 10**3, 1], "inverse", cap=50)
    assert max(weights) / min(w for w in weights if w) == pytest.approx(50)
    assert sum(weights) / 3 == pytest.approx(1)
    assert weights[1] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0, 0], "inverse"), "not all 0"),
        (([1, -1], "inverse"), "not negative"),
        (([1, 2], "invers"), "did you mean 'inverse'"),
    ],
)
def test_counts_and_methods_that_dont_fit_are_errors(arguments, words):
    assert words in message_of(ValueError, lambda: losses.class_weights(*arguments))
    for wrong in ({"beta": 1.0}, {"cap": 0.5}):
        assert next(iter(wrong)) in message_of(
            ValueError, lambda wrong=wrong: losses.class_weights([1, 2], **wrong)
        )


@pytest.mark.parametrize("method", ["inverse", "sqrt", "median", "effective"])
def test_weighted_cross_entropy_is_cross_entropy_with_the_weights_of_its_counts(method):
    counts = [900, 90, 10]
    task = losses.Task("multiclass", 3, class_counts=counts, image_pixels=[1000, 500, 20])
    beta = {"beta": 0.99} if method == "effective" else {}
    loss = losses.build("weighted_cross_entropy", task, weights=method, cap=20.0, **beta)
    weights = losses.class_weights(counts, method, cap=20.0, image_pixels=[1000, 500, 20], **beta)
    assert loss.class_weights.tolist() == pytest.approx(weights)
    same = losses.build("cross_entropy", losses.Task("multiclass", 3, class_weights=weights))
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    torch.testing.assert_close(loss(logits, labels), same(logits, labels))
    both = losses.Task("multiclass", 3, class_counts=counts, class_weights=weights)
    assert "cross_entropy" in build_message("weighted_cross_entropy", both)


# --- compound ----------------------------------------------------------------------------------------------


def test_a_compound_is_the_weighted_sum_of_its_terms_and_tells_their_values():
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    loss = losses.build(
        "compound",
        CLASSES,
        terms={"focal": {"weight": 2, "gamma": 3}, "dice": 1, "lovasz": {"per_image": True}},
    )
    parts = {
        "focal": losses.build("focal", CLASSES, gamma=3)(logits, labels),
        "dice": losses.build("dice", CLASSES)(logits, labels),
        "lovasz": losses.build("lovasz", CLASSES, per_image=True)(logits, labels),
    }
    total = loss(logits.requires_grad_(), labels)
    torch.testing.assert_close(total.detach(), 2 * parts["focal"] + parts["dice"] + parts["lovasz"])
    assert list(loss.terms()) == ["focal", "dice", "lovasz"]
    assert not any(value.requires_grad for value in loss.terms().values())
    for name, value in loss.terms().items():
        torch.testing.assert_close(value, parts[name])


def test_a_schedule_is_linear_over_its_epochs_and_then_constant():
    terms = {
        "cross_entropy": 1,
        "boundary": {"from": 0, "to": 0.5, "over": 10},
        "dice": {"weight": {"from": 1, "to": 0, "over": 2}},
    }
    loss = losses.build("compound", CLASSES, terms=terms)
    assert loss.weights.tolist() == [1.0, 0.0, 1.0]
    for epoch, expected in (
        (1, [1, 0.05, 0.5]),
        (5, [1, 0.25, 0]),
        (10, [1, 0.5, 0]),
        (99, [1, 0.5, 0]),
        (0, [1, 0, 1]),
    ):
        loss.set_epoch(epoch)
        assert loss.weights.tolist() == pytest.approx(expected)
    assert "weights" not in loss.state_dict()
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    loss.set_epoch(5)
    total, values = loss(logits, labels), loss.terms()
    torch.testing.assert_close(total, values["cross_entropy"] + 0.25 * values["boundary"])


def test_a_loss_says_by_its_methods_whether_it_has_terms_and_a_schedule():
    compound, dice = losses.build("compound", CLASSES), losses.build("dice", CLASSES)
    for extra in (losses.LossWithTerms, losses.LossWithSchedule):
        assert isinstance(compound, extra) and not isinstance(dice, extra)


def test_class_weights_of_a_compound_go_to_the_terms_that_use_them():
    task = losses.Task("multiclass", 3, class_weights=[1, 2, 3])
    loss = losses.build("compound", task, terms={"cross_entropy": 1, "lovasz": 1})
    assert loss.losses["cross_entropy"].class_weights.tolist() == [1, 2, 3]
    assert "no place for class weights" in build_message("compound", task, terms={"lovasz": 1, "mcc": 1})


# --- what scripts written for GDL import -------------------------------------------------------------------


def parameters(call):
    return [(p.name, p.default) for p in inspect.signature(call).parameters.values()]


def test_the_four_classes_have_the_signatures_that_gdl_scripts_use():
    assert parameters(BoundaryLoss) == [("theta0", 19), ("theta", 19), ("ignore_index", None)]
    assert parameters(OhemCrossEntropy2d) == [
        ("thresh", 0.6),
        ("min_kept", 0),
        ("weight", None),
        ("ignore_index", 255),
    ]
    assert parameters(LovaszSoftmax)[:3] == [("ignore_index", None), ("only_present", True), ("weight", None)]
    assert [p.kind for p in inspect.signature(DuoLoss).parameters.values()] == [inspect.Parameter.VAR_KEYWORD]
    for loss, names in (
        (BoundaryLoss(), ["pred", "gt"]),
        (OhemCrossEntropy2d(), ["predict", "target"]),
        (LovaszSoftmax(), ["logits", "labels"]),
        (DuoLoss(), ["preds", "labels"]),
    ):
        assert [name for name, _ in parameters(loss.forward)] == names
        assert loss(torch.randn(2, 3, 9, 8), torch.randint(0, 3, (2, 9, 8))).dim() == 0


@pytest.mark.parametrize("ignore_index", [255, -1])
def test_the_four_classes_are_the_losses_of_the_registry(ignore_index):
    logits, labels = torch.randn(2, 3, 9, 8), torch.randint(0, 3, (2, 9, 8))
    labels[0, :4] = ignore_index
    task = losses.Task("multiclass", 3, ignore_index)
    pairs = [
        (BoundaryLoss(5, 7, ignore_index), losses.build("boundary", task, theta0=5, theta=7)),
        (OhemCrossEntropy2d(0.4, 9, None, ignore_index), losses.build("ohem", task, thresh=0.4, min_kept=9)),
        (LovaszSoftmax(ignore_index), losses.build("lovasz", task)),
        (LovaszSoftmax(ignore_index, False), losses.build("lovasz", task, classes="all")),
        (DuoLoss(ignore_index=ignore_index, theta=9, theta0=5), losses.build("duo", task)),
    ]
    for loss, registered in pairs:
        assert torch.equal(loss(logits, labels), registered(logits, labels))


def test_duo_is_the_mean_of_two_submodules_and_refuses_what_neither_knows():
    logits, labels = torch.randn(2, 3, 9, 8), torch.randint(0, 3, (2, 9, 8))
    duo = DuoLoss(ignore_index=0, theta0=3)
    assert [type(part) for part in duo.children()] == [LovaszSoftmax, BoundaryLoss]
    assert (duo.lovasz.ignore_index, duo.boundary.ignore_index) == (0, 0)
    expected = (LovaszSoftmax(0)(logits, labels) + BoundaryLoss(3, 19, 0)(logits, labels)) / 2
    torch.testing.assert_close(duo(logits, labels), expected)
    assert "theta" in message_of(ValueError, lambda: DuoLoss(theta1=3))


def test_ohem_takes_weights_as_a_tensor_and_keeps_them_in_a_buffer():
    loss = OhemCrossEntropy2d(weight=torch.tensor([1.0, 2.0, 3.0]))
    assert loss.state_dict()["weight"].tolist() == [1, 2, 3]
    assert "3 numbers for 2 classes" in message_of(
        ValueError, lambda: loss(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2).long())
    )
    assert "weight" in message_of(ValueError, lambda: OhemCrossEntropy2d(weight=[1, -1]))
    assert "class weights" in message_of(ValueError, lambda: LovaszSoftmax(weight=torch.ones(3)))
