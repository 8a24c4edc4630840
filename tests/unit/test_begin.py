"""`geo_seg begin`: the right classes and splits for layouts that people have, and one line for all else."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
import yaml

from geo_seg.begin.labels import mask_values
from geo_seg.begin.layout import find_layout
from geo_seg.begin.listing import list_folder
from geo_seg.begin.run import main
from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.scenes.discovery import find_scenes
from geo_seg.raster.paths import open_source
from geo_seg.raster.sidecars import write_class_sidecars
from tests.conftest import REPOSITORY, write_raster
from tests.drawn_layouts import (
    LAYOUTS,
    draw_rgb,
    nested_cities,
    one_folder,
    place,
    read_dataset,
    save_picture,
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for data, and another one to work in."""
    (tmp_path / "data").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "data"


def begun(root: Path, *words: str) -> DatasetConfig:
    """The data set of the YAML that the command writes, read as a run reads it."""
    assert main([str(root), "--name", "mine", *words]) == 0
    return read_dataset(Path("config/dataset/mine.yaml"))


def refused(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line in which the command refuses."""
    assert main([str(root), "--name", "mine", *words]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("error: ") and told.err.count("\n") == 1
    assert not Path("config/dataset/mine.yaml").exists()
    return told.err


def table(config: DatasetConfig) -> dict[str, list[Any]]:
    return {row["name"]: [*row["values"]] for row in config.classes}


def scenes_by_split(config: DatasetConfig) -> dict[str, list[str]]:
    parts = find_scenes(config, seed=0, needed=("train", "val"))
    return {split: [scene.name for scene in scenes] for split, scenes in parts.items()}


def all_scenes(config: DatasetConfig) -> list[str]:
    return sorted(name for names in scenes_by_split(config).values() for name in names)


def test_nested_cities_stay_whole_and_the_legend_names_the_classes(root: Path) -> None:
    nested_cities(root)
    config = begun(root)
    assert (config.images, config.masks) == ("*/images/*.tif", "*/masks/*.tif")
    assert table(config) == {"meadow": [0], "road": [1], "roof": [2]}
    assert [row["color"] for row in config.classes] == ["#0ac80a", "#5a5a5a", "#c80a0a"]
    splits = scenes_by_split(config)
    cities = {split: {name.split("/")[0] for name in names} for split, names in splits.items()}
    assert sum(map(len, splits.values())) == 15
    assert all(cities.values()) and sum(map(len, cities.values())) == 5


def test_suffixes_are_paired_and_coloured_masks_keep_their_colours(root: Path) -> None:
    LAYOUTS["suffixes"](root)
    config = begun(root)
    assert (config.images, config.masks) == ("train/*_sat.jpg", "train/*_mask.png")
    assert [row["values"] for row in config.classes] == [["#00ffff"], ["#ff00ff"], ["#ffff00"]]
    assert all_scenes(config) == sorted(f"train/{n}_sat.jpg" for n in range(10))


def test_one_folder_of_everything_is_binary_and_parts_of_a_scene_stay_together(root: Path) -> None:
    one_folder(root)
    config = begun(root)
    assert (config.mode, table(config)) == ("binary", {"background": [0], "foreground": [255]})
    splits = scenes_by_split(config)
    assert all_scenes(config) == sorted(f"a{s}_part{p}.tif" for s in range(4) for p in range(3))
    scenes = {split: {name.split("_")[0] for name in names} for split, names in splits.items()}
    assert all(scenes.values()) and sum(map(len, scenes.values())) == 4


def test_a_big_raster_with_polygons_is_divided_into_blocks(root: Path) -> None:
    LAYOUTS["big_raster_and_polygons"](root)
    config = begun(root)
    assert (config.images, config.masks) == ("ortho.tif", "landcover.gpkg")
    assert (config.label.attribute, table(config)) == (
        "cover_type",
        {"field": ["field"], "forest": ["forest"]},
    )
    parts = find_scenes(config, seed=0)
    [train], [val], [test] = parts["train"], parts["val"], parts["test"]
    held = [*val.blocks, *test.blocks]
    assert len({*held}) == len(held) and {*held} == {*train.excluded}


def test_files_of_bands_become_one_image_of_those_on_one_grid(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    LAYOUTS["band_files"](root)
    config = begun(root)
    assert config.images == [f"scenes/*_{band}.tif" for band in ("B02", "B03", "B04", "B08")]
    assert config.masks == "labels/*.tif"
    assert (table(config), config.ignore_values) == ({"background": [1], "foreground": [2]}, [255])
    assert sum(map(len, scenes_by_split(config).values())) == 6
    assert "B11 have another grid" in capsys.readouterr().out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_guesses_are_marked_and_the_report_says_what_to_type(
    root: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    LAYOUTS[layout](root)
    begun(root)
    told = capsys.readouterr().out
    text = Path("config/dataset/mine.yaml").read_text()
    for key in ("window", "batch_size", "normalize"):
        assert f"\n{key}: " in text and "# guess: " in text.split(f"\n{key}: ")[1].split("\n")[0]
        assert f"  {key}: " in told.split("Guesses:")[1]
    assert "geo_seg check dataset=mine" in told and "geo_seg train dataset=mine" in told


def test_folders_train_val_and_test_are_the_split(root: Path) -> None:
    for number, split in enumerate(("train", "train", "val", "test")):
        image, mask = draw_rgb(number)
        save_picture(root / split / "img" / f"{number}.png", image)
        save_picture(root / split / "gt" / f"{number}.png", mask)
    config = begun(root)
    names = {
        split: [f"{split}/img/{n}.png" for n in numbers]
        for split, numbers in (("train", (0, 1)), ("val", (2,)), ("test", (3,)))
    }
    assert scenes_by_split(config) == names


def test_lists_of_images_are_the_split(root: Path) -> None:
    for number in range(4):
        image, mask = draw_rgb(number)
        save_picture(root / "images" / f"x{number}.png", image)
        save_picture(root / "masks" / f"x{number}.png", mask)
    (root / "train.txt").write_text("x0\nx2\n")
    (root / "val.txt").write_text("x1\nx3\n")
    splits = scenes_by_split(begun(root))
    assert splits == {
        "train": ["images/x0.png", "images/x2.png"],
        "val": ["images/x1.png", "images/x3.png"],
        "test": [],
    }


def test_images_of_the_same_ground_stay_together_whatever_they_are_called(root: Path) -> None:
    for number, name in enumerate(("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "oak")):
        image, mask = draw_rgb(number)
        ground = place(number // 2)  # two of each place
        write_raster(root / "images" / f"{name}.tif", image, transform=ground)
        write_raster(root / "masks" / f"{name}.tif", mask, transform=ground)
    splits = scenes_by_split(begun(root))
    split_of = {Path(name).stem: split for split, names in splits.items() for name in names}
    for one, other in (("ash", "birch"), ("cedar", "elm"), ("fir", "hazel"), ("larch", "oak")):
        assert split_of[one] == split_of[other]
    assert {*split_of.values()} == {"train", "val", "test"}


def test_files_that_no_glob_pairs_are_listed_in_a_manifest(root: Path) -> None:
    for number in range(6):
        image, mask = draw_rgb(number)
        save_picture(root / "images" / f"x{number}.{'png' if number % 2 else 'jpg'}", image)
        save_picture(root / "masks" / f"x{number}.png", mask)
    config = begun(root)
    assert config.manifest == str(Path("config/dataset/mine_scenes.csv").absolute())
    assert sum(map(len, scenes_by_split(config).values())) == 6


def test_images_without_masks_and_masks_without_images_are_counted_and_left_out(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        image, mask = draw_rgb(number)
        if number != 1:
            save_picture(root / "images" / f"x{number}.png", image)
        if number != 4:
            save_picture(root / "masks" / f"x{number}.png", mask)
    config = begun(root)
    told = capsys.readouterr().out
    assert "1 file without a mask, left out: images/x4.png" in told
    assert "1 file of labels without an image, left out: masks/x1.png" in told
    assert all_scenes(config) == [f"images/x{n}.png" for n in (0, 2, 3, 5)]


def test_a_mask_of_one_image_is_not_taken_for_that_of_all(root: Path) -> None:
    for number in range(3):
        image, mask = draw_rgb(number, 128)
        write_raster(root / "images" / f"x{number}.tif", image, transform=place(number))
    write_raster(root / "masks" / "x1.tif", mask, transform=place(1))
    config = begun(root)
    assert (config.images, config.masks, config.split.by) == ("images/x1.tif", "masks/x1.tif", "blocks")


def test_polygons_go_with_the_images_on_their_ground(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LAYOUTS["big_raster_and_polygons"](root)
    write_raster(
        root / "ortho_far.tif", draw_rgb(0)[0].repeat(2, 0)[:4].astype(np.uint16), transform=place(9)
    )
    assert begun(root).images == "ortho.tif"
    assert "1 file in no pair, left out: ortho_far.tif" in capsys.readouterr().out
    Path("config/dataset/mine.yaml").unlink()
    (root / "ortho.tif").unlink()
    assert "landcover.gpkg lies on the ground of no image" in refused(root, capsys)


def test_images_unlike_the_others_or_unreadable_are_left_out(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(7):
        image, mask = draw_rgb(number)
        write_raster(root / "images" / f"x{number}.tif", image[: 3 - (number == 2)], transform=place(number))
        write_raster(root / "masks" / f"x{number}.tif", mask, transform=place(number))
    (root / "images" / "x5.tif").write_bytes(b"no raster")
    config = begun(root)
    assert all_scenes(config) == [f"images/x{n}.tif" for n in (0, 1, 3, 4, 6)]
    assert "2 images unlike most in bands or type, or unreadable, left out" in capsys.readouterr().out


def test_a_folder_of_several_data_sets_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        image, mask = draw_rgb(number)
        write_raster(root / "images" / f"x{number}.tif", image[: 2 + number % 2], transform=place(number))
        write_raster(root / "masks" / f"x{number}.tif", mask, transform=place(number))
    assert "images of several kinds (3 of 2 bands of uint8, 3 of 3 bands of uint8)" in refused(root, capsys)


def test_a_folder_below_that_cannot_be_read_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nested_cities(root)
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if Path(path).name in {"bern", closed}:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    closed = ""
    monkeypatch.setattr(os, "scandir", refuse)
    begun(root)
    told = capsys.readouterr().out
    assert "12 scenes" in told and "1 folder cannot be read, bern first" in told
    Path("config/dataset/mine.yaml").unlink()
    closed = root.name
    assert "cannot be read (Permission denied); check its permissions" in refused(root, capsys)


def test_masks_of_two_kinds_are_named_and_can_be_chosen(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        image, mask = draw_rgb(number)
        save_picture(root / "images" / f"x{number}.png", image)
        save_picture(root / "masks_cover" / f"x{number}.png", mask)
        save_picture(root / "masks_water" / f"x{number}.png", (mask == 1).astype(np.uint8))
    assert begun(root).masks == "masks_cover/*.png"
    assert "masks_water would do for 6 images: --masks 'masks_water'" in capsys.readouterr().out
    Path("config/dataset/mine.yaml").unlink()
    config = begun(root, "--masks", "masks_water")
    assert (config.masks, table(config)) == ("masks_water/*.png", {"background": [0], "water": [1]})


def test_two_candidates_for_the_images_are_named_and_can_be_chosen(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        image, mask = draw_rgb(number)
        save_picture(root / "rgb" / f"x{number}.png", image)
        save_picture(root / "irrg" / f"x{number}.png", image[::-1])
        save_picture(root / "labels" / f"x{number}.png", mask)
    assert begun(root).images == "irrg/*.png"
    assert "rgb would do, too (4): --images" in capsys.readouterr().out
    Path("config/dataset/mine.yaml").unlink()
    assert begun(root, "--images", "rgb").images == "rgb/*.png"


def test_bands_in_a_folder_of_each_scene_are_one_image(root: Path) -> None:
    for number in range(5):
        image, mask = draw_rgb(number)
        for band, pixels in zip(("red", "green", "nir"), image, strict=True):
            write_raster(root / f"S{number}" / f"{band}.tif", pixels, transform=place(number))
        write_raster(root / f"S{number}" / "mask.tif", mask, transform=place(number))
    config = begun(root)
    assert config.images == ["*/red.tif", "*/green.tif", "*/nir.tif"]
    assert config.masks == "*/mask.tif"
    assert all_scenes(config) == [f"S{number}/red.tif" for number in range(5)]


def test_dates_of_a_place_stay_in_one_split(root: Path) -> None:
    for number in range(4):
        for date in ("20200101", "20200606"):
            image, mask = draw_rgb(number)
            save_picture(root / "images" / f"{date}_tile{number}.png", image)
            save_picture(root / "masks" / f"{date}_tile{number}.png", mask)
    splits = scenes_by_split(begun(root))
    tiles = {split: {name.split("_")[1] for name in names} for split, names in splits.items()}
    assert all(tiles.values()) and sum(map(len, tiles.values())) == 4


def test_a_place_that_has_nearly_all_images_is_never_held_out(root: Path) -> None:
    for name in (*(f"a_{n}" for n in range(11)), "b_1"):
        image, mask = draw_rgb(len(name))
        save_picture(root / "images" / f"{name}.png", image)
        save_picture(root / "masks" / f"{name}.png", mask)
    splits = scenes_by_split(begun(root))
    assert [len(splits[split]) for split in ("train", "val", "test")] == [8, 2, 2]


def test_polygons_of_one_kind_in_a_file_per_image_are_binary_and_named_after_their_folder(root: Path) -> None:
    for number in range(4):
        ground = place(number)
        write_raster(root / "RGB" / f"i{number}.tif", draw_rgb(number)[0], transform=ground)
        (root / "buildings").mkdir(exist_ok=True)
        roof = shapely.box(ground.c + 20, ground.f - 60, ground.c + 80, ground.f - 20)
        pyogrio.raw.write(
            str(root / "buildings" / f"i{number}.geojson"),
            np.array([shapely.to_wkb(roof)]),
            [],
            [],
            driver="GeoJSON",
            geometry_type="Polygon",
            crs="EPSG:32633",
        )
    config = begun(root)
    assert (config.mode, config.masks) == ("binary", "buildings/*.geojson")
    assert table(config) == {"background": [0], "buildings": [1]}
    assert (config.label.attribute, config.label.uncovered) == (None, "background")
    assert len(all_scenes(config)) == 4


def test_folders_of_splits_with_masks_beside_keep_their_split_where_the_glob_takes_both(root: Path) -> None:
    for number, split in enumerate(("train", "train", "val", "test")):
        image, mask = draw_rgb(number)
        save_picture(root / split / f"{number}.png", image)
        save_picture(root / f"{split}_labels" / f"{number}.png", mask)
    config = begun(root)
    assert config.unlabelled == "skip"
    names = {"train": ["train/0.png", "train/1.png"], "val": ["val/2.png"], "test": ["test/3.png"]}
    assert scenes_by_split(config) == names


def test_folders_without_telling_names_are_told_apart_by_their_values(root: Path) -> None:
    for number in range(5):
        image, mask = draw_rgb(number)
        save_picture(root / "A" / f"x{number}.png", image)
        save_picture(root / "B" / f"x{number}.png", mask)
    config = begun(root)
    assert (config.images, config.masks) == ("A/*.png", "B/*.png")
    assert "their values look like classes" in Path("config/dataset/mine.yaml").read_text()


def test_black_borders_are_guessed_to_be_nodata(root: Path) -> None:
    for number in range(4):
        image, mask = draw_rgb(number)
        image[:, :, :9] = 0
        write_raster(root / "images" / f"x{number}.tif", image, transform=place(number))
        write_raster(root / "masks" / f"x{number}.tif", mask, transform=place(number))
    assert begun(root).zero_is_nodata


def test_masks_on_another_grid_are_reprojected(root: Path) -> None:
    for number in range(4):
        image, mask = draw_rgb(number)
        write_raster(root / "images" / f"x{number}.tif", image, transform=place(number))
        coarse = place(number) * place(0).scale(2)
        write_raster(root / "masks" / f"x{number}.tif", mask[::2, ::2], transform=coarse)
    config = begun(root)
    assert config.label.align == "reproject"
    assert sum(map(len, scenes_by_split(config).values())) == 4


@pytest.mark.parametrize("values", ["many", "fractions"])
def test_a_continuous_raster_is_no_mask(root: Path, values: str, capsys: pytest.CaptureFixture[str]) -> None:
    heights = np.arange(96 * 96).reshape(96, 96) % 300
    pixels = heights.astype(np.uint16) if values == "many" else (heights / 7).astype(np.float32)
    for number in range(3):
        write_raster(root / "images" / f"x{number}.tif", draw_rgb(number)[0])
        write_raster(root / "masks" / f"x{number}.tif", pixels)
    assert "continuous raster" in refused(root, capsys)


def test_smeared_masks_are_explained(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        image, mask = draw_rgb(number)
        save_picture(root / "images" / f"x{number}.png", image)
        rough = np.random.default_rng(0).integers(0, 2, (96, 96), dtype=np.uint8) * 200
        save_picture(root / "masks" / f"x{number}.jpg", rough + mask)
    assert "JPEG smears" in refused(root, capsys)


def test_a_folder_of_something_else_says_what_was_looked_for(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "letter.docx").write_text("no picture")
    told = refused(root, capsys)
    assert "looked for .tif" in told and "1 .docx" in told


def test_images_alone_say_what_was_looked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raster(root / "x.tif", draw_rgb(0)[0])
    assert "1 image (x.tif first) and no labels; looked for" in refused(root, capsys)


def test_a_folder_that_is_not_there_or_is_a_file_is_told(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such folder" in refused(root / "none", capsys)
    (root / "a.txt").write_text("")
    assert "is a file" in refused(root / "a.txt", capsys)


def test_a_choice_that_is_not_there_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nested_cities(root)
    assert "--masks gone: no such file, folder or glob" in refused(root, capsys, "--masks", "gone")


def test_an_existing_yaml_stays_as_it_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nested_cities(root)
    begun(root)
    Path("config/dataset/mine.yaml").write_text("mine")
    capsys.readouterr()
    assert main([str(root), "--name", "mine"]) == 2
    assert "exists and is left as it is; take another name, such as --name mine_2" in capsys.readouterr().err
    assert Path("config/dataset/mine.yaml").read_text() == "mine"


def test_a_name_of_a_shipped_data_set_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nested_cities(root)
    assert main([str(root), "--name", "demo"]) == 2
    assert "geo_seg has a data set of that name" in capsys.readouterr().err


def test_nothing_in_a_legend_is_ever_resolved(root: Path) -> None:
    nested_cities(root)
    (root / "class_dict.csv").unlink()
    names = {"0": "${oc.env:HOME}", "1": 'a"b: [#', "2": "yes\nno"}
    (root / "classes.json").write_text(json.dumps({"classes": names}))
    config = begun(root)
    assert [row["name"] for row in config.classes] == ["oc.env:HOME", 'a"b: [#', "yesno"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_strange_names_of_files_neither_break_the_yaml_nor_reach_the_terminal(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        image, mask = draw_rgb(number)
        save_picture(root / "images" / f"x# [{number}]: *.png", image)
        save_picture(root / "masks" / f"x# [{number}]: *.png", mask)
    save_picture(root / "images" / "a\nb\x1b[31m.png", image)
    (root / "images" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    config = begun(root)
    assert all_scenes(config) == [f"images/x# [{n}]: *.png" for n in range(4)]
    assert "\x1b" not in capsys.readouterr().out


def test_a_style_beside_a_mask_names_the_classes(root: Path) -> None:
    for number in range(4):
        image, mask = draw_rgb(number)
        write_raster(root / "images" / f"x{number}.tif", image, transform=place(number))
        path = write_raster(root / "masks" / f"x{number}.tif", mask, transform=place(number))
        write_class_sidecars(path, ["soil", "crop", "tree"], [(9, 9, 9), (0, 99, 0), (0, 0, 99)])
    config = begun(root)
    assert table(config) == {"soil": [0], "crop": [1], "tree": [2]}
    assert config.classes[1]["color"] == "#006300"


@pytest.mark.slow
def test_a_hundred_thousand_files_are_listed_once_and_few_are_opened(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = draw_rgb(0)
    save_picture(root / "images" / "x0.png", image)
    save_picture(root / "masks" / "x0.png", mask)
    for folder in ("images", "masks"):
        for number in range(1, 50_000):
            (root / folder / f"x{number}.png").hardlink_to(root / folder / "x0.png")
    opened = []

    def open_and_note(path: Path) -> Any:
        opened.append(path)
        return open_source(path)

    monkeypatch.setattr(mask_values, "open_source", open_and_note)
    layout = find_layout(list_folder(root), None, None, None)
    assert len(layout.pairs) == 50_000 and layout.images_globs == ["images/*.png"]
    assert len(opened) <= 200


def test_the_yaml_is_yaml(root: Path) -> None:
    nested_cities(root)
    begun(root)
    assert yaml.safe_load(Path("config/dataset/mine.yaml").read_text())["name"] == "mine"


def test_the_page_shows_what_the_command_prints(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nested_cities(root / "cities")
    assert main([str(root / "cities")]) == 0
    page = (REPOSITORY / "docs" / "own_data.md").read_text()
    assert f"```\n{capsys.readouterr().out}```" in page
