"""Checkpoints that aren't quite ours: each answered in one line, and none of them acts."""

import json
import math
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geo_seg.checkpoints import checkpoint
from geo_seg.checkpoints.checkpoint import METADATA_KEY, CheckpointMetadata
from geo_seg.checkpoints.metadata_checks import RULES, check_metadata
from geo_seg.config.inference import InferenceConfig
from geo_seg.errors import CheckpointError
from geo_seg.models.registry import build_model
from geo_seg.prediction.ensemble import load_ensemble
from geo_seg.training.callbacks.checkpoint_io import AtomicCheckpointIO

FUZZED = pytest.mark.fault("checkpoint", "a fact is dropped, doubled, or of another type, length or range")
WEIGHTS = pytest.mark.fault("checkpoint", "weights that are NaN or infinite, or no tensors")
LATER = pytest.mark.fault("checkpoint", "a later version's further keys")

GOOD: dict[str, Any] = {
    "format": 1,
    "mode": "multiclass",
    "class_names": ["low", "high"],
    "class_colors": [[10, 20, 30], [200, 100, 0]],
    "ignore_index": 255,
    "bands": [1, "nir"],
    "band_names": ["1", "nir"],
    "nodata": None,
    "dtype": "uint16",
    "mean": [900.0, 800],
    "std": [500.0, 400.0],
    "window": 64,
    "model": {"name": "unet", "encoder": "tu-mobilenetv3_small_050", "weights": None},
    "config": {"seed": 1, "loss": {"name": "dice"}, "dataset": {"classes": ["low", "high"]}},
    "versions": {"python": "3.12.0"},
    "zero_is_nodata": False,
    "temperature": 1.5,
    "threshold": 0.5,
    "scale_offset": [[0.0001, -0.1], [1.0, 0.0]],
    "seen": [[200.0, 3400.0], [-1.5, 4000]],
    "trained_on": ["0123456789abcdef"],
}
FILE = Path("model.ckpt")
STRANGE: tuple[Any, ...] = (
    *(None, True, 0, -1, 7, 1 << 70, 1.5, math.nan, math.inf, -math.inf, 1e300),
    *("", "x", "\n", "${oc.env:HOME}", [], [None], [math.nan, 1.0], [[1, 2, 3]], ["a", "b", "c"]),
    *({}, {1: 2}, {"name": None}, {"_target_": "builtins.print"}, torch.ones(2), b"x"),
)
FITTING = {  # of these, what a fact may be
    "bands": (None,),
    "nodata": (None, 0, -1, 7, 1 << 70, 1.5, math.nan, math.inf, -math.inf, 1e300),
    "ignore_index": (0, -1, 7),
    "window": (7,),
    "config": ({}, {1: 2}, {"name": None}, {"_target_": "builtins.print"}),
    "versions": ({}, {"_target_": "builtins.print"}),
    "zero_is_nodata": (True,),
    "temperature": (7, 1 << 70, 1.5),
    "scale_offset": (None,),
    "seen": (None,),
    "trained_on": ([], ["a", "b", "c"]),
}


def said(content: Any) -> str:
    with pytest.raises(CheckpointError) as error:
        check_metadata(content, FILE)
    text = str(error.value)
    assert text.startswith("model.ckpt: ") and "\n" not in text and len(text) < 400
    return text


def test_every_fact_has_a_rule() -> None:
    assert set(RULES) == {field.name for field in fields(CheckpointMetadata)}
    assert check_metadata(GOOD, FILE) == ()


@FUZZED
@pytest.mark.parametrize("name", RULES)
def test_a_fact_that_is_missing_is_named_unless_it_has_a_default(name: str) -> None:
    rest = {key: value for key, value in GOOD.items() if key != name}
    found = next(field for field in fields(CheckpointMetadata) if field.name == name)
    if found.default is MISSING and found.default_factory is MISSING:
        assert name in said(rest)
    else:
        assert check_metadata(rest, FILE) == ()


@FUZZED
@pytest.mark.parametrize("name", RULES)
def test_a_fact_of_another_type_or_range_is_named_with_what_was_found(name: str) -> None:
    for value in STRANGE:
        fits = any(
            value is one or (type(value) is type(one) and value == one) for one in FITTING.get(name, ())
        )
        if fits:
            assert check_metadata({**GOOD, name: value}, FILE) == ()
        else:
            assert name in said({**GOOD, name: value})


@FUZZED
@pytest.mark.parametrize(
    "name",
    [
        *("class_names", "class_colors", "bands", "band_names", "mean", "std", "mode", "dtype"),
        *("scale_offset", "seen"),
    ],
)
def test_a_fact_that_is_doubled_or_halved_is_named(name: str) -> None:
    assert name in said({**GOOD, name: GOOD[name] * 2})
    assert name in said({**GOOD, name: GOOD[name][:1]})


@FUZZED
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "written in format 2, this geo_seg reads format 1"),
        ({"format": True}, "written in format True"),
        ({"format": "1"}, "written in format '1'"),
        ({"std": [0.0, 1.0]}, "std=[0.0, 1.0]: expected a finite number above 0 for each band"),
        ({"temperature": 0}, "temperature=0: expected a finite number above 0"),
        ({"threshold": 1}, "threshold=1: expected a number between 0 and 1"),
        ({"class_colors": [[0, 0, 0], [0, 0, 256]]}, "class_colors=[[0, 0, 0], [0, 0, 256]]: expected red"),
        ({"class_names": ["a", "a"]}, "class_names=['a', 'a']: expected two names or more"),
        ({"mode": "binary", "class_names": list("abc"), "class_colors": [[0, 0, 0]] * 3}, "of 3 classes"),
        ({"window": 10**9}, "window=1000000000: expected pixels from 1 to 65536"),
        ({"model": {"name": "unett", "encoder": "x"}}, "did you mean 'unet'"),
        ({"model": {"name": "unet"}}, "model.encoder: missing; unet needs one (str)"),
        ({"model": {"encoder": "resnet18"}}, "expected name and options of the model"),
        (
            {"model": {"name": "unet", "encoder": "tu-x", "checkpoint_path": "x.pth"}},
            "model.checkpoint_path: nothing reads it",
        ),
        ({"model": {"name": "unet", "encoder": "x", "encoder_depth": "5"}}, "model.encoder_depth='5'"),
        ({"config": {"seed": -1}}, "expected the configuration of a training run, in plain values"),
        ({"config": {"a": {"b": ["${oc.env:HOME}"]}}}, "in plain values"),
    ],
)
def test_what_was_expected_is_said(changes: dict[str, Any], message: str) -> None:
    assert message in said({**GOOD, **changes})


@FUZZED
@pytest.mark.parametrize("content", [None, [], "x", 1, torch.ones(1)], ids=repr)
def test_facts_that_are_no_mapping_are_no_checkpoint_of_ours(content: Any) -> None:
    assert "not a checkpoint of geo_seg" in said(content)


@FUZZED
def test_containers_that_hold_themselves_or_lie_very_deep_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "config" in said({**GOOD, "config": {"a": endless}})
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    assert "config" in said({**GOOD, "config": {"a": deep}})


@LATER
@pytest.mark.parametrize(
    "further", [{"sensor": "S2"}, {"sensor": None, "x": [1]}, {3: 4}, {"config": {"new": 1}}]
)
def test_further_keys_are_left_out_with_a_note(further: dict[Any, Any]) -> None:
    notes = check_metadata({**GOOD, **further}, FILE)
    strange = [key for key in further if key != "config"]
    assert len(notes) == bool(strange)
    assert all(repr(key) in notes[0] and "are ignored" in notes[0] for key in strange)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = build_model(GOOD["model"], 2, 2)
    return {f"model.{key}": value for key, value in model.state_dict().items()}


def written(folder: Path, weights: Any, **changes: Any) -> Path:
    file = folder / "model.ckpt"
    torch.save({"state_dict": weights, METADATA_KEY: {**GOOD, **changes}}, file)
    return file


@LATER
def test_a_checkpoint_of_a_later_version_predicts_and_says_what_is_left_out(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    found = checkpoint.load_checkpoint(written(tmp_path, weights, sensor="S2"))
    assert found.metadata == CheckpointMetadata(
        **{key: value for key, value in GOOD.items() if key != "format"}
    )
    assert found.notes == (f"{tmp_path / 'model.ckpt'}: has unknown keys 'sensor', which are ignored",)
    assert json.loads(json.dumps(checkpoint.to_dict(found.metadata))) == GOOD


def spoilt(weights: dict[str, Tensor]) -> Iterator[tuple[Any, str]]:
    """Weights that can't be predicted with, and what is said of them."""
    first, running = next(iter(weights)), next(name for name in weights if "running_var" in name)
    for name in (first, running):
        for value in (math.nan, math.inf, -math.inf):
            wrong = weights[name].clone()
            wrong.view(-1)[-1] = value
            yield {**weights, name: wrong}, f"{name} holds values that are not finite"
    yield {**weights, first: None}, f"{first} is no tensor"
    yield {**weights, first: 1.0}, f"{first} is no tensor"
    yield {**weights, first: weights[first].to("meta")}, f"{first} is no tensor"
    yield {**weights, first: weights[first][:1]}, "its weights don't fit its model unet"
    yield {name: value for name, value in weights.items() if name != first}, "its weights don't fit its model"
    yield {**weights, "model.more": torch.ones(1)}, "its weights don't fit its model"
    yield {}, "its weights don't fit its model"
    yield {1: torch.ones(1)}, "its weights have no names"
    yield None, "its weights have no names"
    yield [torch.ones(1)], "its weights have no names"


@WEIGHTS
def test_weights_that_cannot_predict_are_named_in_one_line(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    for wrong, message in spoilt(weights):
        file = written(tmp_path, wrong)
        with pytest.raises(CheckpointError) as error:
            checkpoint.load_checkpoint(file)
        assert str(error.value).startswith(f"{file}: {message}") and "\n" not in str(error.value)


@FUZZED
@pytest.mark.parametrize(
    "read",
    [
        checkpoint.load_checkpoint,
        lambda file: AtomicCheckpointIO(print).load_checkpoint(file),
        lambda file: load_ensemble(InferenceConfig(checkpoint=[str(file), str(file)], input="x", output="y")),
    ],
    ids=["test", "resume", "ensemble"],
)
def test_every_way_of_reading_checks_facts_and_weights(
    tmp_path: Path, weights: dict[str, Tensor], read: Any
) -> None:
    for changes, message in (({"std": [0, 1]}, "std="), ({"temperature": math.nan}, "temperature=nan")):
        with pytest.raises(CheckpointError, match=message):
            read(written(tmp_path, weights, **changes))
    name = next(iter(weights))
    with pytest.raises(CheckpointError, match="not finite"):
        read(written(tmp_path, {**weights, name: weights[name] * math.nan}))


@FUZZED
def test_a_checkpoint_without_the_state_of_training_cannot_be_gone_on_from(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    with pytest.raises(CheckpointError, match="holds no epoch of a training run"):
        AtomicCheckpointIO(print).load_checkpoint(written(tmp_path, weights))


@FUZZED
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"encoder": "resnet1800"}, "unknown encoder"),
        ({"encoder": "tu-hf-hub:someone/model"}, "unknown encoder"),
        ({"encoder": "resnet18", "encoder_depth": 77}, "model=unet model.encoder=resnet18"),
        ({"encoder": "resnet18", "decoder_channels": [16]}, "model=unet model.encoder=resnet18"),
    ],
)
def test_a_model_that_cannot_be_built_is_named_with_its_file(
    tmp_path: Path, weights: dict[str, Tensor], model: dict[str, Any], message: str
) -> None:
    file = written(tmp_path, weights, model={"name": "unet", "weights": None, **model})
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_checkpoint(file)
    assert str(error.value).startswith(str(file)) and message in str(error.value)
    assert "\n" not in str(error.value)
