"""A run starts from a trained model: weights by name, the head by class, the first layer by band."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from geo_seg.checkpoints.checkpoint import METADATA_KEY, CheckpointMetadata, load_checkpoint, to_dict
from geo_seg.checkpoints.initial_weights import start_from
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.errors import ConfigError
from geo_seg.training.build import build_module
from geo_seg.training.evaluate_run import evaluate_run
from geo_seg.training.module import SegmentationModule
from geo_seg.training.run import run as train
from tests.conftest import Run
from tests.end_to_end.test_inference import facts
from tests.end_to_end.test_interrupted_training import SMALL, weights
from tests.end_to_end.test_training import clean_hydra, configured  # noqa: F401 - a fixture

OPTIONS = (SMALL, "trainer.precision=32", "augment=none")


@pytest.fixture(scope="module")
def source(small_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "source"
    train(configured(small_root, *OPTIONS, "trainer.limit_train_batches=8"), folder)
    return folder


def built(root: Path, *overrides: str) -> SegmentationModule:
    config = configured(root, *OPTIONS, *overrides)
    return build_module(config, SceneDataModule(config.dataset, 0))


class Net(nn.Module):
    """A first layer, and a head."""

    def __init__(self, bands: int, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(bands, 4, 3)
        self.head = nn.Conv2d(4, channels, 1)


def saved(folder: Path, model: nn.Module, metadata: CheckpointMetadata) -> str:
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, METADATA_KEY: to_dict(metadata)}, folder / "trained.ckpt")
    return str(folder / "trained.ckpt")


def described(bands: list[str], classes: list[str], **changes: object) -> CheckpointMetadata:
    numbers = range(1, len(bands) + 1)
    given: dict[str, object] = {
        "class_names": classes,
        "class_colors": [[0, 0, 0]] * len(classes),
        "bands": list(bands),
        "band_names": list(bands),
        "mean": [100.0 * n for n in numbers],
        "std": [10.0 * n for n in numbers],
    }
    return facts(**given | changes)


def test_on_the_same_classes_and_bands_the_scores_are_the_checkpoints(
    small_root: Path, source: Path, tmp_path: Path
) -> None:
    module = built(small_root, f"init={source}")
    trained = load_checkpoint(source)
    for name, value in trained.model.state_dict().items():
        assert torch.equal(module.model.state_dict()[name], value), name
    folder = tmp_path / "copy" / "checkpoints"
    folder.mkdir(parents=True)
    calibrated = replace(module.metadata, temperature=trained.temperature, threshold=trained.threshold)
    torch.save({"state_dict": module.state_dict(), METADATA_KEY: to_dict(calibrated)}, folder / "best.ckpt")
    scores = []
    for run in (source, tmp_path / "copy"):
        options = configured(small_root, *OPTIONS, "mode=test", f"checkpoint={run}")
        evaluate_run(options, tmp_path / f"test_{run.name}", Console(quiet=True))
        content = json.loads((tmp_path / f"test_{run.name}" / "metrics.json").read_text())
        scores.append(
            {
                split: {k: v for k, v in content[split].items() if k != "prediction"}
                for split in ("val", "test")
            }
        )
    assert scores[0] == scores[1]


def test_the_head_follows_the_names_of_the_classes(small_root: Path, source: Path) -> None:
    rows = ("new,values:[9]", "high,values:[2]", "low,values:[0]", "middle,values:[1]")
    classes = f"dataset.classes=[{','.join(f'{{name:{row}}}' for row in rows)}]"
    module = built(small_root, f"init={source}", classes)
    fresh = built(small_root, classes)
    there = load_checkpoint(source).model.net.segmentation_head[0]
    head, untrained = (m.model.net.segmentation_head[0] for m in (module, fresh))
    for here, row in ((1, 2), (2, 0), (3, 1)):
        assert torch.equal(head.weight[here], there.weight[row])
        assert torch.equal(head.bias[here], there.bias[row])
    assert torch.equal(head.weight[0], untrained.weight[0])
    assert "taken: high, low, middle; new: new" in module.model.origin


@pytest.mark.parametrize(
    ("bands", "matches", "scale"),
    [
        (["red", "green", "blue"], [0, 1, 2], 1),
        (["blue", "red", "green"], [2, 0, 1], 1),
        (["red", "nir", "blue"], [0, None, 2], 1),
        (["green"], [1], 3),
        (["red", "green", "blue", "nir", "swir16", "swir22"], [0, 1, 2, None, None, None], 0.5),
    ],
)
def test_the_first_layer_follows_the_names_of_the_bands(
    tmp_path: Path, bands: list[str], matches: list[int | None], scale: float
) -> None:
    trained, model = Net(3, 2), Net(len(bands), 2)
    path = saved(tmp_path, trained, described(["red", "green", "blue"], ["a", "b"]))
    metadata = described(bands, ["a", "b"], mean=[1.0] * len(bands), std=[2.0] * len(bands))
    result, table = start_from(model, metadata, path, keeps_normalization=True)
    weight: Tensor = trained.encoder.weight
    for band, match in enumerate(matches):
        expected = weight.mean(1) if match is None else weight[:, match]
        assert torch.allclose(model.encoder.weight[:, band], expected * scale)
        assert result.mean[band] == (1.0 if match is None else 100.0 * (match + 1))
        assert result.std[band] == (2.0 if match is None else 10.0 * (match + 1))
    assert torch.equal(model.encoder.bias, trained.encoder.bias)
    assert ("new:" in table.split("bands")[1]) == (None in matches)
    own, table = start_from(model, metadata, path, keeps_normalization=False)
    assert own == metadata
    assert "of this data set" in table


def test_a_binary_head_is_taken_for_the_same_foreground_only(tmp_path: Path) -> None:
    trained = Net(1, 1)
    path = saved(tmp_path, trained, described(["1"], ["land", "water"], mode="binary"))
    for name, is_taken in (("water", True), ("roof", False)):
        model = Net(1, 1)
        before = model.head.weight.clone()
        start_from(model, described(["1"], ["rest", name], mode="binary"), path, keeps_normalization=True)
        assert torch.equal(model.head.weight, trained.head.weight if is_taken else before)


def test_layers_of_another_width_begin_anew_and_the_table_says_so(small_root: Path, source: Path) -> None:
    module = built(small_root, f"init={source}", "model.decoder_channels=[64,32,16,8,4]")
    lines = module.model.origin.splitlines()
    assert next(line for line in lines if line.startswith("  encoder")).endswith("100% of its weights taken")
    assert next(line for line in lines if line.startswith("  segmentation_head")).split()[1] == "0%"


def test_a_run_goes_on_from_its_own_checkpoint_with_the_same_normalization(
    small_root: Path, source: Path, tmp_path: Path
) -> None:
    options = (*OPTIONS, f"init={source}", "dataset.normalize=minmax")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(configured(small_root, *options, "trainer.max_epochs=2"), whole)
    train(configured(small_root, *options, "trainer.max_epochs=1", "scheduler=constant"), parts)
    assert load_checkpoint(parts).metadata.mean == load_checkpoint(source).metadata.mean
    config = configured(small_root, *options, "trainer.max_epochs=2", "scheduler=constant", f"resume={parts}")
    train(replace(config, init=config.init), parts)
    assert load_checkpoint(parts).metadata.mean == load_checkpoint(source).metadata.mean
    assert torch.equal(weights(parts)["normalize.mean"], weights(whole)["normalize.mean"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=fpn"], "has model=unet, this run model=fpn; give model=unet, or model.weights=<file>"),
        (
            ["model.encoder=resnet18"],
            "has model.encoder=tu-mobilenetv3_small_050, this run model.encoder=res",
        ),
    ],
)
def test_another_architecture_is_answered_in_one_line(
    small_root: Path, source: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        built(small_root, f"init={source}", *overrides)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_program_or_none_is_answered(small_root: Path, tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match=r"init=.*other\.pt: not a checkpoint of geo_seg"):
        built(small_root, f"init={tmp_path / 'other.pt'}")
    with pytest.raises(ConfigError, match=r"init=nowhere: nowhere: no such checkpoint"):
        built(small_root, "init=nowhere")


def test_a_normalization_without_a_model_to_start_from_is_refused(run: Run) -> None:
    ended = run("train.py", "init_normalize=data")
    assert "init_normalize=data: does nothing here; it is for init=<run>" in ended.stderr
