"""mode=test takes the scores of a checkpoint: those of its run, or others where the data are others."""

import contextlib
import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
from hydra import compose, initialize_config_dir

from geo_seg.checkpoints.checkpoint import METADATA_KEY
from geo_seg.config.hydra_setup import register_schemas, resolve_run_dir
from geo_seg.config.run_config import resolve_config
from geo_seg.config.training import TrainConfig
from geo_seg.errors import CheckpointError, ConfigError, DataError
from geo_seg.modes import dispatch, evaluate
from geo_seg.training import evaluate_run, results
from geo_seg.training.callbacks.lightning_loops import rewrite_loop_state
from geo_seg.training.run import run
from tests.conftest import REPOSITORY, ended_by_keeping_memory, small_overrides
from tests.end_to_end.test_training import (
    assert_shareable,
    clean_hydra,  # noqa: F401 - a fixture
    configured,
)

THREE = "dataset.split.test=[images/s2.tif,images/s3.tif,images/s5.tif]"
COURSE = [
    THREE,
    "model.encoder=tu-mobilenetv3_small_050",
    "trainer.precision=32",
    "trainer.limit_train_batches=6",
]


@pytest.fixture(scope="module")
def trained(small_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "write_report", lambda *arguments: None)
        run(configured(small_root, *COURSE), folder)
    return folder


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out pictures and report, which take longest."""
    monkeypatch.setattr(results, "write_report", lambda *arguments: None)


def asked(*overrides: str) -> TrainConfig:
    """The configuration of train.py with this command line."""
    register_schemas()
    with initialize_config_dir(str(REPOSITORY / "config"), version_base="1.3"):
        return resolve_config(compose("train", list(overrides)), overrides)


def scored(run_or_file: Path, folder: Path, *overrides: str) -> dict[str, Any]:
    evaluate(asked("mode=test", f"checkpoint={run_or_file}", *overrides), folder)
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_test_gives_the_scores_that_the_run_ended_with(trained: Path, tmp_path: Path) -> None:
    found = scored(trained, tmp_path / "t")
    ended = json.loads((trained / "metrics.json").read_text())
    assert found["split"] == "test"
    for split in ("val", "test"):
        assert found[split] == ended[split]
    assert found["checkpoint"] == "one/checkpoints/best.ckpt"
    assert_shareable(tmp_path / "t", "*.html", "summary.txt", "metrics.json", "*.csv")
    assert (tmp_path / "t" / "report.html").is_file()
    assert (tmp_path / "t" / "summary.txt").is_file()
    for name in ("classes.csv", "scenes.csv", "scenes.json"):
        assert (tmp_path / "t" / name).read_bytes() == (trained / name).read_bytes()


def test_a_test_on_a_processor_keeps_freed_memory(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ended_by_keeping_memory(evaluate_run, monkeypatch):
        scored(trained, tmp_path / "t")


def test_tables_and_intervals_agree_with_the_scores(trained: Path) -> None:
    found = json.loads((trained / "metrics.json").read_text())
    matrices = json.loads((trained / "scenes.json").read_text())
    classes, scenes = table(trained / "classes.csv"), table(trained / "scenes.csv")
    assert [row["split"] for row in classes] == ["val"] * 3 + ["test"] * 3
    assert [row["split"] + " " + row["scene"][7:9] for row in scenes] == [
        "val s4",
        "test s2",
        "test s3",
        "test s5",
    ]
    for split in ("val", "test"):
        scores, own = found[split], [row for row in classes if row["split"] == split]
        assert sum(np.array(scene["confusion"]).sum() for scene in matrices[split]) == scores["pixels"]
        for row, score in zip(own, scores["classes"], strict=True):
            assert float(row["iou"]) == score["iou"]
            assert float(row["boundary_iou"]) == score["boundary_iou"]
        assert 0 <= scores["boundary_iou"] <= 1
    assert found["val"]["intervals"] is None  # one scene of four windows
    said = found["test"]["intervals"]
    assert said["miou"][0] <= found["test"]["miou"] <= said["miou"][1]
    assert (said["unit"], said["units"], said["draws"]) == ("windows", 12, 1000)
    for row in classes:
        if row["split"] == "val":
            assert row["iou_low"] == ""
        else:
            assert float(row["iou_low"]) <= float(row["iou"]) <= float(row["iou_high"])


def test_options_of_the_evaluation_take_effect(trained: Path, tmp_path: Path, no_report: None) -> None:
    plain = json.loads((trained / "metrics.json").read_text())["test"]
    wide = scored(trained, tmp_path / "a", "split=test", "evaluation.boundary=9", "evaluation.draws=50")
    assert "val" not in wide and wide["split"] == "test"
    assert wide["test"]["boundary_iou"] != plain["boundary_iou"]
    assert wide["test"]["intervals"]["draws"] == 50
    none = scored(trained, tmp_path / "b", "split=test", "evaluation.boundary=0", "evaluation.draws=0")
    assert "boundary_iou" not in none["test"] and none["test"]["intervals"] is None
    assert none["test"]["miou"] == plain["miou"]


def test_other_scenes_can_be_tested_with_single_keys_or_a_whole_data_set(
    trained: Path, small_root: Path, tmp_path: Path, no_report: None
) -> None:
    one = scored(trained, tmp_path / "a", "split=test", "dataset.split.test=[images/s1.tif,images/s3.tif]")
    assert [scene["name"] for scene in one["test"]["scenes"]] == ["images/s1.tif", "images/s3.tif"]
    data = [o for o in small_overrides(small_root) if o.startswith("dataset")]
    data = [o for o in data if not o.startswith("dataset.split.test")] + [
        "dataset.split.test=[images/s1.tif,images/s3.tif]"
    ]
    whole = scored(trained, tmp_path / "b", "split=test", *data)
    assert whole["test"] == one["test"]
    again = asked(f"rerun={tmp_path / 'a'}")  # the folder says what was tested
    dispatch(again, tmp_path / "c")
    assert json.loads((tmp_path / "c" / "metrics.json").read_text()) == one


def test_a_checkpoint_far_from_its_run_is_tested_on_the_data_set_that_is_named(
    trained: Path, small_root: Path, tmp_path: Path, no_report: None
) -> None:
    shutil.copy(trained / "checkpoints" / "best.ckpt", tmp_path / "model.ckpt")
    data = [o for o in small_overrides(small_root) if o.startswith("dataset")]
    data = [THREE if o.startswith("dataset.split.test") else o for o in data]
    found = scored(tmp_path / "model.ckpt", tmp_path / "t", "trainer.precision=32", *data)
    assert found["test"] == json.loads((trained / "metrics.json").read_text())["test"]


@pytest.mark.fault("bands", "a model of named bands is tested on scenes in another order")
def test_scenes_with_bands_in_another_order_than_the_models_have_the_same_scores(
    trained: Path, small_root: Path, tmp_path: Path, no_report: None
) -> None:
    known = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    assert known[METADATA_KEY]["scale_offset"] == [[1.0, 0.0]] * 2
    pixels = []
    for name in ("s0", "s1"):
        with rasterio.open(small_root / "images" / f"{name}.tif") as source:
            pixels.append(source.read()[:, :, 7:].reshape(2, -1))
    ends = np.quantile(np.concatenate(pixels, axis=1), (0.005, 0.995), axis=1)
    np.testing.assert_allclose(np.transpose(known[METADATA_KEY]["seen"]), ends, atol=5)
    known[METADATA_KEY]["band_names"] = ["red", "nir"]
    torch.save(known, tmp_path / "model.ckpt")
    shutil.copytree(small_root, tmp_path / "turned")
    for path in (tmp_path / "turned" / "images").iterdir():
        with rasterio.open(path, "r+") as target:
            target.write(target.read()[::-1])
            target.descriptions = ("B08", "B04")
    data = [o for o in small_overrides(tmp_path / "turned") if o.startswith("dataset")]
    data = [THREE if o.startswith("dataset.split.test") else o for o in data]
    found = scored(tmp_path / "model.ckpt", tmp_path / "t", "trainer.precision=32", *data)
    assert found["test"] == json.loads((trained / "metrics.json").read_text())["test"]


@pytest.mark.parametrize("by", ["pattern", "list"])
def test_a_data_set_of_which_only_the_test_scenes_are_there_can_be_tested(
    trained: Path, small_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    for name in ("s2", "s3", "s5"):
        for kind in ("images", "masks"):
            (tmp_path / "only" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(small_root / kind / f"{name}.tif", tmp_path / "only" / kind)
    (tmp_path / "only" / "test.txt").write_text("s2\ns3\ns5\n")
    (tmp_path / "only" / "train.txt").write_text("s0\ns1\n")
    globs = ["'images/s[01].tif'", "images/s4.tif", "'images/s[235].tif'"]
    told = globs if by == "pattern" else ["train.txt", "val.txt", "test.txt"]
    keys = [f"dataset.split.{name}" for name in ("by", "train", "val", "test")]
    said = [f"{key}={value}" for key, value in zip(keys, [by, *told], strict=True)]
    found = scored(trained, tmp_path / "t", f"dataset.root={tmp_path / 'only'}", *said)
    assert "note: the data set has no scenes for val here; see dataset.split.val" in capsys.readouterr().out
    assert found["split"] == "test" and "val" not in found
    assert found["test"] == json.loads((trained / "metrics.json").read_text())["test"]
    assert (tmp_path / "t" / "report.html").is_file()
    with pytest.raises(DataError, match=r"val: no image matches|val\.txt: no such file"):
        scored(trained, tmp_path / "u", f"dataset.root={tmp_path / 'only'}", "split=val", *said)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["dataset.classes=[low,high]", "dataset.unlisted=ignore"],
            "a multiclass model of low, middle, high",
        ),
        (["dataset.bands=[1]"], "see dataset.bands"),
        (["split=test", "dataset.split.test=null"], "no scene is left for test: 6 in all"),
        (["dataset.split.val=null", "dataset.split.test=null"], "no scenes for val and test"),
        (["optimizer.lr=1"], "optimizer.lr=1: nothing reads it in a test"),
        (["loss=dice"], "loss=dice: nothing reads it in a test"),
        (["seed=3"], "seed=3: nothing reads it in a test"),
    ],
)
def test_what_does_not_go_with_the_model_is_said_in_one_line(
    trained: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message) as said:
        scored(trained, tmp_path / "t", *overrides)
    assert "\n" not in str(said.value)
    assert not (tmp_path / "t").exists()


STRANGER = pytest.mark.fault(
    "acts", "mode=test checkpoint=<file from elsewhere> calls a _target_ that it names"
)


@pytest.fixture
def acting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[dict[str, Any], Path]]:
    """Sections of a configuration that have something called, and the file that appears if it is."""
    marker = tmp_path / "it_was_called"
    code = f"open({str(marker)!r}, 'w').close()\nclass Marker:\n    pass\n"
    (tmp_path / "stranger.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    target = {"_target_": "stranger.Marker"}
    yield (
        {
            "augment": {"name": "x", "transforms": [target]},
            "optimizer": {**target, "lr": 0.1},
            "scheduler": {**target, "interval": "step"},
            "callbacks": {"mine": {"_target_": "builtins.dict", "deeper": target}},
            "logger": {"mine": target},
            "model": {"name": "unet", "encoder": "tu-mobilenetv3_small_050", "weights": "stranger.py"},
        },
        marker,
    )
    sys.modules.pop("stranger", None)


def with_section(content: dict[str, Any], sections: dict[str, Any]) -> dict[str, Any]:
    data = {**content["dataset"], "samples": {"_target_": "stranger.Marker"}}
    return {**content, **sections, "dataset": data}


@STRANGER
def test_nothing_that_a_checkpoint_names_is_called_in_a_test(
    trained: Path, small_root: Path, tmp_path: Path, no_report: None, acting: tuple[dict[str, Any], Path]
) -> None:
    sections, marker = acting
    content = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    content[METADATA_KEY]["config"] = with_section(content[METADATA_KEY]["config"], sections)
    torch.save(content, tmp_path / "model.ckpt")
    data = [o for o in small_overrides(small_root) if o.startswith("dataset")]
    data = [THREE if o.startswith("dataset.split.test") else o for o in data]
    found = scored(tmp_path / "model.ckpt", tmp_path / "t", "trainer.precision=32", *data)
    assert found["test"] == json.loads((trained / "metrics.json").read_text())["test"]
    assert "stranger" not in (tmp_path / "t" / "config.yaml").read_text()  # nor when that is rerun
    assert not marker.exists()


@STRANGER
def test_nothing_that_a_run_folder_names_is_called_in_a_test(
    trained: Path, tmp_path: Path, no_report: None, acting: tuple[dict[str, Any], Path]
) -> None:
    sections, marker = acting
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(trained / "checkpoints" / "best.ckpt", tmp_path / "run" / "checkpoints")
    content = with_section(yaml.safe_load((trained / "config.yaml").read_text()), sections)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(content))
    found = scored(tmp_path / "run", tmp_path / "t", "split=test")
    assert found["test"] == json.loads((trained / "metrics.json").read_text())["test"]
    dispatch(asked(f"rerun={tmp_path / 't'}"), tmp_path / "u")
    assert not marker.exists()


TOLD = pytest.mark.fault(
    "acts", "rerun= and resume= of a folder of unknown origin: what is called is shown first"
)


@TOLD
@pytest.mark.parametrize("key", ["rerun", "resume"])
def test_what_a_run_folder_has_called_is_shown_before_it_is(
    trained: Path,
    tmp_path: Path,
    acting: tuple[dict[str, Any], Path],
    key: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sections, marker = acting
    known = yaml.safe_load((trained / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(with_section(known, sections)))
    with pytest.raises(ConfigError, match=r"stranger\.Marker: expected a class that is a"):
        asked(f"{key}={tmp_path}")  # told first, and then refused: it is none of torch's optimizers
    told = capsys.readouterr().out
    assert told.startswith(f"note: {tmp_path / 'config.yaml'} has this called") and told.count("\n") == 1
    places = ("augment.transforms.0", "optimizer", "scheduler", "callbacks.mine.deeper", "logger.mine")
    for place in (*places, "dataset.samples"):
        assert f"stranger.Marker ({place})" in told
    assert "builtins.dict (callbacks.mine)" in told
    assert "stranger" not in sys.modules and not marker.exists()


@TOLD
@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("torch.optim.SGD", False),
        ("pytorch_lightning.callbacks.LearningRateMonitor", False),
        ("geo_seg.training.loggers.StepCSVLogger", False),
        ("torch.os.system", True),
        ("torch.hub.load", True),
        ("torch.utils.collect_env.subprocess.Popen", True),
        ("torchvision.transforms.v2.GaussianBlur", True),
        ("geo_seg.runtime.files.os.system", True),
        ("torch_stranger.SGD", True),
        ("\x1b[2Jos.system", True),
    ],
)
def test_only_classes_of_known_packages_are_called_untold(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, told: bool
) -> None:
    content = yaml.safe_load((trained / "config.yaml").read_text())
    content["callbacks"] = {"mine": {"_target_": target}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    with contextlib.suppress(ConfigError):  # what is no callback is refused, too
        asked(f"rerun={tmp_path}")
    said = capsys.readouterr().out
    assert ("(callbacks.mine)" in said) == told
    assert said.strip().isprintable()


@TOLD
@pytest.mark.parametrize("value", ["${oc.env:HOME}", {"deep": ["${now:%Y}"]}])
def test_a_run_folder_whose_configuration_looks_something_up_is_refused(
    trained: Path, tmp_path: Path, value: Any
) -> None:
    content = yaml.safe_load((trained / "config.yaml").read_text())
    content["callbacks"] = {"mine": {"_target_": "torch.nn.Identity", "option": value}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"config\.yaml: .* resolved values"):
        asked(f"rerun={tmp_path}")


@pytest.mark.fault("checkpoint", "a fact is dropped, doubled, or of another type, length or range")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[METADATA_KEY].update(std=[0, 1]), r"last\.ckpt: std=\[0, 1\]: expected"),
        (lambda content: content.pop(METADATA_KEY), r"last\.ckpt: not a checkpoint of geo_seg"),
        (lambda content: content.pop("loops"), r"last\.ckpt: holds no loops of a training run"),
        (lambda content: content.update(callbacks=None), r"last\.ckpt: holds no callbacks of a training run"),
        (lambda content: content["state_dict"].update(x=None), r"last\.ckpt: x is no tensor"),
    ],
)
def test_a_run_is_not_gone_on_with_from_a_checkpoint_that_is_not_quite_ours(
    trained: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], Any], message: str
) -> None:
    folder = spoilt(trained, tmp_path / "run", spoil)
    with pytest.raises(CheckpointError, match=message) as said:
        run(asked(f"resume={folder}"), folder)
    assert "\n" not in str(said.value)


def spoilt(trained: Path, folder: Path, spoil: Callable[[dict[str, Any]], Any]) -> Path:
    """A run that isn't finished, whose last checkpoint was changed."""
    shutil.copytree(trained, folder)
    state = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**state, "finished": False}))
    file = folder / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    spoil(content)
    file.unlink()  # it is a link to the best one
    torch.save(content, file)
    return folder


def first_state(content: dict[str, Any]) -> dict[str, Any]:
    """What the optimizer holds for one weight."""
    found: dict[str, Any] = next(iter(content["optimizer_states"][0]["state"].values()))
    return found


@pytest.mark.slow
@pytest.mark.fault("checkpoint", "loops or optimizer_states of last.ckpt are there, but broken")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content["loops"].clear(), r"\(KeyError: .*fit_loop"),
        (lambda content: content["loops"]["fit_loop"].pop("epoch_progress"), "loops.fit_loop has to hold"),
        (
            lambda content: content["loops"]["fit_loop"].update({"epoch_loop.batch_progress": []}),
            r"loops.fit_loop.epoch_loop.batch_progress has to hold",
        ),
        (
            lambda content: content["loops"]["fit_loop"]["epoch_progress"]["current"].update(ready="x"),
            r"epoch_progress.current.ready has to be a whole number",
        ),
        (lambda content: content["optimizer_states"].clear(), "its optimizer_states are those of no"),
        (lambda content: content.update(optimizer_states=[None]), "its optimizer_states are those of no"),
        (lambda content: content["optimizer_states"][0].update(state=[]), "optimizer_states are those of no"),
        (
            lambda content: first_state(content)["exp_avg"].fill_(float("nan")),
            "its optimizer_states hold values that are not finite",
        ),
        (lambda content: content["optimizer_states"][0].pop("param_groups"), r"\(KeyError: .*param_groups"),
        (
            lambda content: content["optimizer_states"][0]["param_groups"].pop(),
            r"\(ValueError: loaded state dict has a different number of parameter groups",
        ),
        (
            lambda content: [group.pop("lr") for group in content["optimizer_states"][0]["param_groups"]],
            r"\(KeyError: .*lr",
        ),
        (lambda content: first_state(content).pop("exp_avg"), r"\(KeyError: .*exp_avg"),
        (
            lambda content: first_state(content).update(exp_avg=torch.ones(2)),
            r"exp_avg of shape \(2,\) for a weight of",
        ),
        (lambda content: content.update(lr_schedulers=[None]), r"last\.ckpt: training can't resume from it"),
        (lambda content: content["position"].clear(), r"\(KeyError: .*done"),
        (lambda content: content.update({"pytorch-lightning_version": "x"}), r"\(InvalidVersion: "),
        (lambda content: content["state_dict"].popitem(), r"\(RuntimeError: "),
    ],
)
def test_a_state_of_training_that_is_broken_is_answered_with_what_to_do(
    trained: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], Any], message: str
) -> None:
    def rewound(content: dict[str, Any]) -> None:
        rewrite_loop_state(content["loops"]["fit_loop"], epoch=0, batch=0, validate=False)
        spoil(content)

    folder = spoilt(trained, tmp_path / "run", rewound)
    with pytest.raises(CheckpointError, match=message) as said:
        run(asked(f"resume={folder}"), folder)
    assert str(said.value).startswith(f"{folder}/checkpoints/last.ckpt: ")
    assert str(said.value).endswith("such as best.ckpt, or start again without resume=")
    assert "\n" not in str(said.value)


def test_a_checkpoint_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        scored(tmp_path / "none.ckpt", tmp_path / "t")


def test_a_test_has_a_folder_beside_its_run() -> None:
    fresh = "runs/demo/2026-01-02_03-04-05_unet_dice"
    for given in ("runs/a/one", "runs/a/one/", "runs/a/one/checkpoints/last.ckpt"):
        assert resolve_run_dir(None, None, given, fresh) == "runs/a/one_test_2026-01-02_03-04-05"
    assert resolve_run_dir(None, None, "models/x.ckpt", fresh) == "models/x_test_2026-01-02_03-04-05"
    assert resolve_run_dir(None, None, None, fresh) == fresh
