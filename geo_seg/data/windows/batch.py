"""Training batches, and the interface of the loaders that yield them."""

from collections.abc import Iterator
from typing import Protocol, Self

from torch import Tensor

Batch = dict[str, Tensor]
"""image (N, bands, S, S), labels (N, S, S), valid (N, S, S) and place (N, 3): scene number, row, column."""


class Loader(Protocol):
    """An iterable of the batches of an epoch, each time of the epoch that the trainer is in.

    Attributes:
        wait_seconds: seconds that the consumer has waited for batches so far.
    """

    wait_seconds: float

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def full_epoch(self) -> Self:
        """Return a loader of the whole epoch, even in a resumed run; waiting for it isn't counted here."""
