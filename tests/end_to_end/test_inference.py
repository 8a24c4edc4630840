"""A map is what the model says of every pixel, on exactly the raster's grid, whatever the windows."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import geo_seg
import losses
from geo_seg.checkpoints import checkpoint
from geo_seg.checkpoints.checkpoint import Checkpoint, CheckpointMetadata
from geo_seg.config.inference import InferenceConfig
from geo_seg.errors import ConfigError, DataError
from geo_seg.inference import mapper
from geo_seg.inference import run as inference
from geo_seg.models.layers import Normalize
from geo_seg.models.registry import build_model
from geo_seg.prediction import ensemble, planner
from tests.conftest import Run, write_raster

LIMIT = 1000
NAMES = ["low", "high"]


class Threshold(nn.Module):
    """Class 1 where band 1 (mean 0, deviation 1) is above LIMIT, surely."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        above = (image[:, :1] > LIMIT).float() * 2 - 1
        return torch.cat([-above, above], 1) * 40


def facts(**changes: Any) -> CheckpointMetadata:
    given: dict[str, Any] = {
        "mode": "multiclass",
        "class_names": NAMES,
        "class_colors": [[10, 20, 30], [200, 100, 0]],
        "ignore_index": 255,
        "bands": None,
        "band_names": ["1", "2"],
        "nodata": None,
        "dtype": "uint16",
        "mean": [0.0, 0.0],
        "std": [1.0, 1.0],
        "window": 64,
        "model": {"name": "unet", "encoder": "resnet18", "weights": None},
        "config": {},
        "versions": {},
    }
    return CheckpointMetadata(**given | changes)


def threshold(**changes: Any) -> Checkpoint:
    known = facts(**changes)
    task = losses.Task(known.mode, len(known.class_names), known.ignore_index)
    return Checkpoint(Path("x"), known, task, Threshold(), Normalize(known.mean, known.std))


def predict(path: object, output: Path, found: Checkpoint | None = None, **options: Any) -> list[Any]:
    """Maps with the threshold, in windows of 64."""
    given = {"window": 64, "margin": 0, "overlap": 16, "accelerator": "cpu", "precision": "fp32", **options}
    given |= {"checkpoint": "x", "input": path if isinstance(path, list) else str(path)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble, "load_checkpoint", lambda _: found or threshold())
        return inference.run(InferenceConfig(output=str(output), **given))


def draw(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 2 * LIMIT, shape, np.uint16)


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read()


@st.composite
def windowing(draw: st.DrawFn) -> dict[str, Any]:
    """Options that decide how a raster is cut, and nothing else."""
    window = draw(st.sampled_from([64, 96]))
    margin = draw(st.integers(0, window // 4))
    return {
        "window": window,
        "margin": margin,
        "overlap": draw(st.integers(0, window // 2 - 2 * margin)),
        "blend": draw(st.sampled_from(["crop", "linear", "hann"])),
        "batch_size": draw(st.integers(1, 5)),
    }


@pytest.fixture
def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of one row of windows in panels of two columns."""
    monkeypatch.setattr(planner, "_MIN_PART_ROWS", 1)
    monkeypatch.setattr(planner.Planner, "_panel_cols", lambda *_: 2)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 200), st.integers(1, 200), windowing(), st.booleans())
def test_the_map_equals_the_threshold_of_the_whole_image_whatever_the_windows(
    cut_small: None,
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    options: dict[str, Any],
    panels: bool,
) -> None:
    folder = tmp_path_factory.mktemp("maps")
    image = draw((2, height, width))
    image[:, : height // 3, : width // 2] = 0
    write_raster(folder / "image.tif", image, nodata=0)
    predict(folder / "image.tif", folder, max_memory=1.0 if panels else None, **options)
    expected = np.where((image == 0).all(0), 255, image[0] > LIMIT)
    np.testing.assert_array_equal(read(folder / "image_classes.tif")[0], expected)


def test_freed_memory_is_kept_unless_memory_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[float | None] = []
    source = write_raster(tmp_path / "image.tif", draw((2, 70, 90)))
    for limit in (None, 1.0):
        monkeypatch.setattr(mapper, "tune_malloc", lambda limit=limit: kept.append(limit))
        predict(source, tmp_path, max_memory=limit, exists="overwrite")
    assert kept == [None]


def test_zero_is_nodata_in_the_map_when_it_was_in_training(tmp_path: Path) -> None:
    image = draw((2, 70, 90))
    image[:, :20] = 0
    source = write_raster(tmp_path / "image.tif", image)
    for zero_is_nodata, expected in ((False, 0), (True, 255)):
        predict(source, tmp_path, threshold(zero_is_nodata=zero_is_nodata))
        assert set(read(tmp_path / "image_classes.tif")[0, :20].flat) == {expected}


class Coordinates(nn.Module):
    """Of 256 classes the one that band 1 (its column) and band 2 (its row) of a pixel name."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        place = (image[:, 0] + 7 * image[:, 1]).long() % 256
        return nn.functional.one_hot(place, 256).permute(0, 3, 1, 2).float() * 40


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 180), st.integers(1, 180), windowing())
def test_every_pixel_of_the_map_comes_from_its_own_place(
    cut_small: None,
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    options: dict[str, Any],
) -> None:
    folder = tmp_path_factory.mktemp("maps")
    rows, cols = np.mgrid[:height, :width]
    source = write_raster(folder / "image.tif", np.stack([cols, rows]).astype(np.uint16))
    names = [f"c{i}" for i in range(256)]
    known = facts(class_names=names, class_colors=[[i, 0, 0] for i in range(256)])
    task = losses.Task("multiclass", 256, 999)
    found = Checkpoint(Path("x"), known, task, Coordinates(), Normalize(known.mean, known.std))
    predict(source, folder, found, max_memory=1.0, **options)
    np.testing.assert_array_equal(read(folder / "image_classes.tif")[0], (cols + 7 * rows) % 256)


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"transform": Affine(3, 0, 10, 0, 3, 20)},  # south-up
        {"transform": Affine(3, 1, 10, 1, -3, 20)},  # rotated
        {"crs": None, "transform": None},
        {"crs": "EPSG:4326"},
    ],
)
def test_the_map_lies_exactly_on_the_raster_and_says_what_the_classes_are(
    tmp_path: Path, profile: dict[str, Any]
) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 70, 90)), **profile)
    predict(source, tmp_path / "maps")
    with rasterio.open(source) as image, rasterio.open(tmp_path / "maps" / "image_classes.tif") as found:
        assert (found.shape, found.crs, found.transform) == (image.shape, image.crs, image.transform)
        assert (found.dtypes, found.nodata) == (("uint8",), 255)
        assert [found.colormap(1)[i][:3] for i in range(2)] == [(10, 20, 30), (200, 100, 0)]
        assert found.tags(1)["CLASS_1"] == "high"
    table = ET.parse(tmp_path / "maps" / "image_classes.tif.aux.xml")  # noqa: S314 - our own file
    assert [node.text for node in table.iter("Category")] == NAMES
    rows = "0 low 10 20 30 1 high 200 100 0"
    assert [node.text for node in table.iter("F")] == rows.split()
    style = (tmp_path / "maps" / "image_classes.qml").read_text()
    assert style.startswith("<!DOCTYPE qgis PUBLIC")
    (renderer,) = ET.fromstring(style).findall("pipe/rasterrenderer")  # noqa: S314
    assert (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    entries = [(e.get("value"), e.get("label"), e.get("color")) for e in renderer.iter("paletteEntry")]
    assert entries == [("0", "low", "#0a141e"), ("1", "high", "#c86400")]


def test_probabilities_are_written_beside_the_classes_when_asked_for(tmp_path: Path) -> None:
    image = draw((2, 70, 90))
    image[:, 60:] = 0
    source = write_raster(tmp_path / "image.tif", image, nodata=0)
    predict(source, tmp_path / "top", probabilities="top")
    predict(source, tmp_path / "all", probabilities="all")
    predict(source, tmp_path / "none")
    assert not (tmp_path / "none" / "image_probabilities.tif").exists()
    top, each = (read(tmp_path / kind / "image_probabilities.tif") for kind in ("top", "all"))
    assert (top[0, :60] == 254).all()
    np.testing.assert_array_equal(each[1, :60], np.where(image[0, :60] > LIMIT, 254, 0))
    assert (each[:, 60:] == 255).all()
    with rasterio.open(tmp_path / "all" / "image_probabilities.tif") as found:
        assert found.descriptions == ("low", "high")
        assert (found.nodata, found.scales) == (255, (1 / 254, 1 / 254))


class Known(nn.Module):
    """Three classes of probabilities .7, .2 and .1."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = torch.tensor([0.1, 0.7, 0.2]).log().view(1, 3, 1, 1)
        return logits.expand(len(image), 3, *image.shape[2:])


def known() -> Checkpoint:
    given = facts(class_names=["a", "b", "c"], class_colors=[[0, 0, i] for i in range(3)])
    return Checkpoint(
        Path("x"), given, losses.Task("multiclass", 3, 255), Known(), Normalize(given.mean, given.std)
    )


@pytest.mark.parametrize(
    ("kind", "stored", "bits", "tolerance"),
    [
        ("uint8", "uint8", None, 0.5 / 254),
        ("float16", "float32", "16", 5e-4),
        ("float32", "float32", None, 1e-6),
    ],
)
def test_probabilities_and_uncertainty_are_stored_in_the_type_asked_for(
    tmp_path: Path, kind: str, stored: str, bits: str | None, tolerance: float
) -> None:
    image = draw((2, 70, 90))
    image[:, 60:] = 0
    source = write_raster(tmp_path / "image.tif", image, nodata=0)
    predict(source, tmp_path, known(), probabilities="all", uncertainty=True, probability_type=kind)
    entropy = -sum(p * np.log(p) for p in (0.1, 0.7, 0.2)) / np.log(3)
    expected = {
        "probabilities": {"a": 0.1, "b": 0.7, "c": 0.2},
        "uncertainty": {"margin": 0.5, "entropy": entropy},
    }
    for name, bands in expected.items():
        with rasterio.open(tmp_path / f"image_{name}.tif") as found:
            assert found.descriptions == tuple(bands)
            assert found.dtypes == (stored,) * len(bands)
            assert found.tags(1, ns="IMAGE_STRUCTURE").get("NBITS") == bits
            assert found.colorinterp[0] == rasterio.enums.ColorInterp.gray  # three bands are no picture
            values = found.read(masked=True)
            assert values.mask[:, 60:].all()
            assert not values.mask[:, :60].any()
            for band, scale, value in zip(values, found.scales, bands.values(), strict=True):
                assert band.max() * scale == pytest.approx(value, abs=tolerance)
        style = ET.fromstring((tmp_path / f"image_{name}.qml").read_text())  # noqa: S314
        assert [r.get("type") for r in style.iter("rasterrenderer")] == ["singlebandgray"]
        assert style.findtext(".//maxValue") == ("254" if kind == "uint8" else "1")


def test_confidence_of_polygons_comes_from_probabilities_of_any_type(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 70, 90)))
    for probabilities, kind in (("top", "float32"), ("all", "uint8"), ("all", "float16")):
        options = {"probabilities": probabilities, "probability_type": kind}
        predict(source, tmp_path, known(), polygons=True, **options)
        meta, _, _, columns = pyogrio.raw.read(tmp_path / "image_polygons.gpkg", layer="classes")
        assert columns[list(meta["fields"]).index("confidence")] == pytest.approx([0.7], abs=2e-3)


def test_polygons_of_the_map_come_with_its_class_names_areas_and_confidence(tmp_path: Path) -> None:
    image = np.full((2, 70, 90), LIMIT, np.uint16)
    image[0, 10:30, 20:40] += 1
    image[0, 50, 50] += 1
    source = write_raster(tmp_path / "image.tif", image)
    predict(source, tmp_path / "plain", polygons=True)
    predict(source, tmp_path / "maps", polygons=True, min_area=5, simplify=1, probabilities="top")
    assert pyogrio.read_info(tmp_path / "plain" / "image_polygons.gpkg", layer="classes")["features"] == 3
    meta, _, found, columns = pyogrio.raw.read(tmp_path / "maps" / "image_polygons.gpkg", layer="classes")
    table = dict(zip(meta["fields"], columns, strict=True))
    assert table["name"].tolist() == ["low", "high"]
    on_the_ground = np.array([(6300 - 400) * 4, 400 * 4]) / 0.9996**2  # the scale of UTM at its middle
    np.testing.assert_allclose(table["area_m2"], on_the_ground, rtol=1e-6)
    assert table["confidence"].tolist() == [1, 1]
    assert shapely.from_wkb(found[1]).equals(shapely.box(500040, 5000000 - 60, 500080, 5000000 - 20))


def test_bands_are_found_by_name_in_any_order_and_by_number_without_names(tmp_path: Path) -> None:
    image = draw((3, 70, 90))
    named = write_raster(tmp_path / "image.tif", image)
    with rasterio.open(named, "r+") as target:
        target.descriptions = ("Extra", "NIR", "Red")
    predict(named, tmp_path / "a", threshold(band_names=["red", "nir"]))
    np.testing.assert_array_equal(read(tmp_path / "a" / "image_classes.tif")[0], image[2] > LIMIT)
    predict(named, tmp_path / "b", threshold(bands=[2, 1]))
    np.testing.assert_array_equal(read(tmp_path / "b" / "image_classes.tif")[0], image[1] > LIMIT)


def test_a_wide_window_reads_the_wide_raster_and_a_pixel_gets_its_own_map(tmp_path: Path) -> None:
    for name, shape in (("row", (2, 1, 300)), ("column", (2, 300, 1)), ("pixel", (2, 1, 1))):
        image = draw(shape)
        predict(write_raster(tmp_path / f"{name}.tif", image), tmp_path)
        np.testing.assert_array_equal(read(tmp_path / f"{name}_classes.tif")[0], image[0] > LIMIT)


def test_many_classes_get_a_wider_type(tmp_path: Path) -> None:
    class Last(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(len(image), 300, *image.shape[2:])
            logits[:, 299] = 9
            return logits

    known = facts(
        class_names=[f"c{i}" for i in range(300)], class_colors=[[i % 256, 0, 0] for i in range(300)]
    )
    task = losses.Task("multiclass", 300, 999)
    found = Checkpoint(Path("x"), known, task, Last(), Normalize(known.mean, known.std))
    predict(write_raster(tmp_path / "image.tif", draw((2, 40, 40))), tmp_path, found)
    assert (read(tmp_path / "image_classes.tif") == 299).all()
    with rasterio.open(tmp_path / "image_classes.tif") as source:
        assert (source.dtypes, source.nodata) == (("uint16",), 65535)


# --- many inputs -------------------------------------------------------------------------------------------


def scenes(folder: Path, *names: str) -> list[str]:
    return [str(write_raster(folder / name, draw((2, 40, 40)))) for name in names]


def maps(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix == ".tif")


def test_a_folder_a_glob_and_a_list_are_mapped_file_by_file(tmp_path: Path) -> None:
    paths = scenes(tmp_path / "in", "a.tif", "b.tif", "c.png")
    (tmp_path / "in" / "notes.txt").write_text("no raster")
    predict(tmp_path / "in", tmp_path / "folder")
    assert maps(tmp_path / "folder") == ["a_classes.tif", "b_classes.tif", "c_classes.tif"]
    predict(tmp_path / "in" / "*.tif", tmp_path / "glob")
    assert maps(tmp_path / "glob") == ["a_classes.tif", "b_classes.tif"]
    predict(paths[1:], tmp_path / "list")
    assert maps(tmp_path / "list") == ["b_classes.tif", "c_classes.tif"]


def test_maps_beside_their_images_are_no_input_of_the_next_run(tmp_path: Path) -> None:
    scenes(tmp_path, "a.tif")
    for _ in range(2):
        predict(tmp_path, tmp_path, probabilities="top")
    assert maps(tmp_path) == ["a.tif", "a_classes.tif", "a_probabilities.tif"]


def test_images_of_one_name_in_several_folders_get_maps_of_their_own(tmp_path: Path) -> None:
    scenes(tmp_path, "one/b.tif", "two/b.tif")
    predict(tmp_path / "*" / "b.tif", tmp_path / "out")
    assert maps(tmp_path / "out") == ["one_b_classes.tif", "two_b_classes.tif"]
    scenes(tmp_path, "same/a.tif", "same/a.png")
    with pytest.raises(DataError, match="same name"):
        predict(tmp_path / "same", tmp_path / "out")


def test_one_bad_raster_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes(tmp_path / "in", "a.tif", "c.tif")
    (tmp_path / "in" / "b.tif").write_text("not a raster")
    with pytest.raises(DataError, match="1 of 3 rasters were not mapped"):
        predict(tmp_path / "in", tmp_path / "out")
    assert maps(tmp_path / "out") == ["a_classes.tif", "c_classes.tif"]
    assert "b.tif: cannot be opened as a raster" in capsys.readouterr().err


def test_a_map_that_is_there_is_overwritten_skipped_or_an_error(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 40, 40)))
    predict(source, tmp_path)
    (tmp_path / "image_classes.tif").write_text("mine")
    assert predict(source, tmp_path, exists="skip") == []
    with pytest.raises(DataError, match="exists already"):
        predict(source, tmp_path, exists="error")
    assert (tmp_path / "image_classes.tif").read_text() == "mine"
    assert len(predict(source, tmp_path)) == 1
    assert read(tmp_path / "image_classes.tif").shape == (1, 40, 40)


def test_files_of_an_earlier_map_are_named_when_the_new_one_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 40, 40)))
    predict(source, tmp_path, polygons=True, probabilities="top")
    assert "earlier map" not in capsys.readouterr().out
    predict(source, tmp_path, probabilities="top")
    said = capsys.readouterr().out
    assert "image_polygons.gpkg: belongs to an earlier map" in said
    assert "image_probabilities.tif: is of" not in said


# --- what doesn't fit --------------------------------------------------------------------------------------


def test_a_raster_with_fewer_bands_is_an_error_that_names_those_of_the_model(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "image.tif", draw((1, 40, 40)))
    with pytest.raises(DataError, match=r"has 1 bands, the model takes 2 \(red, nir\)"):
        predict(source, tmp_path / "out", threshold(band_names=["red", "nir"]))
    with pytest.raises(DataError, match="no band 2"):
        predict(source, tmp_path / "out", threshold(bands=[1, 2]))
    assert maps(tmp_path / "out") == []


def test_a_truncated_raster_leaves_no_map(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 300, 300)), compress="deflate")
    source.write_bytes(source.read_bytes()[:-9000])
    with pytest.raises(DataError, match="truncated or corrupt"):
        predict(source, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_values_of_another_type_are_mapped_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(write_raster(tmp_path / "image.tif", draw((2, 40, 40)).astype(np.float32)), tmp_path)
    assert "holds float32, the training images uint16" in capsys.readouterr().out
    predict(write_raster(tmp_path / "other.tif", draw((2, 40, 40))), tmp_path)
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none.tif", "no such file or folder"),
        ("*.jp2", "no file matches"),
        ("", "expected a file"),
        ([], "no raster"),
    ],
)
def test_input_that_is_not_there_is_said_before_any_work(tmp_path: Path, given: Any, message: str) -> None:
    source: Any = str(tmp_path / given) if given else given
    with pytest.raises((DataError, ConfigError), match=message):
        predict(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="no raster found"):
        predict(tmp_path / "in", tmp_path / "out")


def test_an_overlap_that_the_window_cannot_hold_is_refused(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 40, 40)))
    with pytest.raises(ConfigError, match=r"would share 40 px .* at most half of window=64"):
        predict(source, tmp_path, overlap=40)


# --- the command line, with a real model -------------------------------------------------------------------


def write_checkpoint(folder: Path) -> Path:
    """Makes a run folder with a model that nobody trained."""
    known = facts(mean=[900.0, 900.0], std=[500.0, 500.0])
    torch.manual_seed(0)
    model = build_model(known.model, 2, 2)
    (folder / "checkpoints").mkdir()
    weights = {f"model.{key}": value for key, value in model.state_dict().items()}
    content = {"state_dict": weights, checkpoint.METADATA_KEY: checkpoint.to_dict(known)}
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run"))


def command(run: Run, trained: Path, source: Path, *options: str) -> Any:
    return run("inference.py", f"checkpoint={trained}", f"input={source}", "output=maps", *options)


def test_the_command_line_maps_a_raster_from_another_folder(run: Run, trained: Path, tmp_path: Path) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 150, 170)))
    result = command(run, trained, source, "precision=fp32")
    assert (result.returncode, result.stderr) == (0, "")
    assert "maps/image_classes.tif: 0.03 Mpx" in result.stdout
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == [
        "image_classes.qml",
        "image_classes.tif",
        "image_classes.tif.aux.xml",
        "summary.json",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.tif", "maps"]
    # the windows hold the whole raster: the map is what the model says of it at once
    found = checkpoint.load_checkpoint(trained)
    image = torch.from_numpy(read(source).astype(np.int32))[None]
    padded = torch.nn.functional.pad(image.float(), (0, 22, 0, 10), mode="reflect")
    with torch.inference_mode():
        logits = found.model(found.normalize(padded, torch.ones(1, 160, 192, dtype=torch.bool)))
    expected = found.task.decode(logits)[0, :150, :170].numpy()
    assert (read(tmp_path / "maps" / "image_classes.tif")[0] == expected).mean() > 0.9999


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("window=100", "window=100: expected auto, or a multiple of 32"),
        ("window=big", "window=big: expected auto, or a multiple of 32"),
        ("margin=-1", "margin=-1: expected auto, or 0 or more pixels, or null"),
        ("overlap=-1", "overlap=-1: expected 0 or more"),
        ("overlap=800", "at most half of window="),
        ("blend=han", "blend=han: unknown choice 'han'; did you mean 'hann'"),
        ("batch_size=0", "batch_size=0: expected auto, or 1 or more"),
        ("max_memory=0", "max_memory=0: expected more than 0 gigabytes, or null"),
        ("max_memory=0.001", "one column of windows of 256 takes"),
        ("probabilities=some", "probabilities=some: unknown choice 'some'"),
        ("min_area=-1", "min_area=-1: expected 0 or more"),
        ("simplify=1", "simplify=1: only polygons have it; add polygons=true"),
        ("probability_type=float16", "no probabilities are written; add probabilities=top"),
        ("probability_type=int8", "probability_type=int8: unknown choice 'int8'"),
        ("exists=maybe", "exists=maybe: unknown choice 'maybe'; available: error, overwrite, skip"),
        ("precision=fp8", "precision=fp8: unknown choice 'fp8'"),
        ("checkpoint=nowhere", "nowhere: no such checkpoint"),
        ("input=nowhere.tif", "input=nowhere.tif: no such file or folder"),
        ("output=/proc/maps", "output=/proc/maps: nothing can be written there"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    run: Run, trained: Path, tmp_path: Path, option: str, message: str
) -> None:
    source = write_raster(tmp_path / "image.tif", draw((2, 40, 40)))
    result = command(run, trained, source, option)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.glob("maps/*"))


@pytest.mark.fault("names", "a class raster doesn't say which checkpoint and version made it")
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/home/somebody/runs/dubai/checkpoints/best.ckpt", "dubai/checkpoints/best.ckpt"),
        ("/home/somebody/model.ckpt", "model.ckpt"),
        ("checkpoints/last.ckpt", "last.ckpt"),
    ],
)
def test_rasters_name_checkpoint_and_version_and_no_path(tmp_path: Path, path: str, said: str) -> None:
    made = replace(threshold(), path=Path(path))
    source = write_raster(tmp_path / "image.tif", draw((2, 30, 40)))
    predict(source, tmp_path / "maps", made, probabilities="top", uncertainty=True)
    for kind in ("classes", "probabilities", "uncertainty"):
        with rasterio.open(tmp_path / "maps" / f"image_{kind}.tif") as found:
            assert found.tags()["GEO_SEG_CHECKPOINT"] == said
            assert found.tags()["TIFFTAG_SOFTWARE"] == f"geo_seg {geo_seg.__version__}"
