"""Test-time augmentation: the views in which a model sees a window, and what all of them say together."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """One of the eight ways in which a square can lie.

    Attributes:
        turns: quarter turns, 0 to 3; an odd number exchanges rows and columns.
        mirrored: whether left and right are exchanged before.
    """

    turns: int
    mirrored: bool

    def apply(self, pixels: Tensor) -> Tensor:
        """Pixels (..., height, width) as they look in this view."""
        turned = pixels.flip(-1) if self.mirrored else pixels
        return torch.rot90(turned, self.turns, (-2, -1)) if self.turns else turned  # it copies even for none

    def invert(self, pixels: Tensor) -> Tensor:
        """What show turned, back in its own frame."""
        straight = torch.rot90(pixels, -self.turns, (-2, -1)) if self.turns else pixels
        return straight.flip(-1) if self.mirrored else straight


AS_IS = View(0, False)

VIEWS = {
    "none": (AS_IS,),
    "flips": (AS_IS, View(0, True), View(2, True), View(2, False)),
    "d4": tuple(View(turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}
"""By the words of the option tta."""


def decode_probabilities(probabilities: Tensor, binary: bool, threshold: float) -> tuple[Tensor, Tensor]:
    """Classes out of probabilities.

    Args:
        probabilities: (classes, ...).
        binary: whether the threshold decides.
        threshold: probability above which a pixel is foreground.

    Returns:
        Class ids, int64, and the probability of each pixel's class; both of shape (...).
    """
    if binary and threshold != 0.5:
        ids = (probabilities[1] > threshold).long()
        return ids, torch.where(ids > 0, probabilities[1], probabilities[0])
    best = probabilities.max(dim=0)  # several times faster than argmax on a CPU
    return best.indices, best.values
