"""The interface of a model, as training needs it."""

from collections.abc import Iterator
from typing import Protocol, Self

import torch
from torch import Tensor, nn


class Model(Protocol):
    """A torch module from images (N, bands, H, W) to logits (N, channels, H, W), for any H and W.

    Attributes:
        origin: note for the user on where the weights come from; "" for none.
    """

    origin: str

    @property
    def encoder(self) -> nn.Module | None:
        """The part that may be frozen, and learn at rates of its own; None if there is no such part."""

    def __call__(self, image: Tensor) -> Tensor:
        """Return logits."""

    def to(self, memory_format: torch.memory_format) -> Self:
        """Change the order of the weights in memory; as below, what every torch module has."""

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation."""

    def modules(self) -> Iterator[nn.Module]:
        """Yield the module and all modules in it."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights and buffers by name."""
