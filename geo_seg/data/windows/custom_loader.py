"""Loader of a user-defined torch Dataset, through torch's DataLoader and its worker processes."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor
from torch.utils.data import DataLoader

from geo_seg.data.class_table import ClassTable
from geo_seg.data.scene_reader import label_dtype
from geo_seg.data.windows.batch import Batch
from geo_seg.errors import ConfigError, DataError, first_line
from geo_seg.runtime.process import setup_process

CUSTOM_SAMPLE = -1
"""Scene number in a batch's "place" if the sample is of a user-defined data set."""


class CustomDatasetLoader:
    """A Loader of batches from a user-defined data set.

    A sample is a mapping of image (bands, S, S) in the raw values of the scenes, labels (S, S) integers from
    0 to classes - 1 or ignore_index, and optionally valid (S, S) bool. A batch's "place" holds CUSTOM_SAMPLE,
    the number of the sample, and 0.

    Args:
        options: `_target_` of a torch Dataset with a length, and its options.
        table: the classes.
        bands: number of bands of the model.
        size: samples of an epoch, over all ranks; None takes each sample once.
        batch_size: samples of a batch.
        num_workers: worker processes; 0 reads in this process.
        seed: determines the order, together with the epoch.
        epoch: returns the number of the current epoch.
        start: returns the number of batches that a resumed run has already done in this epoch.
        rank: of this process.
        world_size: number of processes; each reads its share of an epoch.

    Attributes:
        wait_seconds: seconds that the consumer has waited for batches so far.

    Raises:
        ConfigError: the data set can't be built, or is empty.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        table: ClassTable,
        bands: int,
        *,
        size: int | None,
        batch_size: int,
        num_workers: int,
        seed: int,
        epoch: Callable[[], int],
        start: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        try:
            dataset = instantiate(options)
            self._length = len(dataset)
        except (InstantiationException, TypeError) as error:
            reason = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise ConfigError(f"dataset.samples: {first_line(reason)}") from error
        if not self._length:
            raise ConfigError(f"dataset.samples: {options['_target_']} holds no sample; see its options")
        self.wait_seconds = 0.0
        self._table = table
        self._bands = bands
        self._size = max(size or self._length, batch_size * world_size)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch
        self._start = start
        self._rank = rank
        self._world_size = world_size
        self._order = _BatchOrder()
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._order,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_setup_worker,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # seeds the workers
        )

    def __len__(self) -> int:
        return self._size // self._world_size // self._batch_size

    def __iter__(self) -> Iterator[Batch]:
        self._loader.generator.manual_seed(hash((self._seed, self._epoch(), self._rank)) % 2**63)
        self._order.batches = self.numbers()
        samples = iter(self._loader)  # asks the order for its batches here, once
        for numbers in self._order.batches:
            started = time.perf_counter()
            batch = self._batch(next(samples), numbers)
            self.wait_seconds += time.perf_counter() - started
            yield batch

    def full_epoch(self) -> Self:
        """Return a loader of the whole epoch, even in a resumed run; waiting for it isn't counted here."""
        loader = copy.copy(self)  # with the same workers
        loader._start = lambda: 0
        return loader

    def numbers(self) -> list[list[int]]:
        """Return the sample numbers of each batch that is left in the epoch."""
        generator = np.random.default_rng([self._seed, self._epoch()])
        repeats = -(-self._size // self._length)
        order = np.concatenate([generator.permutation(self._length) for _ in range(repeats)])[: self._size]
        of_rank = order[self._rank :: self._world_size][: len(self) * self._batch_size]
        batches: list[list[int]] = of_rank.reshape(-1, self._batch_size).tolist()
        return batches[self._start() :]

    def _batch(self, samples: Mapping[str, Tensor], numbers: list[int]) -> Batch:
        image, labels = (_tensor(samples, key) for key in ("image", "labels"))
        if (
            image.ndim != 4
            or image.shape[1] != self._bands
            or labels.shape != (*image.shape[:1], *image.shape[2:])
        ):
            raise DataError(
                f"dataset.samples: a batch of images {tuple(image.shape)} and labels {tuple(labels.shape)}; "
                f"expected (N, {self._bands}, S, S) and (N, S, S)"
            )
        if labels.is_floating_point():
            raise DataError(f"dataset.samples: labels of {labels.dtype}, expected integers")
        ignored = labels == self._table.ignore_index
        invalid = ~ignored & ((labels < 0) | (labels >= len(self._table.names)))
        if invalid.any():
            number = numbers[int(invalid.nonzero()[0, 0])]
            raise DataError(
                f"dataset.samples: label {int(labels[invalid][0])} in sample {number}; "
                f"expected 0 to {len(self._table.names) - 1}, or ignore_index={self._table.ignore_index}"
            )
        valid = samples["valid"].bool() if "valid" in samples else torch.ones(labels.shape, dtype=torch.bool)
        dtype = torch.from_numpy(np.empty(0, label_dtype(self._table))).dtype
        return {
            "image": image,
            "labels": labels.to(dtype).masked_fill(~valid, self._table.ignore_index),
            "valid": valid,
            "place": torch.tensor([(CUSTOM_SAMPLE, number, 0) for number in numbers]),
        }


class _BatchOrder:
    """A batch sampler that replays sample numbers, which are set before each pass over the DataLoader.

    Attributes:
        batches: sample numbers of each batch.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _setup_worker(number: int) -> None:
    """Set up a worker process, which need not be a copy of this one."""
    setup_process()


def _tensor(samples: object, key: str) -> Tensor:
    if not isinstance(samples, Mapping) or not isinstance(samples.get(key), Tensor):
        raise DataError(f"dataset.samples: expected samples that are mappings with an array under {key!r}")
    tensor: Tensor = samples[key]
    return tensor
