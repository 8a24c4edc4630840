"""Windows: statistics see valid pixels only, every evaluation pixel counts once, samples can be repeated."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geo_seg.config.dataset import DatasetConfig, SplitConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.scenes.discovery import find_scenes
from geo_seg.data.windows.loader import WindowLoader
from geo_seg.data.windows.sampler import grid_windows
from geo_seg.errors import ConfigError, DataError
from tests.conftest import draw_scene, write_raster


def test_statistics_are_those_of_the_valid_training_pixels(small: DatasetConfig) -> None:
    data = SceneDataModule(small, seed=0)
    pixels = np.concatenate([draw_scene(i)[0][:, :, 7:].reshape(2, -1) for i in range(4)], axis=1).astype(
        float
    )
    np.testing.assert_allclose(data.bands.mean, pixels.mean(1))
    np.testing.assert_allclose(data.bands.std, pixels.std(1))
    masks = np.concatenate([draw_scene(i)[1][:, 7:].ravel() for i in range(4)])
    assert data.class_counts == np.bincount(masks, minlength=3).tolist()


def test_nodata_of_the_image_is_ignored_in_the_labels(small: DatasetConfig) -> None:
    data = SceneDataModule(small, seed=0)
    for batch in data.train_dataloader():
        assert bool((batch["labels"][~batch["valid"]] == 255).all())
        assert batch["image"].dtype == torch.uint16
        assert batch["image"].shape == (4, 2, 32, 32)


def test_every_valid_pixel_of_the_grid_counts_exactly_once(small: DatasetConfig) -> None:
    data = SceneDataModule(small, seed=0)
    image, mask = draw_scene(4)
    counts = np.zeros(3, np.int64)
    for batch in data.val_dataloader():
        counts += np.bincount(batch["labels"].numpy().ravel(), minlength=256)[:3]
    assert counts.tolist() == np.bincount(mask[:, 7:].ravel(), minlength=3).tolist()
    places = grid_windows(find_scenes(small, 0)["val"], 50)
    assert sum(min(96 - w.row, 50) * min(80 - w.col, 50) for _, w in places) == image[0].size


def batches(config: DatasetConfig, seed: int = 0) -> list[torch.Tensor]:
    return [batch["image"].int() for batch in SceneDataModule(config, seed).train_dataloader()]


def test_the_number_of_threads_changes_nothing_and_the_seed_does(small: DatasetConfig) -> None:
    first = batches(small)
    small.num_threads = 5
    assert all(torch.equal(a, b) for a, b in zip(first, batches(small), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, batches(small, seed=1), strict=True))


def test_every_epoch_draws_other_windows(small: DatasetConfig) -> None:
    loader = SceneDataModule(small, 0).train_dataloader()
    first = next(iter(loader))["image"]
    loader._epoch = lambda: 1
    assert not torch.equal(first, next(iter(loader))["image"])


def test_ranks_share_an_epoch_without_overlap(small: DatasetConfig) -> None:
    reader = SceneDataModule(small, 0).reader("train")
    parts = [
        WindowLoader(
            reader,
            [],
            size=19,
            window=32,
            batch_size=2,
            drop_last=True,
            threads=1,
            epoch=lambda: 0,
            rank=rank,
            world_size=2,
        )
        for rank in range(2)
    ]
    assert [[list(b) for b in part._batches] for part in parts] == [
        [[0, 2], [4, 6], [8, 10], [12, 14]],
        [[1, 3], [5, 7], [9, 11], [13, 15]],
    ]


def test_windows_per_epoch_sets_the_number_of_steps(small: DatasetConfig) -> None:
    small.windows_per_epoch = 20
    assert len(SceneDataModule(small, 0).train_dataloader()) == 5


def test_a_window_larger_than_the_scene_is_padded_with_ignored_pixels(small: DatasetConfig) -> None:
    small.window = 128
    batch = next(iter(SceneDataModule(small, 0).train_dataloader()))
    assert batch["labels"].shape == (4, 128, 128)
    assert bool((batch["labels"][:, 96:] == 255).all())


def test_bands_are_picked_and_reordered(small: DatasetConfig) -> None:
    both = SceneDataModule(small, 0)
    small.bands = [2, 1]
    turned = SceneDataModule(small, 0)
    place = grid_windows(both.scenes["train"], 64)[0]
    np.testing.assert_array_equal(
        both.reader("train").read(place).image[::-1], turned.reader("train").read(place).image
    )
    np.testing.assert_allclose(both.bands.mean[::-1], turned.bands.mean)


def test_a_data_set_without_a_labelled_pixel_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        write_raster(tmp_path / "images" / f"{name}.tif", draw_scene(0)[0], nodata=0)
        write_raster(tmp_path / "masks" / f"{name}.tif", np.full((96, 80), 255, np.uint8))
    config = DatasetConfig(
        name="x",
        root=str(tmp_path),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["a", "b"],
        split=SplitConfig(val=0.5),
        allow_leakage=True,  # all is drawn at one place
    )
    with pytest.raises(DataError, match="no training pixel has a class"):
        SceneDataModule(config, 0)
    config.nodata = 0
    for name in "ab":
        write_raster(tmp_path / "images" / f"{name}.tif", np.zeros((2, 96, 80), np.uint8))
    with pytest.raises(DataError, match="no training pixel has a class"):
        SceneDataModule(config, 0)


def test_mask_values_outside_the_table_stop_before_training(small: DatasetConfig) -> None:
    small.classes = ["low", "middle"]
    with pytest.raises(DataError, match=r"mask values in no class: 2 \(\d+ px\)"):
        SceneDataModule(small, 0)


def test_imagenet_normalisation_is_for_uint8_rgb(small: DatasetConfig) -> None:
    small.normalize = "imagenet"
    with pytest.raises(ConfigError, match="three uint8 bands, the images have 2 of uint16"):
        SceneDataModule(small, 0)
    small.normalize = "none"
    assert SceneDataModule(small, 0).bands.mean == (0.0, 0.0)


def test_a_truncated_image_is_named(small: DatasetConfig, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "images" / "a.tif", draw_scene(0)[0], compress="deflate")
    write_raster(tmp_path / "masks" / "a.tif", draw_scene(0)[1])
    write_raster(tmp_path / "images" / "b.tif", draw_scene(0)[0])
    write_raster(tmp_path / "masks" / "b.tif", draw_scene(0)[1])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    small.root, small.split = str(tmp_path), SplitConfig(val=0.5)
    with pytest.raises(DataError, match=r"a\.tif: .*(truncated|cannot be opened)"):
        SceneDataModule(small, 0)


@pytest.mark.parametrize("cache", ["none", "memmap"])
def test_a_scene_without_nodata_is_valid_inside_and_nowhere_else(tmp_path: Path, cache: str) -> None:
    image, mask = draw_scene(0)
    image += 1
    for name, part in (("a", image), ("b", image[:, :50, :70])):
        write_raster(tmp_path / "images" / f"{name}.tif", part, nodata=0)
        write_raster(tmp_path / "masks" / f"{name}.tif", mask[: part.shape[1], : part.shape[2]])
    config = DatasetConfig(
        name="own",
        root=str(tmp_path),
        images="images/*.tif",
        masks="masks/*.tif",
        classes=["low", "middle", "high"],
        split=SplitConfig(by="pattern", val="images/b.tif"),
        allow_leakage=True,
        window=32,
        cache=cache,
        cache_dir=str(tmp_path / "cache"),
    )
    data = SceneDataModule(config, 0)
    (batch,) = data.val_dataloader()
    assert data.index["val"][0].bands.pixels == 50 * 70
    for (_, row, col), valid, labels in zip(
        batch["place"].tolist(), batch["valid"], batch["labels"], strict=True
    ):
        inside = torch.zeros(64, 64, dtype=torch.bool)
        inside[: 50 - row, : 70 - col] = True
        assert torch.equal(valid, inside)
        assert torch.equal(labels != 255, inside)
