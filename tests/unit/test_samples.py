"""Samples of the user's own come in the batches that scenes give, in an order that seed and epoch decide."""

import os
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio._env import get_gdal_config
from torch.utils.data import Dataset

from geo_seg.config.dataset import DatasetConfig
from geo_seg.data.datamodule import SceneDataModule
from geo_seg.data.windows.custom_loader import CustomDatasetLoader
from geo_seg.errors import ConfigError, DataError

TARGET = f"{__name__}.Drawn"


class Drawn(Dataset[dict[str, object]]):
    """Samples that hold their number."""

    def __init__(
        self, count: int, label: int = 1, bands: int = 2, kind: str = "uint8", process: bool = False
    ) -> None:
        self._count = count
        self._label = label
        self._bands = bands
        self._kind = kind
        self._process = process

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, object]:
        value = os.getpid() if self._process else index
        labels = np.full((8, 8), self._label, self._kind)
        labels[0] = 255
        valid = np.ones((8, 8), bool)
        valid[:, 0] = False
        return {
            "image": np.full((self._bands, 8, 8), value, np.uint32 if self._process else np.uint16),
            "labels": labels,
            "valid": valid,
        }


def own(small: DatasetConfig, workers: int = 0, **options: object) -> DatasetConfig:
    return replace(small, samples={"_target_": TARGET, "count": 10, **options}, num_workers=workers)


def numbers(batches: object) -> list[list[int]]:
    return [batch["image"][:, 0, 0, 0].long().tolist() for batch in batches]  # type: ignore[attr-defined]


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


def test_batches_look_as_those_of_scenes_do(small: DatasetConfig) -> None:
    batches = SceneDataModule(own(small), 0).train_dataloader()
    assert isinstance(batches, CustomDatasetLoader)
    assert len(batches) == 2  # of 4, and two samples are left over
    assert batches.wait_seconds == 0
    assert len(list(batches.full_epoch())) == 2
    assert batches.wait_seconds == 0
    assert len(list(batches)) == 2
    assert batches.wait_seconds > 0
    batch = next(iter(batches))
    like = next(iter(SceneDataModule(small, 0).train_dataloader()))
    assert set(batch) == set(like)
    assert all(batch[key].dtype == like[key].dtype for key in ("labels", "valid", "place"))
    assert batch["image"].shape == (4, 2, 8, 8)
    assert bool((batch["labels"][:, 0] == 255).all())
    assert bool((batch["labels"][:, :, 0] == 255).all())  # not valid
    assert bool((batch["labels"][:, 1:, 1:] == 1).all())
    assert batch["place"][:, 1].tolist() == batch["image"][:, 0, 0, 0].long().tolist()


def test_seed_and_epoch_decide_the_order_whoever_reads(small: DatasetConfig) -> None:
    first = SceneDataModule(own(small), 0).train_dataloader()
    order = numbers(first)
    assert order == numbers(first)
    assert order == numbers(SceneDataModule(own(small, 2), 0).train_dataloader())
    assert order != numbers(SceneDataModule(own(small), 1).train_dataloader())
    assert isinstance(first, CustomDatasetLoader)
    first._epoch = lambda: 1
    assert order != numbers(first)


def test_workers_are_processes_that_stay(small: DatasetConfig) -> None:
    batches = SceneDataModule(own(small, 1, process=True), 0).train_dataloader()
    first = {number for batch in numbers(batches) for number in batch}
    assert len(first) == 1
    assert os.getpid() not in first
    assert first == {number for batch in numbers(batches) for number in batch}


def test_ranks_share_an_epoch_and_a_resumed_one_goes_on(small: DatasetConfig) -> None:
    data = SceneDataModule(small, 0)

    def part(rank: int = 0, world_size: int = 1, start: int = 0, size: int | None = None) -> list[list[int]]:
        return numbers(
            CustomDatasetLoader(
                {"_target_": TARGET, "count": 12},
                data.table,
                2,
                size=size,
                batch_size=2,
                num_workers=0,
                seed=3,
                epoch=lambda: 0,
                start=lambda: start,
                rank=rank,
                world_size=world_size,
            )
        )

    whole = part()
    assert sorted(number for batch in whole for number in batch) == list(range(12))
    assert part(start=4) == whole[4:]
    shares = [flat(part(rank, 2)) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == list(range(12))
    longer = flat(part(size=30))
    assert np.bincount(longer, minlength=12).tolist() == pytest.approx([2.5] * 12, abs=0.5)


@pytest.mark.parametrize("of_scenes", [True, False])
def test_an_epoch_can_be_read_again_from_its_beginning_while_training_stands_elsewhere(
    small: DatasetConfig, of_scenes: bool
) -> None:
    data = SceneDataModule(small if of_scenes else own(small), 0)
    done = [0]
    data._batches_done = lambda: done[0]  # type: ignore[method-assign]
    batches = data.train_dataloader()
    whole, waited = numbers(batches), batches.wait_seconds
    done[0] = len(whole) - 1
    assert numbers(batches.full_epoch()) == whole
    assert numbers(batches.full_epoch()) == whole
    assert batches.wait_seconds == waited
    assert numbers(batches) == whole[-1:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": 7}, r"label 7 in sample \d+; expected 0 to 2, or ignore_index=255"),
        ({"bands": 3}, r"images \(4, 3, 8, 8\) and labels \(4, 8, 8\); expected \(N, 2, S, S\)"),
        ({"kind": "float32"}, "labels of torch.float32, expected integers"),
    ],
)
def test_samples_that_do_not_fit_are_named(
    small: DatasetConfig, options: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        next(iter(SceneDataModule(own(small, **options), 0).train_dataloader()))


def test_a_data_set_that_cannot_be_made_is_said_in_one_line(small: DatasetConfig) -> None:
    config = replace(small, samples={"_target_": TARGET, "size": 3})
    with pytest.raises(ConfigError, match=r"dataset\.samples: .*size"):
        SceneDataModule(config, 0).train_dataloader()
    for options, message in (
        ({"_target_": "no_such_module.Crops"}, r"Error loading 'no_such_module\.Crops': ModuleNotFoundError"),
        ({"_target_": TARGET, "count": 0}, r"Drawn holds no sample"),
    ):
        with pytest.raises(ConfigError, match=message):
            SceneDataModule(replace(small, samples=options), 0).train_dataloader()


def test_a_place_says_where_a_sample_comes_from(small: DatasetConfig) -> None:
    data = SceneDataModule(small, 0)
    assert data.describe_sample([-1, 5, 0]) == "sample 5"
    assert data.describe_sample([1, 32, 8]) == "images/s1.tif rows 32-63 columns 8-39"


def test_gdal_keeps_no_more_decoded_blocks_than_its_bound() -> None:
    assert os.environ["GDAL_CACHEMAX"] == "512"  # set before GDAL first asks for it
    with rasterio.Env():
        assert get_gdal_config("GDAL_CACHEMAX") == 512 << 20
