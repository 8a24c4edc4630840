"""Test-time augmentation views, and decoding of probabilities into class ids."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """One of the eight orientations of a square (dihedral group D4).

    Attributes:
        turns: quarter turns, 0 to 3; an odd number exchanges rows and columns.
        mirrored: whether left and right are exchanged before turning.
    """

    turns: int
    mirrored: bool

    def apply(self, pixels: Tensor) -> Tensor:
        """Return pixels (..., height, width) in this view."""
        flipped = pixels.flip(-1) if self.mirrored else pixels
        return (
            torch.rot90(flipped, self.turns, (-2, -1)) if self.turns else flipped
        )  # rot90 copies even for 0 turns

    def invert(self, pixels: Tensor) -> Tensor:
        """Undo apply."""
        unrotated = torch.rot90(pixels, -self.turns, (-2, -1)) if self.turns else pixels
        return unrotated.flip(-1) if self.mirrored else unrotated


IDENTITY = View(0, False)

VIEWS = {
    "none": (IDENTITY,),
    "flips": (IDENTITY, View(0, True), View(2, True), View(2, False)),
    "d4": tuple(View(turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}
"""Views by value of the option tta."""


def decode_probabilities(probabilities: Tensor, binary: bool, threshold: float) -> tuple[Tensor, Tensor]:
    """Return the class ids and their probabilities.

    Args:
        probabilities: (classes, ...).
        binary: whether the task is binary, so that the threshold applies.
        threshold: probability above which a pixel is foreground.

    Returns:
        Class ids (int64) and the probability of the predicted class, both of shape (...).
    """
    if binary and threshold != 0.5:
        ids = (probabilities[1] > threshold).long()
        return ids, torch.where(ids > 0, probabilities[1], probabilities[0])
    top = probabilities.max(dim=0)  # several times faster than argmax on a CPU
    return top.indices, top.values
