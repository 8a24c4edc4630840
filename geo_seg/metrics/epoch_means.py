"""Means of logged values over an epoch that an interruption doesn't lose."""

import torch
from pytorch_lightning.strategies import Strategy
from torch import Tensor


class EpochMeans:
    """Weighted means by name, added up on the device; values that are not finite don't count."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # name to (2,): sum of value * weight, sum of weight

    def add(self, name: str, value: Tensor, weight: int) -> None:
        """Adds a scalar of a batch of this many samples."""
        value = value.detach().float()
        found = value.isfinite()
        part = torch.stack((torch.where(found, value, 0.0), found.float())) * weight
        self._sums[name] = self._sums[name].to(part.device) + part if name in self._sums else part

    def clear(self) -> None:
        """Begins anew."""
        self._sums = {}

    def values(self, strategy: Strategy) -> dict[str, Tensor]:
        """The means over all processes; every process has to ask. NaN where nothing finite was added."""
        return {name: total[0] / total[1] for name, total in self.state(strategy).items()}

    def state(self, strategy: Strategy) -> dict[str, Tensor]:
        """What load takes: sums as mean over the processes; every process has to ask."""
        return {name: strategy.reduce(total.clone(), reduce_op="mean") for name, total in self._sums.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Takes up what state gave."""
        self._sums = {name: total.clone() for name, total in state.items()}
