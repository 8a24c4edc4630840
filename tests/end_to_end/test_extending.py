"""Parts from outside the package go the way of the shipped ones, as docs/extending.md shows."""

import csv
import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import geo_seg.metrics
import geo_seg.models
import losses
from geo_seg.checkpoints import checkpoint
from geo_seg.checkpoints.metadata_checks import check_metadata
from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.inference import InferenceConfig
from geo_seg.config.run_config import resolve_config
from geo_seg.config.training_checks import check_model, registered_models
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.errors import CheckpointError, ConfigError, DataError
from geo_seg.inference.products import product
from geo_seg.inference.run import run as infer
from geo_seg.metrics import registry as metrics
from geo_seg.models import registry
from geo_seg.modes import dispatch
from geo_seg.raster import open_image
from geo_seg.runtime.registration import import_modules, import_own_module
from geo_seg.tiling import Window
from geo_seg.training.run import run as train
from tests.conftest import REPOSITORY, read_window, write_raster
from tests.end_to_end.test_training import clean_hydra, configured  # noqa: F401 - a fixture
from tests.unit.test_checkpoints import GOOD, written

PAGE = REPOSITORY / "docs" / "extending.md"


def example(name: str) -> str:
    """The block of the page that begins with the name of a file."""
    [block] = re.findall(rf"^```\w+\n(# {re.escape(name)}\n.*?)^```", PAGE.read_text(), re.DOTALL | re.M)
    return str(block)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's on PYTHONPATH; what is imported from it is forgotten afterwards."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    import_modules(geo_seg.models)
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    loaded = set(sys.modules)
    yield folder  # type: ignore[misc]
    for name in set(sys.modules) - loaded:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def plain(own: Path) -> list[str]:
    """The model of the page, and what selects it."""
    (own / "my_models.py").write_text(example("my_models.py"))
    options = yaml.safe_load(example("config/model/plain.yaml"))
    (own / "model").mkdir()
    (own / "model" / "plain.yaml").write_text(yaml.safe_dump(options))
    return [f"hydra.searchpath=[file://{own}]", "model=plain"]


def forget_own_models() -> None:
    """Start as a new process does, which has imported no module of the user's."""
    for name in [name for name in registry._MODELS if name not in registered_models()]:
        del registry._MODELS[name]
    sys.modules.pop("my_models", None)


def test_the_source_tells_the_models_that_are_registered() -> None:
    import_modules(geo_seg.models)
    shipped = {n for n, e in registry._MODELS.items() if e.factory.__module__.startswith("geo_seg.models.")}
    assert set(registered_models()) == shipped


@pytest.mark.slow
def test_a_model_of_the_users_own_is_trained_tested_and_maps(
    small_root: Path, tmp_path: Path, plain: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(configured(small_root, *plain, "model.width=8", "scheduler=constant"), run)
    assert "plain (0.0 M weights)" in capsys.readouterr().out
    assert json.loads((run / "metrics.json").read_text())["test"]["miou"] is not None

    forget_own_models()
    with pytest.raises(CheckpointError, match=r"'plain' is from the module 'my_models'") as error:
        checkpoint.load_checkpoint(run)
    assert "\n" not in str(error.value)
    assert "my_models" not in sys.modules
    options = {"checkpoint": str(run), "input": str(small_root / "images" / "s5.tif"), "accelerator": "cpu"}
    infer(InferenceConfig(**options, output=str(tmp_path / "maps"), module="my_models"))
    assert (tmp_path / "maps" / "s5_classes.tif").exists()
    model = checkpoint.load_checkpoint(run).model
    assert model.net.layers[0].out_channels == 8
    with torch.inference_mode():
        assert model(torch.zeros(1, 2, 33, 40)).shape == (1, 3, 33, 40)

    forget_own_models()
    words = ["mode=test", f"checkpoint={run}", "+model.module=my_models", "split=test"]
    config = resolve_config(compose_with(*words), words)
    score = dispatch(config, tmp_path / "test")
    assert score == pytest.approx(json.loads((run / "metrics.json").read_text())["test"]["miou"])
    rerun = resolve_config(compose_with(f"rerun={run}"), [f"rerun={run}"])
    assert rerun.model["module"] == "my_models"
    assert "no class of torch" in (said := capsys.readouterr().out) and "my_models (model.module)" in said


def compose_with(*words: str) -> DictConfig:
    with initialize_config_dir(str(REPOSITORY / "config"), version_base="1.3"):
        return compose("train", list(words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("model.name=plane", "model.name=plane: unknown model 'plane'; did you mean 'plain'?"),
        ("model.width=wide", "model.width='wide': expected a whole number"),
        ("+model.depth=3", "model.depth: nothing reads it"),
        ("model.module=my_model", "model.module=my_model: no such module"),
    ],
)
def test_typos_about_a_model_of_ones_own_are_answered_before_it_is_imported(
    small_root: Path, plain: list[str], words: str, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        configured(small_root, *plain, words)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert "my_models" not in sys.modules


def test_a_missing_option_of_a_model_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.encoder: missing; unet needs one \(str\)"):
        check_model({"name": "unet"})


@pytest.mark.parametrize("changed", ["freeze_epochs=1", "lr_factor=0.1", "layer_decay=0.5"])
def test_a_model_without_an_encoder_says_that_it_has_none(
    small_root: Path, tmp_path: Path, plain: list[str], changed: str
) -> None:
    message = rf"encoder\.{changed}: the model Plain has no attribute encoder"
    with pytest.raises(ConfigError, match=message):
        train(configured(small_root, *plain, f"encoder.{changed}"), tmp_path / "run")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import gone_package\n", "the module my_models can't be imported: No module named 'gone_package'"),
        ("", "model=plain: makes logits (1, 7, 32, 32) of a window of 32 x 32 pixels; expected (1, 3, 32,"),
    ],
)
def test_what_is_wrong_with_a_module_or_its_model_is_said_in_one_line(
    small_root: Path, tmp_path: Path, plain: list[str], own: Path, source: str, message: str
) -> None:
    text = source + example("my_models.py").replace("nn.Conv2d(width, channels,", "nn.Conv2d(width, 7,")
    (own / "my_models.py").write_text(text)
    with pytest.raises(ConfigError) as error:
        train(configured(small_root, *plain), tmp_path / "run")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def mapped(small_root: Path, output: Path, **options: Any) -> Path:
    """A map of a scene by a model that nobody trained, with the products of the page."""
    (output.parent / "run").mkdir(exist_ok=True)
    facts = {
        "class_names": list("abc"),
        "class_colors": [[1, 2, 3]] * 3,
        "bands": None,
        "band_names": ["1", "2"],
    }
    torch.manual_seed(0)
    weights = registry.build_model(GOOD["model"], 2, 3).state_dict()
    file = written(output.parent / "run", {f"model.{key}": value for key, value in weights.items()}, **facts)
    scene = str(small_root / "images" / "s5.tif")
    chosen: dict[str, Any] = {
        "accelerator": "cpu",
        "precision": "fp32",
        "module": "my_products",
        "probabilities": "all",
    }
    chosen |= {"checkpoint": str(file), "input": scene, "output": str(output), **options}
    infer(InferenceConfig(**chosen))
    return output


def test_a_product_of_the_users_own_is_written_resumed_and_planned(
    small_root: Path,
    tmp_path: Path,
    own: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    product.registered_products()
    monkeypatch.setattr(product, "_PRODUCTS", dict(product._PRODUCTS))
    (own / "my_products.py").write_text(example("my_products.py"))
    without = mapped(small_root, tmp_path / "without", module=None, dry_run=True)
    assert not without.exists()
    small = size_of(capsys.readouterr().out)
    mapped(small_root, tmp_path / "planned", dry_run=True)
    assert size_of(capsys.readouterr().out) == pytest.approx(small * 5 / 4, abs=0.1)  # a byte more than 3 + 1

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    maps = tmp_path / "maps"
    with monkeypatch.context() as patch:
        patch.setattr("geo_seg.inference.mapper.assemble", killed)
        with pytest.raises(KeyboardInterrupt):
            mapped(small_root, maps)
    assert len(list(maps.glob(".*/00000_second.tif"))) == 1
    capsys.readouterr()
    mapped(small_root, maps)
    assert "resuming; 1 of 1 parts are done already" in capsys.readouterr().out
    assert not list(maps.glob(".*"))
    with rasterio.open(maps / "s5_second.tif") as file:
        assert file.nodata == 255 and (file.read(1)[:, :7] == 255).all()
        seen = file.read(1)[:, 7:]
    with rasterio.open(maps / "s5_probabilities.tif") as file:
        values = file.read()[:, :, 7:].astype(int)
    order = np.sort(values, axis=0)
    clear = (order[2] > order[1]) & (order[1] > order[0])  # of values in 8 bits
    assert clear.mean() > 0.5
    assert (np.argsort(values, axis=0)[1] == seen)[clear].all()


@pytest.mark.slow
def test_a_metric_of_the_users_own_is_logged_and_stands_beside_the_scores(
    small_root: Path, tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_modules(geo_seg.metrics)
    monkeypatch.setattr(metrics, "_METRICS", dict(metrics._METRICS))
    (own / "my_metrics.py").write_text(example("my_metrics.py"))
    run = tmp_path / "run"
    train(configured(small_root, "evaluation.module=my_metrics", "evaluation.draws=0"), run)
    with (run / "metrics.csv").open() as file:
        logged = float(next(csv.DictReader(file))["val/area_error"])
    assert logged >= 0
    found = json.loads((run / "metrics.json").read_text())["test"]
    predicted, labelled = np.sum(found["confusion"], axis=0), np.sum(found["confusion"], axis=1)
    assert [row["area_ratio"] for row in found["classes"]] == pytest.approx(list(predicted / labelled))
    assert found["area_error"] == pytest.approx(float(np.abs(predicted / labelled - 1).mean()))
    with (run / "classes.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert [float(row["area_ratio"]) for row in rows] == pytest.approx(list(predicted / labelled))
    assert {"boundary_iou", "iou", "f1"} <= set(rows[0])


def test_a_source_of_the_users_own_is_trained_on_and_mapped(
    small: DatasetConfig, small_root: Path, tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_image, "_SOURCES", list(open_image._SOURCES))
    (own / "my_sources.py").write_text(example("my_sources.py"))
    root = tmp_path / "listed"
    (root / "images").mkdir(parents=True)
    (root / "masks").symlink_to(small_root / "masks")
    for path in sorted((small_root / "images").glob("*.tif")):
        with rasterio.open(path) as file:
            for band in (1, 2):
                place = {"transform": file.transform, "nodata": 0}
                write_raster(root / "images" / f"{path.stem}_{band}.tif", file.read(band), **place)
        (root / "images" / f"{path.stem}.bands").write_text(f"{path.stem}_1.tif\n{path.stem}_2.tif\n")
    split = replace(small.split, val="images/s4.bands", test="images/s5.bands")
    listed = replace(small, root=str(root), images="images/*.bands", split=split)
    with pytest.raises(DataError, match=r"\.bands: cannot be opened as a raster"):
        SceneDataModule(listed, 0)
    import_own_module("my_sources")
    for name in ("train", "val"):
        theirs, ours = (SceneDataModule(config, 0) for config in (small, listed))
        assert len(theirs.scenes[name]) == len(ours.scenes[name])
        (image, *_), (same, *_) = (
            read_window(config, data.scenes[name][0], Window(5, 3, 20, 30))
            for config, data in ((small, theirs), (listed, ours))
        )
        assert np.array_equal(image, same)

    options: dict[str, Any] = {"module": "my_sources", "probabilities": "none"}
    for scene, output in ((small_root / "images" / "s5.tif", "a"), (root / "images" / "s5.bands", "b")):
        mapped(small_root, tmp_path / output, input=str(scene), **options)
    first, second = (tmp_path / folder / "s5_classes.tif" for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_a_test_of_a_run_imports_what_the_command_line_names_only(
    small_root: Path, tmp_path: Path, own: Path
) -> None:
    (own / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()")
    config = asdict(configured(small_root))
    config["dataset"]["module"] = config["evaluation"]["module"] = config["model"]["module"] = "trap"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    words = ["mode=test", f"checkpoint={tmp_path}"]
    tested = resolve_config(compose_with(*words), words)
    assert tested.dataset.root == str(small_root)
    assert tested.dataset.module is tested.evaluation.module is tested.model.get("module") is None
    assert not (tmp_path / "sprung").exists()


def test_the_loss_of_the_page_is_what_it_says(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses.registry, "_LOSSES", dict(losses.registry._LOSSES))
    (own / "squared_loss.py").write_text(example("losses/squared_loss.py"))
    import_own_module("squared_loss")
    options = yaml.safe_load(example("config/loss/squared.yaml"))
    assert options == {"name": "squared", **losses.options("squared")}
    labels = torch.randint(0, 2, (2, 8, 8), generator=torch.manual_seed(0))
    labels[:, :3] = 255
    logits = torch.randn(2, 1, 8, 8, generator=torch.manual_seed(1))
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = losses.build("squared", losses.Task("binary", 2, 255), scale=2.0)(ours, labels)
    expected = 2 * (plain[:, 0].sigmoid() - labels)[labels != 255].square().mean()
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(ours.grad, plain.grad)


def size_of(said: str) -> float:
    return float(re.search(r"size: ([\d.]+) MB before", said)[1])  # type: ignore[index]


def test_two_models_of_one_name_are_refused(own: Path) -> None:
    import_modules(geo_seg.models)
    (own / "twice.py").write_text(example("my_models.py").replace('"plain"', '"unet"'))
    with pytest.raises(ConfigError, match=r"two models are named 'unet': .*build_smp and twice\.Plain"):
        import_own_module("twice")


def test_a_checkpoint_of_a_stranger_has_nothing_imported(own: Path, tmp_path: Path) -> None:
    (own / "trap.py").write_text(
        f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n{example('my_models.py')}"
    )
    with pytest.raises(CheckpointError, match="'trap', which is only imported if you name it"):
        check_metadata({**GOOD, "model": {"name": "plain", "module": "trap", "width": 4}}, tmp_path)
    model = {"name": "unet", "module": "trap", "encoder": "resnet18", "weights": None}
    check_metadata({**GOOD, "model": model}, tmp_path)
    registry.build_model(model, 2, 2)
    assert not (tmp_path / "sprung").exists() and "trap" not in sys.modules
