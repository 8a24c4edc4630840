"""The segmentation task: binary or multiclass, number of classes, ignored label, class weights and counts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from losses.class_weights import validate_class_weights
from losses.errors import ClassWeightsError, LossError, did_you_mean

MODES = ("binary", "multiclass")


@dataclass(frozen=True)
class Task:
    """A segmentation task; the only place that knows how binary and multiclass differ.

    Attributes:
        mode: "multiclass" (one channel of logits per class) or "binary" (one channel, the foreground).
        num_classes: at least 2. Binary tasks have background and foreground, so 2; 1 and None mean the same.
        ignore_index: label of ignored pixels, or None; it may be the number of a class.
        class_weights: one per class, not negative, not all 0; None for equal weights.
        class_counts: valid pixels per class in the training split, for losses weighted by class frequency.
        image_pixels: per class, valid pixels of all training images that contain it, for the same losses.

    Raises:
        LossError: an attribute of the wrong type, length or range.
    """

    mode: str
    num_classes: int = None  # type: ignore[assignment] # None is replaced, or an error, on construction
    ignore_index: int | None = 255
    class_weights: Sequence[float] | None = None
    class_counts: Sequence[int] | None = None
    image_pixels: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise LossError(f"unknown mode {self.mode!r}{did_you_mean(self.mode, MODES)}")
        object.__setattr__(self, "num_classes", self._count_classes())
        if self.ignore_index is not None and not is_int(self.ignore_index):
            raise LossError(f"ignore_index must be an integer or None, got {self.ignore_index!r}")
        for field in ("class_weights", "class_counts", "image_pixels"):
            values = getattr(self, field)
            if values is not None:
                object.__setattr__(self, field, validate_class_weights(values, self.num_classes, field))
        if self.class_counts is not None and not all(float(n).is_integer() for n in self.class_counts):
            raise LossError(f"class_counts must be whole numbers of pixels, got {list(self.class_counts)}")

    def _count_classes(self) -> int:
        """Return the number of classes; raise LossError if it does not suit the mode."""
        number = self.num_classes
        if self.mode == "binary":
            if number is not None and (not is_int(number) or number not in (1, 2)):
                raise LossError(f"a binary task has 2 classes (background, foreground), got {number!r}")
            return 2
        if not is_int(number) or number < 2:
            raise LossError(f"a multiclass task needs num_classes of at least 2, got {number!r}")
        return int(number)

    @property
    def binary(self) -> bool:
        """Whether one logit per pixel separates background from foreground."""
        return self.mode == "binary"

    @property
    def channels(self) -> int:
        """Channels of the logits: num_classes, or 1 in binary mode."""
        return 1 if self.binary else self.num_classes

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return class probabilities in float32.

        Args:
            logits: (N, channels, H, W).

        Returns:
            (N, num_classes, H, W): softmax, or background and foreground from the sigmoid.
        """
        logits = logits.float()
        if self.binary:
            return torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=1)
        return torch.softmax(logits, dim=1)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Return log probabilities, finite where `probabilities` rounds to 0; same shapes."""
        logits = logits.float()
        if self.binary:
            return nn.functional.logsigmoid(torch.cat([-logits, logits], dim=1))
        return torch.log_softmax(logits, dim=1)

    def decode(self, logits: Tensor, threshold: float = 0.5) -> Tensor:
        """Return the most likely class of every pixel.

        Args:
            logits: (N, channels, H, W).
            threshold: for binary tasks, the probability above which a pixel is foreground; in (0, 1).

        Returns:
            (N, H, W) int64.
        """
        if self.binary:  # sigmoid(z) > t where z > log(t / (1 - t))
            return (logits[:, 0] > math.log(threshold / (1 - threshold))).long()
        return logits.max(dim=1).indices  # several times faster than argmax on a CPU


def reject_class_weights(task: Task, reason: str) -> None:
    """Raise ClassWeightsError if the task has class weights, for losses that cannot use them."""
    if task.class_weights is not None:
        raise ClassWeightsError(f"no place for class weights: {reason}")


def is_int(value: object) -> bool:
    """Return whether a value is an integer and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)
