"""A key that nothing reads in the setting that it is given in is refused, and told what would read it."""

import ast
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from geo_seg.config.inference import InferenceConfig
from geo_seg.config.training import EncoderConfig, TrainConfig
from geo_seg.training.module import SegmentationModule
from tests.config.test_answers import answer_to, clean_hydra  # noqa: F401 - a fixture
from tests.conftest import REPOSITORY

EXAMPLE = "average.decay beside another average, allow_outside without a manifest, split.unit without blocks"
MOMENTUM = "optimizer momentum and betas under the one-cycle scheduler, which writes over them"


@pytest.mark.fault("config", EXAMPLE)
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("average=swa average.decay=0.9", "average.decay=0.9: does nothing here; it is for average=ema"),
        ("average=ema average.start=0.5", "average.start=0.5: does nothing here; it is for average=swa"),
        ("average.decay=0.9", "average.decay=0.9: does nothing here"),
        (
            "dataset.allow_outside=true",
            "dataset.allow_outside=True: does nothing here; it is for dataset.manif",
        ),
        (
            "dataset.split.unit=metres",
            "dataset.split.unit=metres: does nothing here; it is for dataset.split.bl",
        ),
        (
            "dataset.manifest=m.csv dataset.images=null dataset.masks=null dataset.unlabelled=skip",
            "dataset.unlabelled=skip: does nothing here; it is for globs",
        ),
        (
            "dataset.samples={_target_:torch.utils.data.TensorDataset} dataset.sampler=balanced",
            "dataset.sampler=balanced: does nothing here; it is for windows of scenes",
        ),
        (
            "+trainer.gradient_clip_algorithm=value",
            "trainer.gradient_clip_algorithm: does nothing without trainer",
        ),
        ("+trainer.limit_predict_batches=1", "trainer.limit_predict_batches: nothing reads it"),
        ("+trainer.num_sanity_val_steps=1", "trainer.num_sanity_val_steps: nothing reads it"),
        (
            "trainer._target_=torch.nn.Linear",
            "trainer._target_=torch.nn.Linear: pytorch_lightning.Trainer",
        ),
        ("+scheduler.epochs=3", "scheduler.epochs: nothing reads it"),
        ("+optimizer._partial_=true", "optimizer._partial_: nothing reads it"),
        (
            "scheduler=onecycle scheduler.max_lr=0.1",
            "scheduler.max_lr=0.1: would overwrite optimizer.lr and the rates of the enco",
        ),
        (
            "scheduler=onecycle optimizer=sgd scheduler.cycle_momentum=true",
            "scheduler.cycle_momentum=true: would overwrite optimizer.momentum=0.9; leave one out (~optim",
        ),
        (
            "scheduler=onecycle +optimizer.betas=[0.8,0.99] scheduler.cycle_momentum=true",
            "would overwrite optimizer.betas=[0.8, ",
        ),
        (
            "scheduler=onecycle optimizer=sgd +scheduler.base_momentum=0.7",
            "scheduler.base_momentum=0.7: does nothing without schedu",
        ),
        ("callbacks.early_stopping.monitor=val/miuo", "unknown score 'val/miuo'; did you mean 'val/miou'"),
    ],
)
def test_what_would_do_nothing_is_refused(overrides: str, words: str) -> None:
    answer = answer_to(*overrides.split(" "))
    assert words in answer
    assert "\n" not in answer


@pytest.mark.fault("config", EXAMPLE)
@pytest.mark.parametrize(
    "overrides",
    [
        "average=ema average.decay=0.9",
        "average=swa average.start=0.5",
        "dataset.manifest=m.csv dataset.images=null dataset.masks=null dataset.allow_outside=true",
        "dataset.images=items/*.json dataset.allow_outside=true",
        "dataset.split.unit=metres dataset.split.buffer=20",
        "dataset.split.unit=metres dataset.split.by=blocks dataset.split.val=0.2 dataset.split.test=0.2 "
        "dataset.split.block=400",
        "+trainer.gradient_clip_algorithm=value trainer.gradient_clip_val=1",
        "optimizer=sgd",
        "scheduler=onecycle optimizer=sgd ~optimizer.momentum ~optimizer.nesterov "
        "scheduler.cycle_momentum=true",
        "scheduler=onecycle +scheduler.base_momentum=0.7",
    ],
)
def test_where_it_does_something_it_is_taken(overrides: str) -> None:
    assert answer_to(*overrides.split(" ")) == ""


def _course(
    monkeypatch: pytest.MonkeyPatch, optimizer: dict[str, Any], scheduler: dict[str, Any]
) -> list[Any]:
    """Momentum, or Adam's betas, of every step of a run of ten steps."""
    trainer = SimpleNamespace(
        precision="32-true", estimated_stepping_batches=10, max_epochs=1, enable_validation=True
    )
    monkeypatch.setattr(SegmentationModule, "trainer", trainer)
    net = torch.nn.ModuleDict({"encoder": torch.nn.Conv2d(1, 1, 1), "decoder": torch.nn.Conv2d(1, 1, 1)})
    module = SegmentationModule.__new__(SegmentationModule)
    torch.nn.Module.__init__(module)
    module.model = SimpleNamespace(encoder=net["encoder"])
    module.net = net
    module._encoder = EncoderConfig()
    module._optimizer, module._scheduler = optimizer, {"interval": "step", **scheduler}
    found = module.configure_optimizers()
    key = "momentum" if "momentum" in found["optimizer"].defaults else "betas"
    seen = []
    for _ in range(10):
        seen.append(found["optimizer"].param_groups[0][key])
        found["optimizer"].step()
        found["lr_scheduler"]["scheduler"].step()
    return seen


ONECYCLE = {
    "_target_": "torch.optim.lr_scheduler.OneCycleLR",
    "max_lr": None,
    "total_steps": None,
    "pct_start": 0.25,
}


@pytest.mark.fault("config", MOMENTUM)
@pytest.mark.parametrize("cycle", [{}, {"cycle_momentum": None}])
def test_momentum_and_betas_that_are_given_are_kept_under_one_cycle(
    monkeypatch: pytest.MonkeyPatch, cycle: dict[str, Any]
) -> None:
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.7}
    assert _course(monkeypatch, sgd, ONECYCLE | cycle) == [0.7] * 10
    adam = {"_target_": "torch.optim.AdamW", "lr": 0.1, "betas": [0.8, 0.99]}
    assert [tuple(betas) for betas in _course(monkeypatch, adam, ONECYCLE | cycle)] == [(0.8, 0.99)] * 10
    without = {"_target_": "torch.optim.Adagrad", "lr": 0.1}
    with pytest.raises(KeyError):  # it has neither, and trains all the same
        _course(monkeypatch, without, ONECYCLE | cycle)


@pytest.mark.fault("config", MOMENTUM)
def test_betas_that_nobody_gives_follow_the_cycle_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10, pct_start=0.25)
    wanted = []
    for _ in range(10):
        wanted.append(optimizer.param_groups[0]["betas"])
        optimizer.step()
        cycle.step()
    assert wanted[0][0] == 0.95
    adam = {"_target_": "torch.optim.AdamW", "lr": 0.1}
    assert _course(monkeypatch, adam, ONECYCLE | {"cycle_momentum": None}) == wanted


def _leaves(schema: type) -> set[str]:
    kinds = {field.name: field.type for field in dataclasses.fields(schema)}
    below = [_leaves(kind) for kind in kinds.values() if dataclasses.is_dataclass(kind)]  # type: ignore[arg-type]
    return {name for name, kind in kinds.items() if not dataclasses.is_dataclass(kind)}.union(*below)


@pytest.mark.fault("config", "keys that do nothing: for every key, is there code that reads it?")
@pytest.mark.parametrize("schema", [TrainConfig, InferenceConfig])
def test_every_key_of_the_schemas_is_read_by_code(schema: type) -> None:
    setup = {"hydra_setup.py", "run_config.py"}
    files = [
        path
        for path in (REPOSITORY / "geo_seg").rglob("*.py")
        if path.parent.name != "config" or path.name in setup
    ]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    # debug is read from the command line, where nothing is composed yet, val as the name of a split
    assert _leaves(schema) - read <= {"debug", "val"}
