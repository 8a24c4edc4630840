"""The leakage audit: what training windows show of val and test is found, wherever it comes from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform

from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.index import SceneIndex
from geo_seg.data.scenes.leakage import find_leaks
from geo_seg.data.scenes.scene import Scene
from geo_seg.errors import DataError
from geo_seg.tiling import Window
from tests.conftest import draw_scene, write_raster

TRAIN = (500000.0, 5000000.0)  # top left of the 80 x 96 pixels of 2 m of the training scene


def pair(root: Path, corner: tuple[float, float], buffer: float = 0.0, **profile: object) -> DatasetConfig:
    """A training scene and a validation scene that begins elsewhere; their pixels differ."""
    for name, begin, more in (("train", TRAIN, {}), ("val", corner, profile)):
        image, mask = draw_scene(len(name))
        place = {"transform": from_origin(*begin, 2, 2), **more}
        write_raster(root / "images" / f"{name}.tif", image, nodata=0, **place)
        write_raster(root / "masks" / f"{name}.tif", mask, **place)
    return DatasetConfig(
        name="pair",
        root=str(root),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["low", "middle", "high"],
        split=SplitConfig(by="pattern", val="images/val.tif", buffer=buffer),
        window=32,
    )


def leak(config: DatasetConfig) -> str | None:
    return SceneDataModule(replace(config, allow_leakage=True), 0).leak


@pytest.mark.parametrize(
    ("corner", "buffer", "leaks"),
    [
        (TRAIN, 0, True),
        ((TRAIN[0] + 160, TRAIN[1]), 0, False),  # side by side; seven columns on the left are nodata
        ((TRAIN[0] + 158, TRAIN[1]), 0, True),  # one column of a cell with labels
        ((TRAIN[0], TRAIN[1] - 192), 0, False),
        ((TRAIN[0], TRAIN[1] - 192), 1, True),
        ((TRAIN[0], TRAIN[1] - 192 - 20), 10, False),
        ((TRAIN[0], TRAIN[1] - 192 - 20), 11, True),
        ((TRAIN[0] - 5000, TRAIN[1]), 100, False),
    ],
)
def test_a_scene_within_the_buffer_of_a_training_scene_leaks(
    tmp_path: Path, corner: tuple[float, float], buffer: float, leaks: bool
) -> None:
    assert bool(leak(pair(tmp_path, corner, buffer))) == leaks


def test_a_leaky_split_stops_the_run_and_names_the_scenes(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        SceneDataModule(pair(tmp_path, TRAIN), 0)
    assert str(error.value) == (
        "the split leaks in 1 of 1 scenes of val and test: images/val.tif (val) lies where windows are "
        "trained on, in images/train.tif; split by location (dataset.split.group, table or by=blocks), or "
        "accept it with dataset.allow_leakage=true"
    )


def test_footprints_in_another_crs_are_reprojected(tmp_path: Path) -> None:
    for shift, leaks in ((0.0, True), (150.0, True), (1000.0, False)):
        xs, ys = transform(CRS.from_epsg(32633), CRS.from_epsg(32632), [TRAIN[0] + shift], [TRAIN[1]])
        config = pair(tmp_path / f"{shift}", (xs[0], ys[0]), crs="EPSG:32632")
        assert bool(leak(config)) == leaks


def test_metres_of_the_buffer_are_those_on_the_ground(tmp_path: Path) -> None:
    config = pair(tmp_path, (TRAIN[0], TRAIN[1] - 192 - 20), 19)
    config.split.unit = "metres"
    assert not leak(config)
    config.split.buffer = 21
    assert leak(config)


def test_places_count_only_where_they_have_labels(tmp_path: Path) -> None:
    config = pair(tmp_path, (TRAIN[0] + 64 * 2, TRAIN[1]))
    assert leak(config)
    mask = draw_scene(3)[1]
    mask[:, :64] = 255  # all that the training scene shows
    place = {"transform": from_origin(TRAIN[0] + 64 * 2, TRAIN[1], 2, 2)}
    write_raster(tmp_path / "masks" / "val.tif", mask, **place)
    assert not leak(config)


@pytest.mark.parametrize("held_back", [False, True])
def test_borders_show_more_than_windows(tmp_path: Path, held_back: bool) -> None:
    def first_columns(labelled: int) -> np.ndarray:
        mask = draw_scene(0, 64, 448)[1]
        mask[:, labelled:] = 255
        return mask

    config = pair(tmp_path, TRAIN)
    for name, begin, mask in (("train", 0, first_columns(64)), ("val", 128, first_columns(448))):
        place = {"transform": from_origin(TRAIN[0] + 2 * begin, TRAIN[1], 2, 2)}
        write_raster(tmp_path / "images" / f"{name}.tif", draw_scene(begin, 64, 448)[0], nodata=0, **place)
        write_raster(tmp_path / "masks" / f"{name}.tif", mask, **place)
    data = SceneDataModule(config, 0)  # windows of 32 reach into the second cell at most
    scenes = dict(data.scenes)
    if held_back:  # no window lies in the strip of 16 columns behind what is held back
        barred = (Window(0, 64, 64, 64), Window(0, 144, 64, 304))
        scenes["train"] = [replace(data.scenes["train"][0], excluded=barred)]
    assert find_leaks(scenes, data.index, config, 0) == []
    found = find_leaks(scenes, data.index, config, 40)
    assert found == [("val", "images/val.tif", "images/train.tif", False)]
    assert SceneDataModule(replace(config, allow_leakage=True), 0, border=40).leak is not None


def test_copies_of_an_image_leak_without_georeference(tmp_path: Path) -> None:
    config = pair(tmp_path, TRAIN)
    bare = {"crs": None, "transform": None, "nodata": 0}
    for name, seed in (("train", 1), ("val", 1)):
        write_raster(tmp_path / "images" / f"{name}.tif", draw_scene(seed)[0], **bare)
    assert "images/val.tif (val) holds the pixels of images/train.tif" in str(leak(config))
    write_raster(tmp_path / "images" / "val.tif", draw_scene(2)[0], **bare)
    assert not leak(config)


def test_val_and_test_may_share_their_scenes(tmp_path: Path) -> None:
    config = pair(tmp_path, (TRAIN[0] + 500, TRAIN[1]))
    config.split.test = config.split.val
    assert SceneDataModule(config, 0).leak is None


def test_one_file_in_two_splits_leaks_unless_it_is_cut_into_blocks(tmp_path: Path) -> None:
    image, mask = draw_scene(0, 300, 300)
    write_raster(tmp_path / "images" / "a.tif", image, nodata=0)
    write_raster(tmp_path / "masks" / "a.tif", mask)
    write_raster(tmp_path / "masks" / "b.tif", np.rot90(mask, 2))
    (tmp_path / "scenes.csv").write_text("images/a.tif,masks/a.tif,trn\nimages/a.tif,masks/b.tif,val\n")
    split = SplitConfig(by="manifest")
    config = DatasetConfig(
        name="x", root=str(tmp_path), manifest="scenes.csv", classes=["a", "b", "c"], split=split, window=32
    )
    assert "images/a.tif#2 (val) lies where windows are trained on, in images/a.tif" in str(leak(config))
    blocks = SplitConfig(by="blocks", block=75, val=0.2, buffer=16)
    cut = replace(config, manifest=None, images="images/a.tif", masks="masks/a.tif", split=blocks)
    data = SceneDataModule(cut, 0)
    assert data.leak is None
    data.config = replace(cut, split=replace(blocks, buffer=17))  # a pixel more than windows keep
    with pytest.raises(DataError, match="1 of 1 scenes of val and test \\(buffer 17 pixels\\)"):
        data._check_leakage(data.index)


def test_many_scenes_side_by_side_are_looked_at_at_once(tmp_path: Path) -> None:
    config = pair(tmp_path, (TRAIN[0] + 500, TRAIN[1]))
    data = SceneDataModule(config, 0)
    found, scene = data.index["train"][0], data.scenes["train"][0]
    scenes: dict[str, list[Scene]] = {"train": [], "val": [], "test": []}
    index: dict[str, list[SceneIndex]] = {"train": [], "val": [], "test": []}
    for number in range(2000):
        split = "train" if number < 1600 else "val"
        place = (2, 0, TRAIN[0] + 160 * number, 0, -2, TRAIN[1])
        image = replace(scene.image, path=f"{number}", transform=place)
        scenes[split].append(replace(scene, name=f"{number}", image=image))
        index[split].append(replace(found, bands=replace(found.bands, mean=found.bands.mean + number)))
    assert find_leaks(scenes, index, config) == []
    config.split.buffer = 8
    assert find_leaks(scenes, index, config) == [("val", "1600", "1599", False)]
