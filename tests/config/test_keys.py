"""A key is declared once, at its field: valid values, and whether results depend on it."""

from dataclasses import dataclass, replace

import pytest

from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.fields import Key, fingerprint_values, key, keys
from geo_seg.config.inference import InferenceConfig
from geo_seg.config.training import TrainConfig
from geo_seg.modes import MODES
from geo_seg.run_folder import config_hash
from tests.config.test_answers import answer_to, clean_hydra  # noqa: F401 - a fixture
from tests.conftest import Run

WITHOUT_EFFECT = {
    TrainConfig: {
        *("debug", "resume", "rerun", "save_minutes", "dataset.root", "dataset.num_threads"),
        *("dataset.cache", "dataset.cache_dir"),
    },
    InferenceConfig: {
        *("checkpoint", "input", "output", "labels"),  # the files themselves have fingerprints
        *("polygons", "min_area", "simplify"),  # of files beside the map, with a fingerprint of their own
        *("exists", "dry_run", "engine", "workers", "debug"),
        "accelerator",  # the device that it gives is in the fingerprint
    },
}
MAY_CHANGE = {
    *("debug", "save_minutes", "on_nan", "trainer", "dataset.root", "dataset.num_threads"),
}


@pytest.mark.parametrize("schema", [TrainConfig, InferenceConfig])
def test_results_depend_on_every_key_that_is_not_known_to_have_no_effect(schema: type) -> None:
    assert {name for name, declared in keys(schema) if not declared.in_fingerprint} == WITHOUT_EFFECT[schema]


def test_resuming_may_change_where_and_for_how_long_a_run_runs_only() -> None:
    assert {name for name, declared in keys(TrainConfig) if declared.on_resume} == MAY_CHANGE


def test_a_key_must_say_whether_results_depend_on_it() -> None:
    with pytest.raises(TypeError, match="in_fingerprint"):
        key(1)  # type: ignore[call-arg]

    @dataclass
    class Schema:
        forgotten: int = 1

    with pytest.raises(KeyError):
        list(keys(Schema))


def test_the_hash_of_a_run_follows_the_keys_that_results_depend_on() -> None:
    config = TrainConfig()
    same = replace(
        config, debug=True, save_minutes=0.0, dataset=DatasetConfig(root="elsewhere", cache="none")
    )
    assert config_hash(config) == config_hash(same)
    for other in (replace(config, seed=1), replace(config, dataset=DatasetConfig(window=64))):
        assert config_hash(other) != config_hash(config)
    assert "root" not in fingerprint_values(config)["dataset"]


def test_the_modes_are_those_that_can_be_chosen() -> None:
    assert set(dict(keys(TrainConfig))["mode"].choices) == set(MODES)


@pytest.mark.parametrize(
    ("declared", "valid", "invalid", "text"),
    [
        (Key(True, at_least=0), (0, 5, 1e9), (-1, float("nan"), float("inf")), "0 or more"),
        (Key(True, above=0, unit="metres"), (1e-9,), (0, -1), "more than 0 metres"),
        (Key(True, at_least=0, below=1), (0, 0.99), (1, -0.1), "0 or more and less than 1"),
        (Key(True, above=0, at_most=1), (0.1, 1), (0, 1.1), "more than 0 and up to 1"),
        (Key(True, at_least=16, at_most=16384), (16, 16384), (15, 16385), "16 to 16384"),
        (
            Key(True, choices=("auto",), at_least=64, multiple_of=32),
            ("auto", 64, 96),
            ("big", 32, 100),
            "a multiple of 32, 64 or more",
        ),
    ],
)
def test_a_range_holds_what_it_says(
    declared: Key, valid: tuple[object, ...], invalid: tuple[object, ...], text: str
) -> None:
    assert all(map(declared.is_valid, valid))
    assert not any(map(declared.is_valid, invalid))
    assert declared.range_text() == text


@pytest.mark.parametrize(
    ("overrides", "beginnings"),
    [
        (
            "seed=-1 dataset.batch_size=0 dataset.sampler=balance encoder.layer_decay=0",
            ("seed=-1:", "dataset.batch_size=0:", "dataset.sampler=balance:", "encoder.layer_decay=0:"),
        ),
        ("+foo=1 +dataset.bar=2", ("dataset.bar:", "foo:")),
        (
            "+loss.gama=2 optimizer.lr=abc +optimizer.lrr=1 +callbacks.mine=3 augment.transforms=[3]",
            (
                "augment.transforms[0]:",
                "callbacks.mine:",
                "loss.gama:",
                "optimizer.lr='abc':",
                "optimizer.lrr:",
            ),
        ),
        (
            "dataset.classes=[{name:a,color:red},b,{name:c,value:[3]}] scheduler.interval=steps",
            ("dataset.classes[0].color='red'", "dataset.classes[2].value:", "scheduler.interval=steps:"),
        ),
    ],
)
def test_all_errors_of_a_configuration_are_printed_one_a_line(
    run: Run, overrides: str, beginnings: tuple[str, ...]
) -> None:
    result = run("train.py", *overrides.split())
    lines = sorted(line.removeprefix("error: ") for line in result.stderr.splitlines())
    assert result.returncode == 2
    assert len(lines) == len(beginnings)
    assert all(line.startswith(beginning) for line, beginning in zip(lines, sorted(beginnings), strict=True))


def test_several_errors_are_one_line_where_one_is_expected() -> None:
    answer = answer_to("dataset.batch_size=0", "seed=-1")
    assert answer.count("\n") == 0
    assert "seed=-1" in answer
    assert "batch_size=0" in answer


def test_all_errors_of_a_map_are_printed(run: Run) -> None:
    result = run("inference.py", "checkpoint=x", "input=x", "output=x", "workers=2", "min_area=3")
    assert sorted(line.split("=")[0] for line in result.stderr.splitlines()) == [
        "error: min_area",
        "error: workers",
    ]
