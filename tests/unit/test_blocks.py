"""Blocks: training windows keep their distance, every pixel of val and test counts once."""

import io
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import rasterio
import torch
import yaml
from matplotlib.colors import to_rgb
from rasterio.transform import from_origin

from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.config.run_config import load_run_config
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.few_labels import describe_few_labels
from geo_seg.data.scenes.discovery import find_scenes
from geo_seg.data.scenes.scene import Scene
from geo_seg.data.scenes.spatial_blocks import length_in_pixels
from geo_seg.data.windows.allowed_offsets import AllowedOffsets
from geo_seg.doctor.contact_sheet import draw_samples
from geo_seg.doctor.examine import examine
from geo_seg.doctor.findings import add_findings
from geo_seg.doctor.page import build_tables
from geo_seg.errors import DataError
from geo_seg.raster.reader import read_info
from geo_seg.report.figures import split_map
from geo_seg.report.locations import scene_outlines
from geo_seg.tiling import Window
from tests.conftest import write_raster

SIZE = (700, 530)


def whole(root: Path, **split: object) -> DatasetConfig:
    """One scene of noise in four classes; its first columns are nodata."""
    draw = np.random.default_rng(0)
    image = draw.integers(1, 3000, (2, *SIZE)).astype(np.uint16)
    image[:, :, :9] = 0
    write_raster(root / "images" / "a.tif", image, nodata=0)
    write_raster(root / "masks" / "a.tif", draw.integers(0, 4, SIZE).astype(np.uint8))
    given = {"by": "blocks", "block": 130, "val": 0.2, "test": 0.2, "buffer": 20, **split}
    return DatasetConfig(
        name="one",
        root=str(root),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["a", "b", "c", "d"],
        split=SplitConfig(**given),  # type: ignore[arg-type]
        window=32,
        windows_per_epoch=400,
    )


def covered(windows: list[Window]) -> np.ndarray:
    """(H, W) how many of the windows hold a pixel."""
    count = np.zeros(SIZE, int)
    for row, col, height, width in windows:
        count[row : row + height, col : col + width] += 1
    return count


@pytest.mark.parametrize("sampler", ["uniform", "valid", "balanced"])
@pytest.mark.parametrize("window", [32, 80])
def test_no_training_window_reaches_into_the_buffer(tmp_path: Path, sampler: str, window: int) -> None:
    config = replace(whole(tmp_path, block=175), sampler=sampler, window=window)
    data = SceneDataModule(config, 0)
    held = [part for name in ("val", "test") for part in data.scenes[name][0].blocks]
    near = [Window(w.row - 20, w.col - 20, w.height + 40, w.width + 40) for w in held]
    barred = covered(
        [
            Window(max(w.row, 0), max(w.col, 0), w.height + min(w.row, 0), w.width + min(w.col, 0))
            for w in near
        ]
    )
    for batch in data.train_dataloader():
        places = [Window(row, col, window, window) for _, row, col in batch["place"].tolist()]
        assert not np.any(covered(places) * barred)


@pytest.mark.parametrize("cache", ["none", "memmap"])
def test_a_border_shows_what_lies_around_a_window_and_nothing_of_the_buffer(
    tmp_path: Path, cache: str
) -> None:
    config = replace(whole(tmp_path, block=175), cache=cache, cache_dir=str(tmp_path / "cache"))
    data = SceneDataModule(config, 0, border=11)
    scene = data.scenes["train"][0]
    with rasterio.open(scene.image.path) as source, rasterio.open(scene.mask.path) as mask:
        image, labels = source.read(), mask.read(1)
    hidden = (image == 0).all(0)
    for row, col, height, width in scene.excluded:
        hidden[row : row + height, col : col + width] = True
    image, labels = np.where(hidden, 0, image), np.where(hidden, 255, labels)
    image = np.pad(image, ((0, 0), (11, 60), (11, 60)))
    hidden = np.pad(hidden, (11, 60), constant_values=True)
    labels = np.pad(labels, (11, 60), constant_values=255)
    beside, plain = 0, SceneDataModule(config, 0).train_dataloader()
    for batch, bare in zip(data.train_dataloader(), plain, strict=True):
        assert batch["image"].shape[2:] == batch["labels"].shape[1:] == (54, 54)
        assert torch.equal(batch["labels"][:, 11:-11, 11:-11], bare["labels"])
        assert torch.equal(batch["place"], bare["place"])
        for number, (_, row, col) in enumerate(batch["place"].tolist()):
            part = slice(row, row + 54), slice(col, col + 54)
            np.testing.assert_array_equal(batch["valid"][number], ~hidden[part])
            np.testing.assert_array_equal(batch["labels"][number], labels[part])
            np.testing.assert_array_equal(batch["image"][number], image[:, *part])
            beside += row < 11 or col < 11 or bool(hidden[part].any())
    assert beside > 50


def test_every_valid_pixel_of_the_blocks_counts_once_and_nothing_else_does(tmp_path: Path) -> None:
    data = SceneDataModule(whole(tmp_path), 0)
    for name in ("val", "test"):
        parts = covered(list(data.scenes[name][0].blocks))
        seen = np.zeros(SIZE, int)
        for batch in data._grid(name):
            for (_, row, col), labels in zip(batch["place"].tolist(), batch["labels"].numpy(), strict=True):
                rows, cols = np.nonzero(labels != 255)
                seen[rows + row, cols + col] += 1
        assert parts.max() == 1
        parts[:, :9] = 0
        np.testing.assert_array_equal(seen, parts)


def test_the_share_is_of_the_area_and_the_seed_draws_the_blocks(tmp_path: Path) -> None:
    config = whole(tmp_path)
    found = find_scenes(config, 0)
    for name in ("val", "test"):
        area = sum(part.height * part.width for part in found[name][0].blocks)
        assert abs(area / (SIZE[0] * SIZE[1]) - 0.2) < 0.5 / 20
    assert find_scenes(config, 0) == found
    assert find_scenes(config, 1) != found


def test_training_classes_are_counted_where_windows_may_lie(tmp_path: Path) -> None:
    all_of_it = SceneDataModule(whole(tmp_path, val=0.05, test=0, buffer=0), 0)
    part = SceneDataModule(whole(tmp_path, val=0.3, test=0.3, buffer=40), 0)
    assert 0 < sum(part.class_counts) < sum(all_of_it.class_counts) < 700 * 530


def test_offsets_are_drawn_evenly_from_all_that_are_allowed(tmp_path: Path) -> None:
    image = read_info(write_raster(tmp_path / "a.tif", np.zeros((140, 130), np.uint8)))
    barred = (Window(50, 60, 30, 40), Window(70, 20, 40, 50))
    scene = Scene("a", image, image, (1,), excluded=barred)
    offsets = AllowedOffsets(scene, 24)
    allowed = np.ones((140 - 24 + 1, 130 - 24 + 1), bool)
    for row, col, height, width in barred:
        allowed[max(row - 23, 0) : row + height, max(col - 23, 0) : col + width] = False
    steps = (np.arange(allowed.sum()) + 0.5) / allowed.sum()
    found = offsets.sample_uniform(steps)
    assert set(map(tuple, found.tolist())) == set(
        zip(*(axis.tolist() for axis in np.nonzero(allowed)), strict=True)
    )
    assert offsets.allowed_fraction == allowed.mean()
    for cell in np.ndindex(3, 3):
        near = allowed.copy()  # windows that hold a part of the cell
        near[: max(cell[0] * 64 - 23, 0)] = near[cell[0] * 64 + 64 :] = False
        near[:, : max(cell[1] * 64 - 23, 0)] = near[:, cell[1] * 64 + 64 :] = False
        assert bool(near.any()) == bool(offsets.is_allowed(3, 3)[cell])
        if near.any():
            drawn = offsets.sample_around(
                np.full((near.sum(), 2), cell), (np.arange(near.sum()) + 0.5) / near.sum()
            )
            assert set(map(tuple, drawn.tolist())) == set(
                zip(*(a.tolist() for a in np.nonzero(near)), strict=True)
            )


def test_metres_are_measured_by_the_size_of_the_pixels(tmp_path: Path) -> None:
    flat = read_info(write_raster(tmp_path / "flat.tif", np.zeros((10, 10), np.uint8)))
    assert length_in_pixels(30, "metres", flat) == 15
    place = {"crs": "EPSG:4326", "transform": from_origin(10, 60.0005, 0.0001, 0.0001)}
    globe = read_info(write_raster(tmp_path / "globe.tif", np.zeros((10, 10), np.uint8), **place))
    assert length_in_pixels(55.80, "metres", globe) == pytest.approx(10, rel=1e-3)  # on the ellipsoid
    place = {"crs": "EPSG:2263", "transform": from_origin(1_000_000, 200_000, 2, 2)}
    feet = read_info(write_raster(tmp_path / "feet.tif", np.zeros((10, 10), np.uint8), **place))
    assert length_in_pixels(0.6096, "metres", feet) == pytest.approx(1, rel=1e-3)
    bare = read_info(write_raster(tmp_path / "bare.tif", np.zeros((10, 10), np.uint8), crs=None))
    with pytest.raises(DataError, match="has no CRS to measure metres in"):
        length_in_pixels(30, "metres", bare)


def test_blocks_in_metres_are_those_in_pixels(tmp_path: Path) -> None:
    pixels = find_scenes(whole(tmp_path), 0)
    assert find_scenes(whole(tmp_path, block=260, buffer=40, unit="metres"), 0) == pixels


def test_too_few_blocks_are_said(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no block is left for val: blocks of 500 pixels are too large for 1 scenes"
    ):
        find_scenes(whole(tmp_path, block=500), 0)
    with pytest.raises(DataError, match="too near to blocks of val and test"):
        SceneDataModule(whole(tmp_path, buffer=300), 0)


OWN_GROUND = pytest.mark.fault("doctor", "tables, sheet and map of a block split: ground of other splits")


def reach(data: SceneDataModule, window: int) -> dict[str, np.ndarray]:
    """(H, W) per split, which pixels are its own: by trying every place of a window."""
    found = {}
    for name in ("val", "test"):
        found[name] = covered(list(data.scenes[name][0].blocks)) > 0
    [scene] = data.scenes["train"]
    barred = covered(list(scene.excluded)) > 0
    seen = np.zeros(SIZE, bool)
    for row in range(SIZE[0] - window + 1):
        for col in range(SIZE[1] - window + 1):
            if not barred[row : row + window : 15, col : col + window : 15].any():
                place = (slice(row, row + window), slice(col, col + window))
                if not barred[place].any():
                    seen[place] = True
    found["train"] = seen
    return found


@OWN_GROUND
@pytest.mark.parametrize(("window", "block", "buffer"), [(32, 130, 20), (80, 175, 33), (130, 175, 0)])
def test_what_is_counted_of_a_split_is_its_own_pixels(
    tmp_path: Path, window: int, block: int, buffer: int
) -> None:
    data = SceneDataModule(replace(whole(tmp_path, block=block, buffer=buffer), window=window), 0)
    with rasterio.open(tmp_path / "masks" / "a.tif") as mask:
        labels = mask.read(1)
    measured = np.ones(SIZE, bool)
    measured[:, :9] = False
    for name, own in reach(data, window).items():
        [found] = data.index[name]
        assert found.class_counts.pixels == own.sum()
        assert found.class_counts.valid == (own & measured).sum()
        assert (
            found.class_counts.classes.tolist() == np.bincount(labels[own & measured], minlength=4).tolist()
        )
    assert data.class_counts == data.index["train"][0].class_counts.classes.tolist()


@OWN_GROUND
def test_a_check_shows_and_counts_every_pixel_for_its_own_split(tmp_path: Path) -> None:
    config = replace(whole(tmp_path, block=175, buffer=33), window=80)
    place = np.stack(np.indices(SIZE)).astype(np.uint16) + 1
    write_raster(tmp_path / "images" / "a.tif", place, nodata=0)
    found = examine(config, 0)
    own = reach(SceneDataModule(config, 0), 80)
    for row in build_tables(found)[0].rows:
        assert row[2] == f"{own[row[0]].sum():,}"
    shown = {}
    for sample in draw_samples(found):
        rows, cols = sample.pixels.image[:, sample.pixels.valid].astype(int) - 1
        assert own[sample.split][rows, cols].all()
        assert (sample.pixels.labels[~sample.pixels.valid] == 255).all()
        shown[sample.split] = {*zip(rows.tolist(), cols.tolist(), strict=True)}
    assert {*shown} == {"train", "val", "test"}
    assert not shown["val"] & shown["test"] and not shown["train"] & (shown["val"] | shown["test"])
    assert len(shown["train"]) > 100


@OWN_GROUND
def test_the_map_of_a_block_split_has_the_colours_of_its_legend_in_the_shares_of_the_splits(
    tmp_path: Path,
) -> None:
    data = SceneDataModule(replace(whole(tmp_path, block=175, buffer=33), window=80), 0)
    own = reach(data, 80)
    own["buffer"] = ~np.any([*own.values()], axis=0)
    found = scene_outlines(data.scenes, 80)
    assert found is not None
    picture = plt.imread(io.BytesIO(split_map(*found).png))[..., :3]
    legend = {"train": "#4c78a8", "val": "#f58518", "test": "#54a24b", "buffer": "#c8c8c8"}
    drawn = {
        name: np.all(np.abs(picture - to_rgb(color)) < 0.01, axis=-1).sum() for name, color in legend.items()
    }
    total, whole_area = sum(drawn.values()), SIZE[0] * SIZE[1]
    for name, pixels in own.items():
        assert drawn[name] / total == pytest.approx(pixels.sum() / whole_area, abs=0.02), name


@pytest.mark.fault("config", "dataset.window=1 and split.block=0.001 never end")
@pytest.mark.parametrize("split", [{"block": 0.001}, {"block": 1}, {"block": 0.01, "unit": "metres"}])
def test_blocks_that_nobody_means_are_refused_before_they_are_cut(
    tmp_path: Path, split: dict[str, object]
) -> None:
    with pytest.raises(DataError, match=r"dataset\.split\.block=.* blocks, more than 100000; expected the"):
        find_scenes(whole(tmp_path, **split), 0)


BALANCE = pytest.mark.fault("first_hour", "split by blocks with few labels: 683 pixels in four spots")


def spots(root: Path, places: dict[tuple[int, int], int], side: int = 13, **choices: object) -> DatasetConfig:
    """A scene of 512 x 512 with nothing labelled but spots of a class each, in blocks of 128."""
    draw = np.random.default_rng(0)
    mask = np.full((512, 512), 255, np.uint8)
    for (row, col), one in places.items():
        mask[row : row + side, col : col + side] = one
    write_raster(root / "images" / "a.tif", draw.integers(1, 3000, (2, 512, 512)).astype(np.uint16))
    write_raster(root / "masks" / "a.tif", mask)
    given = {"by": "blocks", "block": 128, "val": 0.2, "test": 0.2, "buffer": 16, **choices}
    return DatasetConfig(
        name="spots",
        root=str(root),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["a", "b"],
        split=SplitConfig(**given),  # type: ignore[arg-type]
        window=32,
    )


FOUR = {(20, 30): 0, (170, 420): 0, (400, 160): 0, (450, 450): 0}  # in four blocks
NEAR = {(20, 30): 0, (60, 60): 0, (150, 20): 0, (220, 100): 0}  # in two blocks


@BALANCE
@pytest.mark.parametrize("seed", range(5))
def test_four_spots_of_labels_give_every_split_some_and_windows_that_show_them(
    tmp_path: Path, seed: int
) -> None:
    data = SceneDataModule(spots(tmp_path, FOUR), seed)
    counts = {name: int(data.index[name][0].class_counts.classes.sum()) for name in ("train", "val", "test")}
    assert min(counts.values()) >= 13 * 13
    assert sum(counts.values()) <= 4 * 13 * 13
    for batch in data.train_dataloader():
        assert (batch["labels"] != 255).flatten(1).any(1).all()
    area = sum(part.height * part.width for part in data.scenes["val"][0].blocks)
    assert abs(area / 512**2 - 0.2) <= 1 / 16


@BALANCE
def test_spots_in_fewer_blocks_than_splits_are_one_line_that_says_which_number_to_turn(
    tmp_path: Path,
) -> None:
    message = (
        "the 676 labelled pixels lie in 2 of 16 blocks of 128 pixels, and train, val, test need one each: "
        r"take smaller blocks \(dataset.split.block\), or label more"
    )
    with pytest.raises(DataError, match=message):
        SceneDataModule(spots(tmp_path, NEAR), 0)
    assert message.replace("\\", "") in examine(spots(tmp_path, NEAR), 0).problems
    for names in ({"test": None}, {"block": 64, "buffer": 0}):  # two splits, or smaller blocks
        data = SceneDataModule(spots(tmp_path, NEAR, **names), 0)
        assert all(data.index[name][0].class_counts.classes.sum() for name in data.index if data.scenes[name])


@BALANCE
@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
def test_every_split_gets_labels_of_every_class_as_far_as_there_are_any(tmp_path: Path, blocks: int) -> None:
    places = {(128 * r + 20, 128 * c + 30): 0 for r in range(4) for c in range(4)}
    rare = [(80, 70), (80, 326), (336, 70), (464, 454), (336, 326)][:blocks]
    config = spots(tmp_path, {**places, **dict.fromkeys(rare, 1)}, buffer=8)
    for seed in range(4):
        data = SceneDataModule(config, seed)
        having = [name for name in ("train", "val", "test") if data.index[name][0].class_counts.classes[1]]
        assert having == ["train", "val", "test"][: min(blocks, 3)]
        held = sum(int(data.index[name][0].class_counts.classes[1]) for name in ("val", "test"))
        assert held <= 2 * 13 * 13  # no more than one spot each: training needs them


@BALANCE
def test_without_balance_labels_do_not_decide_which_blocks_are_drawn(tmp_path: Path) -> None:
    drawn = [
        find_scenes(spots(tmp_path / str(n), places, balance=False), 3)
        for n, places in enumerate((FOUR, NEAR))
    ]
    parts = [{name: own[name][0].blocks for name in ("val", "test")} for own in drawn]
    assert parts[0] == parts[1]
    balanced = find_scenes(spots(tmp_path / "0", FOUR), 3)
    assert {name: balanced[name][0].blocks for name in ("val", "test")} != parts[0]


@BALANCE
def test_few_labels_are_counted_by_class_and_split_with_the_numbers_to_turn(tmp_path: Path) -> None:
    config = spots(tmp_path, {**FOUR, (300, 300): 1, (300, 40): 1, (40, 300): 1})
    data = SceneDataModule(config, 0)
    counts = {name: data.index[name][0].class_counts.classes.tolist() for name in ("train", "val", "test")}
    line, epoch = describe_few_labels(counts, ["a", "b"], config)
    for number, name in enumerate("ab"):
        said = ", ".join(f"{own[number]} in {split}" for split, own in counts.items())
        assert f"{name} ({said})" in line
    for turn in (
        "dataset.split.block (now 128)",
        "buffer (now 16)",
        "dataset.window (now 32)",
        "sampler=balanced",
    ):
        assert turn in line
    assert "an epoch is a single step; dataset.windows_per_epoch=400 makes it 50" in epoch
    found = examine(config, 0)
    add_findings(found)
    assert {line, epoch} <= {*found.warnings}
    many = {"train": [9000, 8000], "val": [600, 0]}
    assert describe_few_labels(many, ["a", "b"], config) == []  # what is absent is said elsewhere


@BALANCE
def test_a_run_from_before_there_was_balance_keeps_the_blocks_that_it_was_trained_on(tmp_path: Path) -> None:
    split = {"by": "blocks", "block": 128, "val": 0.2}
    for said, expected in ((split, False), ({**split, "balance": True}, True), ({"by": "fraction"}, True)):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"dataset": {"split": said}}))
        assert load_run_config(tmp_path).dataset.split.balance is expected
