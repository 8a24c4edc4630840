"""Weighted means over the batches of an epoch and all processes: of losses and other logged values."""

import torch
from pytorch_lightning.strategies import Strategy
from torch import Tensor
from torchmetrics import Metric


class WeightedMean(Metric):
    """Weighted mean over batches and processes; NaN propagates, and the mean of no value is NaN."""

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        # of value * weight, and of weight
        self.add_state("sums", torch.zeros(2, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: int) -> None:
        """Add a scalar of a batch of this many samples."""
        self.sums += _weighted_sums(value.detach().double(), weight, skip_nonfinite=False)

    def compute(self) -> Tensor:
        """Return the mean, float32."""
        return (self.sums[0] / self.sums[1]).float()


class EpochMeans:
    """Weighted means by name, summed on the device; values that are not finite are left out.

    The sums can be saved and restored, so that an interrupted epoch logs the mean of all its batches.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # per name (2,): sum of value * weight, sum of weight

    def add(self, name: str, value: Tensor, weight: int) -> None:
        """Add a scalar of a batch of this many samples."""
        sums = _weighted_sums(value.detach().float(), weight, skip_nonfinite=True)
        self._sums[name] = self._sums[name].to(sums.device) + sums if name in self._sums else sums

    def clear(self) -> None:
        """Reset all means."""
        self._sums = {}

    def values(self, strategy: Strategy) -> dict[str, Tensor]:
        """Return the means over all processes, each of which has to call; NaN without finite values."""
        return {name: sums[0] / sums[1] for name, sums in self.state(strategy).items()}

    def state(self, strategy: Strategy) -> dict[str, Tensor]:
        """Return the sums for `load`, averaged over the processes, each of which has to call."""
        return {name: strategy.reduce(sums.clone(), reduce_op="mean") for name, sums in self._sums.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore the sums that `state` returned."""
        self._sums = {name: sums.clone() for name, sums in state.items()}


def _weighted_sums(value: Tensor, weight: int, *, skip_nonfinite: bool) -> Tensor:
    """Return (2,) `value * weight` and `weight` of a scalar; zeros for a value that is skipped."""
    counted = value.isfinite() if skip_nonfinite else torch.ones_like(value, dtype=torch.bool)
    return torch.stack((torch.where(counted, value, 0.0), counted.to(value.dtype))) * weight
