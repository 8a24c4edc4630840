"""What several models say, and one model in several views: the mean of their probabilities, in place."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import losses
from geo_seg.checkpoints.checkpoint import Checkpoint
from geo_seg.checkpoints.files import resolve_checkpoint
from geo_seg.errors import CheckpointError, ConfigError
from geo_seg.models.layers import Normalize
from geo_seg.prediction import ensemble
from geo_seg.prediction.tta import VIEWS
from tests.conftest import write_raster
from tests.end_to_end.test_inference import LIMIT, draw, facts, predict, read, windowing
from tests.end_to_end.test_unfinished_maps import interrupted, stop_after


class Shifted(nn.Module):
    """Probability of class 1 grows with band 1 one pixel to the left: it looks in one direction."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        left = torch.roll(image[:, :1], 1, -1)
        return torch.cat([-left, left], 1)


def shifted(**changes: Any) -> Checkpoint:
    known = facts(**{"mean": [1000.0, 0.0], "std": [700.0, 1.0], **changes})
    task = losses.Task(known.mode, 2, 255)
    channel = nn.Sequential(Shifted(), _Difference()) if task.binary else Shifted()
    return Checkpoint(Path("shifted"), known, task, channel, Normalize(known.mean, known.std))


class _Difference(nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, 1:] - logits[:, :1]


def foreground(image: np.ndarray, mean: float, temperature: float = 1) -> np.ndarray:
    """Probability of class 1 that Shifted gives, computed apart."""
    left = np.roll((image.astype(np.float64) - mean) / 700, 1, -1)
    return 1 / (1 + np.exp(-2 * left / temperature))


def predict_all(source: Path, output: Path, found: list[Checkpoint], **options: Any) -> np.ndarray:
    """Maps with an ensemble; gives the probabilities of class 1."""
    models = ensemble.make_ensemble(found, options.get("weights"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geo_seg.inference.run.load_ensemble", lambda _: models)
        predict(source, output, window=128, probabilities="all", **options)
    return read(output / f"{source.stem}_probabilities.tif")[1]


@pytest.mark.parametrize(("name", "count"), [("none", 1), ("flips", 4), ("d4", 8)])
def test_the_views_differ_and_each_is_undone_exactly(name: str, count: int) -> None:
    pixels = torch.arange(2 * 3 * 5).view(1, 2, 3, 5)
    shown = [view.apply(pixels) for view in VIEWS[name]]
    assert len({(tuple(s.shape), tuple(s.flatten().tolist())) for s in shown}) == count
    for view, seen in zip(VIEWS[name], shown, strict=True):
        assert torch.equal(view.invert(seen), pixels)


@pytest.mark.parametrize(("tta", "turns"), [("none", (0,)), ("flips", (0, 2)), ("d4", (0, 1, 2, 3))])
def test_augmented_probabilities_are_the_mean_over_the_views(
    tmp_path: Path, tta: str, turns: tuple[int, ...]
) -> None:
    image = draw((2, 64, 96))  # a window that is not square
    source = write_raster(tmp_path / "image.tif", image)
    predict(source, tmp_path, shifted(), window=128, tta=tta, probabilities="all")
    views = []
    for mirrored in (False, True) if tta != "none" else (False,):
        for turn in turns:
            seen = np.rot90(image[0][:, ::-1] if mirrored else image[0], turn)
            back = np.rot90(foreground(seen, 1000), -turn)
            views.append(back[:, ::-1] if mirrored else back)
    expected = np.mean(views, axis=0) * 254
    found = read(tmp_path / "image_probabilities.tif")[1]
    assert np.abs(found - expected).max() <= 0.51
    np.testing.assert_array_equal(read(tmp_path / "image_classes.tif")[0], np.mean(views, axis=0) > 0.5)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 150), st.integers(1, 150), windowing(), st.sampled_from(["flips", "d4"]))
def test_views_change_nothing_for_a_model_that_sees_one_pixel_whatever_the_windows(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, options: dict[str, Any], tta: str
) -> None:
    folder = tmp_path_factory.mktemp("maps")
    image = draw((2, height, width))
    write_raster(folder / "image.tif", image)
    predict(folder / "image.tif", folder, tta=tta, **options)
    np.testing.assert_array_equal(read(folder / "image_classes.tif")[0], image[0] > LIMIT)


def test_an_ensemble_gives_the_weighted_mean_each_model_with_its_own_statistics(tmp_path: Path) -> None:
    image = draw((2, 64, 96))
    source = write_raster(tmp_path / "image.tif", image)
    found = [shifted(), shifted(mean=[300.0, 0.0])]
    alike = (foreground(image[0], 1000) + foreground(image[0], 300)) / 2
    assert np.abs(predict_all(source, tmp_path, found) - alike * 254).max() <= 0.51
    weighted = foreground(image[0], 1000) * 0.25 + foreground(image[0], 300) * 0.75
    given = predict_all(source, tmp_path, found, weights=[1, 3])
    assert np.abs(given - weighted * 254).max() <= 0.51


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["low", "top"]}, r"other classes than shifted \(low, top; low, high\)"),
        ({"band_names": ["red", "nir"]}, "other bands than"),
        ({"nodata": 0.0}, "other nodata values than"),
        ({"zero_is_nodata": True}, "other rules for pixels of 0"),
    ],
)
def test_models_that_read_or_mean_other_things_are_no_ensemble(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        ensemble.make_ensemble([shifted(), shifted(**changes)])


def loaded(path: str) -> Checkpoint:
    return replace(shifted(), path=resolve_checkpoint(path))


def best_of(run: Path) -> None:
    """A run folder with something in the place of its best checkpoint."""
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "best.ckpt").touch()


def test_weights_and_a_threshold_have_to_fit_the_models() -> None:
    with pytest.raises(ConfigError, match="2 for 1 checkpoints"):
        ensemble.make_ensemble([shifted()], weights=[1, 2])
    with pytest.raises(ConfigError, match=r"threshold=0.3: only for binary models; this one has 2 classes"):
        ensemble.make_ensemble([shifted()], threshold=0.3)


def test_an_ensemble_is_named_by_a_list_or_a_glob(tmp_path: Path) -> None:
    for name in ("run [1]", "run2", "other"):
        best_of(tmp_path / name)
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "load_checkpoint", lambda path: seen.append(Path(path).name) or loaded(path))
        given = [str(tmp_path / "run?*"), str(tmp_path / "other")]
        config = ensemble.InferenceConfig(checkpoint=given, input="x", output="y")
        assert len(ensemble.load_ensemble(config).checkpoints) == 3
        config = ensemble.InferenceConfig(checkpoint=str(tmp_path / "run [1]"), input="x", output="y")
        assert len(ensemble.load_ensemble(config).checkpoints) == 1
    assert seen == ["run [1]", "run2", "other", "run [1]"]


@pytest.mark.parametrize("again", ["a", "./a", "a/checkpoints/best.ckpt", "[ab]"])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0]])
def test_a_checkpoint_that_is_there_twice_is_said_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str, weights: list[float] | None
) -> None:
    best_of(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ensemble, "load_checkpoint", loaded)
    config = ensemble.InferenceConfig(checkpoint=["a", again], weights=weights, input="x", output="y")
    with pytest.raises(
        ConfigError, match=r"a/checkpoints/best.ckpt is given twice; name each checkpoint once"
    ):
        ensemble.load_ensemble(config)


def test_temperature_and_threshold_come_from_the_checkpoint_unless_given(tmp_path: Path) -> None:
    image = draw((2, 64, 96))
    source = write_raster(tmp_path / "image.tif", image)
    own = {"mode": "binary", "temperature": 2.0, "threshold": 0.7}
    for options, temperature, threshold in (
        ({}, 2, 0.7),
        ({"temperature": 0.5}, 0.5, 0.7),
        ({"threshold": 0.2}, 2, 0.2),
    ):
        predict(source, tmp_path, shifted(**own), window=128, probabilities="top", **options)
        expected = foreground(image[0], 1000, temperature)
        classes, (sure,) = read(tmp_path / "image_classes.tif")[0], read(tmp_path / "image_probabilities.tif")
        np.testing.assert_array_equal(classes, expected > threshold)
        assert np.abs(sure - np.where(classes, expected, 1 - expected) * 254).max() <= 0.51


@pytest.mark.parametrize(
    "change", [{"tta": "flips"}, {"temperature": 2.0}, {"found": shifted(temperature=3.0)}]
)
def test_parts_with_other_votes_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setattr("geo_seg.prediction.planner._MIN_PART_ROWS", 1)
    source = write_raster(tmp_path / "image.tif", draw((2, 64 * 3, 64)))
    interrupted(source, tmp_path / "maps", 2, found=shifted())
    seen = stop_after(monkeypatch, 99)
    predict(source, tmp_path / "maps", **{"found": shifted(), "overlap": 0, **change})
    assert len(seen) == 3 * (4 if "tta" in change else 1)
