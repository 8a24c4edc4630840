"""labels= compares maps with labels while they are made: scores, and a raster of what is wrong."""

import json
import pickle
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from geo_seg.config.dataset import DatasetConfig
from geo_seg.config.training import TrainConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.errors import CheckpointError, DataError
from geo_seg.inference.reference_labels import LabelComparison
from geo_seg.raster.reader import read_info
from geo_seg.training.build import _metadata as facts_of
from tests.conftest import draw_scene, write_raster
from tests.end_to_end.test_inference import LIMIT, draw, predict, read, threshold
from tests.end_to_end.test_unfinished_maps import StopError, stop_after

ROWS, COLS = 150, 90


def learnt(**dataset: Any) -> Any:
    """The threshold model, which remembers its data set."""
    classes = [{"name": "low", "values": [7]}, {"name": "high", "values": [9]}]
    given = {"name": "x", "root": "x", "classes": classes, "ignore_values": [3], "window": 64, **dataset}
    return threshold(config={"dataset": given})


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """An image with a strip of nodata, its path, its true classes (255: nodata), and labels with errors."""
    image = draw((2, ROWS, COLS))
    image[:, :10] = 0
    source = write_raster(tmp_path / "in" / "image.tif", image, nodata=0)
    classes = np.where((image == 0).all(0), 255, image[0] > LIMIT)
    labels = np.where(classes == 1, 9, 7).astype(np.uint8)
    labels[20:40, :30] = 9
    labels[:, 80:] = 3
    write_raster(tmp_path / "masks" / "image.tif", labels)
    return source, classes, labels


def table(classes: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    """The confusion matrix, counted apart."""
    seen = classes < 255
    return [[int((seen & (labels == v) & (classes == c)).sum()) for c in (0, 1)] for v in (7, 9)]


def test_scores_and_differences_are_those_of_the_pixels_that_have_both(
    place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, classes, labels = place
    predict(source, tmp_path / "out", learnt(), labels=str(tmp_path / "masks" / "image.tif"))
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    matrix = table(classes, labels)
    assert found["confusion"] == found["scenes"]["image"]["confusion"] == matrix
    (low, missed), (false, _) = matrix
    assert found["classes"][0]["iou"] == pytest.approx(low / (low + missed + false))
    assert "image: mean IoU" in capsys.readouterr().out
    label = np.select([labels == 7, labels == 9], [0, 1], 255)
    expected = np.where(label == classes, 0, label + 1)
    expected[(label == 255) | (classes == 255)] = 255
    np.testing.assert_array_equal(read(tmp_path / "out" / "image_difference.tif")[0], expected)
    with rasterio.open(tmp_path / "out" / "image_difference.tif") as shown:
        assert (shown.nodata, shown.colormap(1)[2][:3]) == (255, (200, 100, 0))
        assert [shown.tags(1)[f"CLASS_{i}"] for i in range(3)] == ["right", "wrong: is low", "wrong: is high"]


def test_a_map_that_goes_on_is_compared_as_a_whole(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, classes, labels = place
    monkeypatch.setattr("geo_seg.prediction.planner._MIN_PART_ROWS", 1)
    options = {"labels": str(tmp_path / "masks"), "overlap": 0}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        stop_after(patch, 3)
        predict(source, tmp_path / "out", learnt(), **options)
    predict(source, tmp_path / "out", learnt(), **options)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["confusion"] == table(classes, labels)


def test_labels_of_many_rasters_are_found_by_name_and_those_without_are_said(
    place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, classes, labels = place
    for name in ("b.tif", "c.tif"):
        write_raster(tmp_path / "in" / name, read(source), nodata=0)
    write_raster(tmp_path / "masks" / "b.tif", labels)
    predict(tmp_path / "in", tmp_path / "out", learnt(), labels=str(tmp_path / "masks" / "*.tif"))
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert sorted(found["scenes"]) == ["b", "image"]
    assert found["confusion"] == (2 * np.array(table(classes, labels))).tolist()
    told = capsys.readouterr().out
    assert "c.tif: no labels for this raster" in told
    assert "all 2 maps: mean IoU" in told


def test_polygons_and_labels_on_another_grid_are_put_on_the_grid_of_the_raster(
    place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, classes, _ = place
    with rasterio.open(source) as image:
        left, bottom, right, top = image.bounds
    boxes = [shapely.box(left, bottom, left + 60, top), shapely.box(left + 60, bottom, right, top)]
    pyogrio.raw.write(
        tmp_path / "all.gpkg", shapely.to_wkb(boxes), [np.array([7, 9])], ["kind"],
        geometry_type="Polygon", crs="EPSG:32633",
    )  # fmt: skip
    halves = np.where(np.arange(COLS) < 30, 7, 9) * np.ones((ROWS, 1), int)
    model = learnt(label={"attribute": "kind"})
    predict(source, tmp_path / "polygons", model, labels=str(tmp_path / "all.gpkg"))
    coarse = write_raster(
        tmp_path / "coarse.tif", np.repeat([[7, 9, 9]], 5, 0).astype(np.uint8),
        transform=rasterio.transform.from_bounds(left, bottom, right, top, 3, 5),
    )  # fmt: skip
    predict(source, tmp_path / "coarse", learnt(), labels=str(coarse))
    assert "are on another grid" in capsys.readouterr().out
    for folder in ("polygons", "coarse"):
        found = json.loads((tmp_path / folder / "metrics.json").read_text())
        assert found["confusion"] == table(classes, halves)


def test_what_is_compared_goes_to_other_processes(place: Any, tmp_path: Path) -> None:
    source, _, _ = place
    scoring = LabelComparison(str(tmp_path / "masks"), {"image": str(source)}, learnt())
    reference = scoring.open("image", read_info(source))
    assert vars(pickle.loads(pickle.dumps(reference))) == vars(reference)  # noqa: S301 - our own


def test_labels_of_no_class_that_are_nodata_do_not_count(place: Any, tmp_path: Path) -> None:
    source, classes, labels = place
    labels[20:40, :30] = 77
    masks = write_raster(tmp_path / "masks" / "image.tif", labels, nodata=77)
    predict(source, tmp_path / "out", learnt(), labels=str(masks))
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["confusion"] == table(classes, labels)


@pytest.mark.parametrize("kind", ["polygons", "colours"])
def test_polygons_and_colours_of_no_class_are_told_what_inference_can_do(
    place: Any, tmp_path: Path, kind: str
) -> None:
    source, _, labels = place
    if kind == "polygons":
        with rasterio.open(source) as image:
            box = shapely.to_wkb([shapely.box(*image.bounds)])
        given, model = tmp_path / "all.gpkg", learnt(label={"attribute": "kind"})
        pyogrio.raw.write(
            given, box, [np.array([77])], ["kind"], geometry_type="Polygon", crs="EPSG:32633"
        )  # fmt: skip
    else:
        classes = [{"name": "low", "values": ["#000000"]}, {"name": "high", "values": ["#ffffff"]}]
        given = write_raster(tmp_path / "colours.tif", np.stack([labels] * 3))
        model = learnt(classes=classes, ignore_values=[])
    with pytest.raises(DataError, match="recode the labels, or set values to ignore to nodata") as found:
        predict(source, tmp_path / "out", model, labels=str(given))
    assert "dataset." not in str(found.value)


def test_labels_that_do_not_fit_are_said_before_any_work(place: Any, tmp_path: Path) -> None:
    source, _, labels = place
    seen = stop_after(patch := pytest.MonkeyPatch(), 99)
    labels[5, 5] = 77
    strange = write_raster(tmp_path / "strange.tif", labels)
    with pytest.raises(DataError, match=r"mask values in no class: 77 \(1 px\)") as found:
        predict(source, tmp_path / "out", learnt(), labels=str(strange))
    assert "recode the labels, or set values to ignore to nodata" in str(found.value)
    assert "dataset." not in str(found.value)  # inference has no such options
    with pytest.raises(DataError, match=r"labels=.*nowhere: no such file"):
        predict(source, tmp_path / "out", learnt(), labels=str(tmp_path / "nowhere"))
    write_raster(tmp_path / "in" / "other.tif", read(source))
    with pytest.raises(DataError, match=r"no file has the name of a raster, for example image.tif"):
        predict(tmp_path / "in", tmp_path / "out", learnt(), labels=str(strange))
    with pytest.raises(CheckpointError, match="doesn't define the meaning of label values"):
        predict(source, tmp_path / "out", threshold(), labels=str(strange))
    patch.undo()
    assert not seen


@pytest.mark.fault("report", "labels= on training scenes did not say so")
@pytest.mark.parametrize("placed", [True, False], ids=["with georeference", "without"])
def test_scores_of_scenes_that_a_model_was_trained_on_are_told_as_such(
    tmp_path: Path, small: DatasetConfig, capsys: pytest.CaptureFixture[str], placed: bool
) -> None:
    root = tmp_path / "set"
    for seed in range(6):
        image, mask = draw_scene(seed)
        ground = from_origin(1000 * seed, 0, 2, 2) if placed else None
        grid = {"crs": "EPSG:32633" if placed else None, "transform": ground}
        write_raster(root / "images" / f"s{seed}.tif", image, nodata=0, **grid)
        write_raster(root / "masks" / f"s{seed}.tif", mask, **grid)
    config = replace(small, root=str(root), allow_leakage=True)
    training = TrainConfig(dataset=config, model={"name": "unet"})
    known = facts_of(training, SceneDataModule(config, 0)).trained_on
    assert len(known) == 4
    classes = [{"name": "low", "values": [0, 1]}, {"name": "high", "values": [2]}]
    model = threshold(trained_on=known, config={"dataset": asdict(replace(config, classes=classes))})
    shutil.copytree(root / "images", tmp_path / "elsewhere")
    predict(tmp_path / "elsewhere", tmp_path / "maps", model, labels=str(root / "masks"))
    said = capsys.readouterr().out
    told = "is a scene that the model was trained on"
    assert [number for number in range(6) if f"s{number}.tif: {told}" in said] == [0, 1, 2, 3]
    predict(tmp_path / "elsewhere" / "s0.tif", tmp_path / "maps", model)
    assert told not in capsys.readouterr().out  # there are no scores
