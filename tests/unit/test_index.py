"""The index says what is in a scene, once; its cache notices every change; samplers follow it."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.shutil import copy as copy_raster
from rasterio.transform import from_origin

from geo_seg.config.dataset import DatasetConfig, LabelConfig, SplitConfig
from geo_seg.data import index as indexing
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.index import CELL
from geo_seg.data.windows.sampler import RandomWindowSampler
from geo_seg.errors import DataError
from geo_seg.tiling import Window
from tests.conftest import draw_scene, write_raster


def own(root: Path, **changes: object) -> DatasetConfig:
    config = DatasetConfig(
        name="own",
        root=str(root),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["low", "middle", "high"],
        split=SplitConfig(by="pattern", val="images/b.tif"),
        allow_leakage=True,  # all is drawn at one place
        window=32,
        batch_size=4,
        cache_dir=str(root / "cache"),
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def scene(root: Path, image: np.ndarray, mask: np.ndarray, **profile: object) -> None:
    """A training scene of these pixels, and a validation scene."""
    write_raster(root / "images" / "a.tif", image, **profile)
    write_raster(root / "masks" / "a.tif", mask)
    if not (root / "images" / "b.tif").exists():
        write_raster(root / "images" / "b.tif", draw_scene(1)[0].astype(image.dtype)[: len(image)])
        write_raster(root / "masks" / "b.tif", draw_scene(1)[1])


def drawn(data: SceneDataModule) -> list[dict[str, torch.Tensor]]:
    return [
        {key: part.clone() for key, part in batch.items()}
        for loader in (data.train_dataloader(), data.val_dataloader())
        for batch in loader
    ]


def same(one: SceneDataModule, other: SceneDataModule) -> bool:
    pairs = zip(drawn(one), drawn(other), strict=True)
    return all(torch.equal(a[key], b[key]) for a, b in pairs for key in a)


def test_cells_count_the_labelled_pixels_of_every_class(tmp_path: Path) -> None:
    image, mask = draw_scene(0, 150, 333)
    mask[100:, 200:] = 255
    scene(tmp_path, image, mask, nodata=0)
    cells = SceneDataModule(own(tmp_path), 0).index["train"][0].cells
    mask[:, :7] = 255
    assert cells.shape == (3, 6, 3)
    for row, col in np.ndindex(3, 6):
        part = mask[row * CELL : (row + 1) * CELL, col * CELL : (col + 1) * CELL]
        assert cells[row, col].tolist() == [int((part == c).sum()) for c in range(3)]


def test_a_scene_wider_than_a_strip_is_counted_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = draw_scene(0, 150, 333)
    scene(tmp_path, image, mask, nodata=0)
    whole = SceneDataModule(own(tmp_path), 0)
    monkeypatch.setattr(indexing, "_STRIP_SIZE", (64, 128))
    pieces = SceneDataModule(own(tmp_path, cache_dir=str(tmp_path / "other")), 0)
    for one, other in zip(whole.index["train"], pieces.index["train"], strict=True):
        np.testing.assert_array_equal(one.cells, other.cells)
        np.testing.assert_allclose(one.bands.mean, other.bands.mean)
        np.testing.assert_array_equal(one.bands.quantiles, other.bands.quantiles)
    assert same(whole, pieces)


@pytest.mark.parametrize("ignore_index", [255, -1])
@pytest.mark.parametrize("compress", ["deflate", None])
def test_a_decoded_copy_gives_the_same_batches_as_the_files(
    tmp_path: Path, compress: str | None, ignore_index: int
) -> None:
    scene(tmp_path, *draw_scene(0, 100, 91), nodata=0, compress=compress)
    config = own(tmp_path, ignore_index=ignore_index, ignore_values=[255])
    direct = SceneDataModule(replace(config, cache="none"), 0)
    assert not list((tmp_path / "cache").glob("*.raw"))
    copied = SceneDataModule(replace(config, cache="memmap"), 0)
    assert len(list((tmp_path / "cache").glob("*.raw"))) == 2
    assert same(direct, copied)
    assert not list((tmp_path / "cache").glob("*.part"))


def test_auto_decodes_what_is_compressed_or_in_strips_while_the_disk_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    scene(tmp_path, *draw_scene(0, 128, 128), **tiles)
    auto = own(tmp_path)
    (direct,) = SceneDataModule(auto, 0).index["train"]
    assert direct.decoded_path is None
    scene(tmp_path, *draw_scene(0, 128, 128), **tiles, compress="lzw")
    (copied,) = SceneDataModule(auto, 0).index["train"]
    assert copied.decoded_path is not None
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("geo_seg.data.index.shutil.disk_usage", lambda folder: usage)
    scene(tmp_path, *draw_scene(2, 128, 128), **tiles, compress="lzw")
    (full,) = SceneDataModule(replace(auto, cache_dir=str(tmp_path / "full")), 0).index["train"]
    assert full.decoded_path is None


def test_a_scene_is_read_once_and_again_when_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = draw_scene(0)
    scene(tmp_path, image, mask, nodata=0)
    made: list[str] = []
    make = indexing._build_index
    monkeypatch.setattr(indexing, "_build_index", lambda s, *rest: made.append(s.name) or make(s, *rest))
    first = SceneDataModule(own(tmp_path), 0)
    assert sorted(made) == ["images/a.tif", "images/b.tif"]
    again = SceneDataModule(own(tmp_path), 0)
    assert len(made) == 2
    assert again.bands == first.bands
    scene(tmp_path, image + np.uint16(5) * (image > 0), mask, nodata=0)
    changed = SceneDataModule(own(tmp_path), 0)
    assert made[2:] == ["images/a.tif"]
    np.testing.assert_allclose(changed.bands.mean, np.add(first.bands.mean, 5))
    np.testing.assert_array_equal(
        changed.reader("train").read((0, Window(0, 0, 32, 32))).image[:, :, 7:], image[:, :32, 7:32] + 5
    )
    SceneDataModule(own(tmp_path, classes=["low", "high", "middle"]), 0)
    assert len(made) == 5


@pytest.mark.fault("resume", "a raster replaced by one of the same size and date gave a mixture")
@pytest.mark.parametrize("place", ["images", "masks"])
def test_a_file_in_whose_place_is_one_of_the_same_size_and_date_is_read_again(
    tmp_path: Path, place: str
) -> None:
    image, mask = draw_scene(0)
    scene(tmp_path, image, mask, nodata=0)
    first = SceneDataModule(own(tmp_path), 0)
    file = tmp_path / place / "a.tif"
    before = file.stat()
    brighter, others = image + np.uint16(5) * (image > 0), np.where(mask == 1, 2, mask)
    scene(tmp_path, *((brighter, mask) if place == "images" else (image, others)), nodata=0)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    found = SceneDataModule(own(tmp_path), 0)
    fresh = SceneDataModule(own(tmp_path, cache_dir=str(tmp_path / "fresh")), 0)
    assert found.fingerprint == fresh.fingerprint != first.fingerprint
    assert found.bands == fresh.bands


def test_a_scene_of_two_splits_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene(tmp_path, *draw_scene(0))
    write_raster(tmp_path / "images" / "c.tif", draw_scene(2)[0])
    write_raster(tmp_path / "masks" / "c.tif", draw_scene(2)[1])
    for split, names in {"train": "a", "val": "bc", "test": "cb"}.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(names))
    made = []
    make = indexing._build_index
    monkeypatch.setattr(indexing, "_build_index", lambda *given: made.append(given[0].name) or make(*given))
    lists = SplitConfig(by="list", train="train.txt", val="val.txt", test="test.txt")
    data = SceneDataModule(own(tmp_path, split=lists, cache="memmap", num_threads=4), 0)
    assert sorted(made) == ["images/a.tif", "images/b.tif", "images/c.tif"]
    assert [found.decoded_path for found in data.index["val"]] == [
        found.decoded_path for found in data.index["test"]
    ][::-1]


def test_a_copy_of_an_older_file_is_never_taken(tmp_path: Path) -> None:
    image, mask = draw_scene(0)
    scene(tmp_path, image, mask)
    SceneDataModule(own(tmp_path, cache="memmap"), 0)
    scene(tmp_path, image + np.uint16(9), mask)
    SceneDataModule(own(tmp_path, cache="none"), 0)  # a new index, no new copy
    found = SceneDataModule(own(tmp_path, cache="memmap"), 0).reader("train").read((0, Window(0, 0, 96, 80)))
    np.testing.assert_array_equal(found.image, image + 9)


def test_a_broken_index_is_made_anew(tmp_path: Path) -> None:
    scene(tmp_path, *draw_scene(0))
    first = SceneDataModule(own(tmp_path), 0)
    for file in (tmp_path / "cache").glob("*.index"):
        file.write_bytes(file.read_bytes()[:-40])
    assert same(first, SceneDataModule(own(tmp_path), 0))


def test_a_change_in_a_part_of_a_vrt_is_noticed(tmp_path: Path) -> None:
    image, mask = draw_scene(0)
    scene(tmp_path, image, mask)
    part = write_raster(tmp_path / "parts" / "p.tif", image)
    (tmp_path / "images" / "a.tif").unlink()
    copy_raster(str(part), str(tmp_path / "images" / "a.vrt"), driver="VRT")
    config = own(tmp_path, images="images/*.*", masks="masks/*.*")
    config.masks = "masks/*.*"
    for name in "ab":
        suffix = "vrt" if name == "a" else "tif"
        (tmp_path / "masks" / f"{name}.tif").rename(tmp_path / "masks" / f"{name}.{suffix}")
    first = SceneDataModule(config, 0)
    write_raster(part, image + np.uint16(7))
    os.utime(part, ns=(1, 1))
    np.testing.assert_allclose(SceneDataModule(config, 0).bands.mean, np.add(first.bands.mean, 7))


def test_zero_is_nodata_whatever_the_file_declares(tmp_path: Path) -> None:
    image, mask = draw_scene(0)
    image[0, 50:60, 50:60] = 999
    scene(tmp_path, image, mask, nodata=999)
    place = (0, Window(0, 0, 96, 80))
    declared = SceneDataModule(own(tmp_path), 0).reader("train").read(place)
    assert int((~declared.valid).sum()) == 100
    dark = SceneDataModule(own(tmp_path, zero_is_nodata=True), 0).reader("train").read(place)
    assert int((~dark.valid).sum()) == 100 + 96 * 7
    assert bool((dark.labels[~dark.valid] == 255).all())


def windows(data: SceneDataModule, kind: str, size: int = 4000, side: int = 32) -> RandomWindowSampler:
    return RandomWindowSampler(data.scenes["train"], data.index["train"], kind, side, size, 0)


def rare(root: Path) -> SceneDataModule:
    """A large scene without the class "high", and a small one where it is rare; half is nodata."""
    image, mask = draw_scene(0, 400, 400)
    mask[mask == 2] = 0
    image[:, :, 200:] = 0
    scene(root, image, mask, nodata=0)
    image, mask = draw_scene(3, 130, 130)
    mask[mask == 2] = 1
    mask[40:50, 80:90] = 2
    write_raster(root / "images" / "c.tif", image, nodata=0)
    write_raster(root / "masks" / "c.tif", mask)
    return SceneDataModule(own(root), 0)


@pytest.mark.parametrize(("side", "least"), [(32, 0.1), (128, 1 / 3)])
def test_balanced_windows_are_drawn_class_first(tmp_path: Path, side: int, least: float) -> None:
    data = rare(tmp_path)
    reader = data.reader("train")
    shares = {}
    for kind in ("valid", "balanced"):
        places = windows(data, kind, 600, side).epoch(0)
        shares[kind] = np.mean([bool((reader.read(place).labels == 2).any()) for place in places])
    assert shares["balanced"] > least - 0.05  # windows of two cells or more hold all of the cell
    assert shares["balanced"] > 1.5 * shares["valid"]


def test_windows_of_two_cells_or_more_still_lie_at_every_offset(tmp_path: Path) -> None:
    places = windows(rare(tmp_path), "balanced", 20000, 128).epoch(0)
    assert {w.row for index, w in places if index == 0} == set(range(400 - 128 + 1))


def test_valid_windows_lie_around_labelled_pixels_and_uniform_ones_anywhere(tmp_path: Path) -> None:
    data = rare(tmp_path)
    empty = {kind: 0 for kind in ("uniform", "valid")}
    for kind in empty:
        drawer = windows(data, kind)
        places = drawer.epoch(0)
        assert all(0 <= w.row <= 400 - 32 and 0 <= w.col <= 400 - 32 for _, w in places)
        empty[kind] = sum(drawer.is_unlabelled(place) for place in places)
    assert empty["valid"] == 0
    assert empty["uniform"] / 4000 == pytest.approx(
        0.277, abs=0.03
    )  # 113 of 369 offsets in nine tenths of the area
    corners = {w.row for _, w in windows(data, "uniform").epoch(0)}
    assert len(corners) > 300  # offsets of every kind, not those of a grid
    area = np.mean([index for index, _ in windows(data, "uniform").epoch(0)])
    assert area == pytest.approx(130**2 / (130**2 + 400**2), abs=0.02)


@pytest.mark.parametrize("kind", ["uniform", "valid", "balanced"])
def test_no_training_window_is_without_a_label(tmp_path: Path, kind: str) -> None:
    rare(tmp_path)
    config = own(tmp_path, sampler=kind, windows_per_epoch=200)
    for batch in SceneDataModule(config, 0).train_dataloader():
        assert bool((batch["labels"] != 255).flatten(1).any(1).all())


@pytest.mark.parametrize("kind", ["uniform", "valid", "balanced"])
def test_threads_ranks_and_a_new_start_give_the_same_windows(tmp_path: Path, kind: str) -> None:
    rare(tmp_path)
    config = own(tmp_path, sampler=kind, windows_per_epoch=32)
    one = SceneDataModule(config, 0)
    four = SceneDataModule(replace(config, num_threads=4, cache="none"), 0)
    assert same(one, four)
    halves = []
    for rank in (0, 1):
        loader = four.train_dataloader()
        mine = range(rank, 32, 2)
        loader._batches = [mine[i : i + 4] for i in range(0, 16, 4)]
        halves.append(torch.cat([batch["image"].clone() for batch in loader]))
    whole = torch.cat([batch["image"].clone() for batch in one.train_dataloader()])
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), whole)


def test_memory_is_used_again_only_when_nobody_holds_a_batch(tmp_path: Path) -> None:
    scene(tmp_path, *draw_scene(0))
    data = SceneDataModule(own(tmp_path, windows_per_epoch=64), 0)
    held = list(data.train_dataloader())
    copies = [batch["image"].clone() for batch in held]
    assert len({batch["image"].data_ptr() for batch in held}) == 16
    loader = data.train_dataloader()
    seen = set()
    for batch, expected in zip(loader, copies, strict=True):
        seen.add(batch["image"].data_ptr())
        part = batch["image"][1:]
        del batch
        assert torch.equal(part, expected[1:])
    assert len(seen) < 8


def corrupt(root: Path) -> Path:
    """A scene whose tile at row 0, column 256 can't be decoded."""
    draw = np.random.default_rng(0)
    image = draw.integers(1, 4000, (2, 512, 512)).astype(np.uint16)
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "pixel"}
    scene(root, image, np.ones((512, 512), np.uint8), compress="deflate", **tiles)
    path = root / "images" / "a.tif"
    with rasterio.open(path) as source:
        offset = int(source.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + 64] = b"\xff" * 64
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("cache", ["none", "memmap"])
def test_a_corrupt_tile_is_named_or_ignored_and_counted(tmp_path: Path, cache: str) -> None:
    path = corrupt(tmp_path)
    config = own(tmp_path, cache=cache, windows_per_epoch=40)
    with pytest.raises(DataError, match=rf"{path}: rows 0-255, columns .* truncated or corrupt.*IReadBlock"):
        SceneDataModule(config, 0)
    data = SceneDataModule(replace(config, on_read_error="ignore"), 0)
    assert data.index["train"][0].unreadable.tolist() == [[0, 256, 256, 256]]
    assert data.class_counts == [0, 512 * 512 - 256 * 256, 0]
    found = data.reader("train").read((0, Window(0, 256, 256, 256)))
    assert bool((found.labels == 255).all())
    assert not found.valid.any()
    assert data.unreadable["images/a.tif"] == (1 if cache == "memmap" else 2)
    with pytest.raises(DataError, match=r"images/a\.tif: rows 0-255, columns 256-511"):
        SceneDataModule(config, 0)  # the index remembers


@pytest.mark.parametrize("cache", ["none", "memmap"])
def test_a_file_that_vanishes_during_a_run_is_named(tmp_path: Path, cache: str) -> None:
    scene(tmp_path, *draw_scene(0))
    data = SceneDataModule(own(tmp_path, cache=cache), 0)
    gone = list((tmp_path / ("images" if cache == "none" else "cache")).glob("*.[tr]*"))
    for path in gone:
        path.unlink()
    with pytest.raises(DataError, match=r"no such file|images/a.tif is missing; run again"):
        next(iter(data.train_dataloader()))
    lenient = replace(data.config, on_read_error="ignore")
    data.config = lenient
    reader = data.reader("train")
    assert bool((reader.read((0, Window(0, 0, 32, 32))).labels == 255).all())
    assert data.unreadable == {"images/a.tif": 1}


def test_a_disk_without_room_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene(tmp_path, *draw_scene(0))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geo_seg.data.scene_reader.os.posix_fallocate", full)
    with pytest.raises(DataError, match=r"no room for a decoded copy .*No space left.*dataset\.cache"):
        SceneDataModule(own(tmp_path, cache="memmap"), 0)
    assert not list((tmp_path / "cache").glob("*.part"))


def test_what_is_kept_between_runs_lies_in_cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for number, name in enumerate("ab"):
        image, mask = draw_scene(number)
        place = {"transform": from_origin(500000 + 1000 * number, 5000000, 2, 2)}
        for band in (0, 1):  # two files, of which a VRT makes one image
            write_raster(tmp_path / f"images_{band}" / f"{name}.tif", image[band], nodata=0, **place)
        wider = np.pad(mask, 4)  # on another grid, so that it is reprojected
        grid = {"transform": from_origin(500000 + 1000 * number - 8, 5000008, 2, 2)}
        write_raster(tmp_path / "masks" / f"{name}.tif", wider, **grid)
    config = DatasetConfig(
        name="kept",
        root=str(tmp_path),
        images=["images_0/*.tif", "images_1/*.tif"],
        masks="masks/*.tif",
        label=LabelConfig(align="reproject"),
        classes=["low", "middle", "high"],
        split=SplitConfig(by="pattern", val="*/b.tif"),
        window=32,
        cache="memmap",
        cache_dir=str(tmp_path / "kept"),
    )
    SceneDataModule(config, 0)
    kept = [path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("*.*")]
    kinds = sorted((Path(name).parent.name, Path(name).suffix) for name in kept)
    assert kinds == sorted(
        [("", ".headers")] + [("", ".index"), ("", ".raw"), ("images", ".vrt"), ("labels", ".tif")] * 2
    )
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "home").exists()
