"""Images find their masks, what doesn't fit is said, and no scene is in two splits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.scenes.discovery import find_scenes
from geo_seg.doctor.examine import examine
from geo_seg.errors import DataError
from tests.conftest import draw_scene, write_raster


def names(config: DatasetConfig, seed: int = 0) -> dict[str, list[str]]:
    return {key: [scene.name for scene in found] for key, found in find_scenes(config, seed).items()}


def test_a_pattern_splits_by_path_and_train_gets_the_rest(small: DatasetConfig) -> None:
    found = names(small)
    assert found["val"] == ["images/s4.tif"]
    assert found["test"] == ["images/s5.tif"]
    assert found["train"] == [f"images/s{i}.tif" for i in range(4)]


def test_a_fraction_is_of_the_scenes_and_the_seed_decides_which(small: DatasetConfig) -> None:
    small.split = SplitConfig(val=0.34, test=0.17)
    found = names(small)
    assert [len(found[key]) for key in ("train", "val", "test")] == [3, 2, 1]
    assert sorted(name for part in found.values() for name in part) == [f"images/s{i}.tif" for i in range(6)]
    assert names(small) == found
    assert any(names(small, seed) != found for seed in range(1, 5))


def test_scenes_of_one_place_stay_together(small: DatasetConfig) -> None:
    (Path(small.root) / "places.csv").write_text(
        "name,place\n" + "".join(f"s{i},p{i // 2}\n" for i in range(6))
    )
    small.split = SplitConfig(val=0.34, test=0.34, table="places.csv", column="place")
    for found in names(small).values():
        assert {int(Path(name).stem[1]) // 2 for name in found} == {int(Path(found[0]).stem[1]) // 2}


def test_a_regular_expression_can_say_what_one_place_is(tmp_path: Path) -> None:
    for name in ("t1_a", "t1_b", "t2_a", "t2_b"):
        write_raster(tmp_path / "images" / f"{name}.tif", draw_scene(0)[0])
        write_raster(tmp_path / "masks" / f"{name}.tif", draw_scene(0)[1])
    config = DatasetConfig(
        name="tiles",
        root=str(tmp_path),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["a", "b", "c"],
        split=SplitConfig(val=0.5, group=r"(t\d)_"),
    )
    for found in (names(config, seed) for seed in range(3)):
        assert [Path(name).stem[:2] for name in found["val"]] in (["t1", "t1"], ["t2", "t2"])
    config.split.group = r"(s\d)"
    with pytest.raises(DataError, match=r"doesn't match images/t1_a\.tif"):
        names(config)


def test_a_list_names_the_images(small: DatasetConfig) -> None:
    root = Path(small.root)
    (root / "train.txt").write_text("s0.tif\ns1\n\n")
    (root / "val.txt").write_text("images/s2.tif\n")
    small.split = SplitConfig(by="list", train="train.txt", val="val.txt")
    assert names(small) == {"train": ["images/s0.tif", "images/s1.tif"], "val": ["images/s2.tif"], "test": []}
    (root / "val.txt").write_text("s9.tif\n")
    with pytest.raises(DataError, match=r"'s9.tif' is none of the 6 images"):
        names(small)
    (root / "val.txt").write_text("s1.tif\n")
    with pytest.raises(DataError, match=r"images/s1.tif is in train and in val or test"):
        names(small)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root": "/nowhere"}, "/nowhere: no such folder"),
        ({"images": "pictures/*.tif"}, "no images match"),
        ({"masks": "masks/*.png"}, "no mask for this image \\(6 of 6"),
        ({"bands": [1, 3]}, "no band 3; it has 2"),
        ({"bands": ["red"]}, "no band 'red'"),
    ],
)
def test_files_that_do_not_fit_are_named(
    small: DatasetConfig, change: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        find_scenes(replace(small, **change), 0)  # type: ignore[arg-type]


def test_images_without_a_mask_are_left_out_when_told_to(tmp_path: Path) -> None:
    config = own(tmp_path, draw_scene(0)[1])
    write_raster(tmp_path / "img" / "c_sat.tif", draw_scene(0)[0])
    with pytest.raises(DataError, match="no mask for this image \\(1 of 3"):
        find_scenes(config, 0)
    found = names(replace(config, unlabelled="skip"))
    assert sorted(found["train"] + found["val"]) == ["img/a_sat.tif", "img/b_sat.tif"]
    with pytest.raises(DataError, match="no image has a mask"):
        find_scenes(replace(config, unlabelled="skip", masks="msk/*.png"), 0)


def test_a_split_that_leaves_nothing_is_refused(small: DatasetConfig) -> None:
    small.split = SplitConfig(val=0.0)
    with pytest.raises(DataError, match="no scene is left for val"):
        find_scenes(small, 0)
    small.split = SplitConfig(by="pattern", val="images/t*.tif")
    with pytest.raises(DataError, match="no image matches"):
        find_scenes(small, 0)


def own(root: Path, mask: np.ndarray) -> DatasetConfig:
    for name in ("a", "b"):
        write_raster(root / "img" / f"{name}_sat.tif", draw_scene(0)[0])
        write_raster(root / "msk" / f"{name}_label.tif", mask)
    return DatasetConfig(
        name="own",
        root=str(root),
        images="img/*_sat.tif",
        masks="msk/*_label.tif",
        classes=["x", "y", "z"],
        split=SplitConfig(val=0.5),
    )


def test_wildcards_of_images_and_masks_stand_for_the_same_text(tmp_path: Path) -> None:
    found = find_scenes(own(tmp_path, draw_scene(0)[1]), 0)
    for scene in found["train"] + found["val"]:
        assert Path(scene.mask.path).name == Path(scene.name).name.replace("_sat", "_label")


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the mask has 90 rows x 80 columns.*has 96 rows x 80 columns"):
        find_scenes(own(tmp_path, draw_scene(0)[1][:90]), 0)


def test_complex_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds complex numbers \\(complex64\\)"):
        find_scenes(own(tmp_path, draw_scene(0)[1].astype(np.complex64)), 0)


def test_a_coloured_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the mask has 3 bands"):
        find_scenes(own(tmp_path, np.stack([draw_scene(0)[1]] * 3)), 0)


SAME_NAMES = pytest.mark.fault(
    "split", "equal names in two folders under split.by=list or table: the last wins"
)


@pytest.fixture
def two_folders(tmp_path: Path) -> DatasetConfig:
    """Three scenes of the same names in each of two folders, and one that is there once."""
    for name in ("east/a", "east/b", "east/c", "west/a", "west/b", "west/c", "west/d"):
        write_raster(tmp_path / "images" / f"{name}.tif", draw_scene(0)[0])
        write_raster(tmp_path / "masks" / f"{name}.tif", draw_scene(0)[1])
    return DatasetConfig(
        name="two",
        root=str(tmp_path),
        images="images/**/*.tif",
        masks="masks/**/*.tif",
        classes=["a", "b", "c"],
    )


@SAME_NAMES
@pytest.mark.parametrize("call", ["a", "a.tif"])
def test_a_name_that_two_images_have_is_refused_in_lists_and_tables(
    two_folders: DatasetConfig, call: str
) -> None:
    root = Path(two_folders.root)
    (root / "val.txt").write_text(f"d\n{call}\n")
    (root / "places.csv").write_text(f"name,place\nd,p\n{call},q\n")
    message = f"{call!r} is ambiguous: images/east/a.tif or images/west/a.tif; write such paths"
    for split in (
        SplitConfig(by="list", val="val.txt"),
        SplitConfig(val=0.3, table="places.csv", column="place"),
    ):
        two_folders.split = split
        with pytest.raises(DataError, match=message):
            names(two_folders)


@SAME_NAMES
@pytest.mark.parametrize("suffix", ["", ".tif"])
def test_paths_tell_images_of_one_name_apart_in_lists_and_tables(
    two_folders: DatasetConfig, suffix: str
) -> None:
    root = Path(two_folders.root)
    (root / "val.txt").write_text(f"images/west/a{suffix}\nd{suffix}\nd{suffix}\n")
    two_folders.split = SplitConfig(by="list", val="val.txt")
    found = names(two_folders)
    assert found["val"] == ["images/west/a.tif", "images/west/d.tif"]  # each once
    assert len(found["train"]) == 5
    rows = [f"images/{side}/{name}{suffix},{side}" for side in ("east", "west") for name in "abc"]
    (root / "places.csv").write_text("\n".join(["name,place", *rows, f"d{suffix},west", f"z{suffix},west"]))
    two_folders.split = SplitConfig(val=0.3, table="places.csv", column="place")
    for seed in range(3):
        for part in names(two_folders, seed).values():
            assert len({name.split("/")[1] for name in part}) <= 1
    (root / "places.csv").write_text("\n".join(["name,place", *rows, f"d{suffix},west", f"d{suffix},east"]))
    with pytest.raises(DataError, match=r"images/west/d\.tif is in both 'west' and 'east' of place"):
        names(two_folders)
    (root / "places.csv").write_text("\n".join(["name,place", *rows[2:]]))
    with pytest.raises(DataError, match=r"no row for images/east/a\.tif \(3 of 7 images"):
        names(two_folders)


@SAME_NAMES
def test_an_image_whose_path_is_the_name_of_another_is_meant_by_it(tmp_path: Path) -> None:
    for name in ("a", "more/a"):
        write_raster(tmp_path / f"{name}.tif", draw_scene(0)[0])
        write_raster(tmp_path / "masks" / f"{name}.tif", draw_scene(0)[1])
    (tmp_path / "val.txt").write_text("a.tif\n")
    manifest = "image,label\na.tif,masks/a.tif\nmore/a.tif,masks/more/a.tif\n"
    (tmp_path / "scenes.csv").write_text(manifest)
    config = DatasetConfig(name="x", root=str(tmp_path), manifest="scenes.csv", classes=["a", "b", "c"])
    config.split = SplitConfig(by="list", val="val.txt")
    assert names(config) == {"val": ["a.tif"], "train": ["more/a.tif"], "test": []}


@SAME_NAMES
@pytest.mark.parametrize("by", ["list", "pattern"])
def test_scenes_in_no_split_are_counted_and_named_before_training_and_by_the_doctor(
    small: DatasetConfig, by: str
) -> None:
    root = Path(small.root)
    (root / "few.txt").write_text("s0\ns1\n")
    (root / "one.txt").write_text("s4\n")
    train, val = ("few.txt", "one.txt") if by == "list" else ("images/s[01].tif", "images/s4.tif")
    small.split = SplitConfig(by=by, train=train, val=val)
    line = (
        "3 of 6 scenes are in no split and are left out: images/s2.tif, images/s3.tif, images/s5.tif; "
        "see dataset.split"
    )
    assert SceneDataModule(small, 0).left_out == line
    assert line in examine(small, 0).warnings
    small.split = SplitConfig(by=by, val=val)
    assert SceneDataModule(small, 0).left_out == ""
