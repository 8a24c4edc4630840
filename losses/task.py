"""What is learnt: binary or multiclass, how many classes, which label is ignored."""

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
    """What is learnt: the one place that knows how binary and multiclass differ.

    Attributes:
        mode: "multiclass" (logits with one channel per class) or "binary" (one channel, that of the
            foreground).
        num_classes: at least 2. Binary tasks have background and foreground, so 2; 1 and None mean the same.
        ignore_index: label of pixels that no loss sees, or None; it may be the number of a class.
        class_weights: one per class, not negative, not all 0; None weighs all alike.
        class_counts: valid pixels per class in the training split, for losses that weigh by frequency.
        image_pixels: per class, valid pixels of all training images that hold it, for the same.

    Raises:
        LossError: anything else.
    """

    mode: str
    num_classes: int = None  # type: ignore[assignment] # None is replaced, or refused, on construction
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
        """Whether one logit per pixel decides between background and foreground."""
        return self.mode == "binary"

    @property
    def channels(self) -> int:
        """Channels of the logits: num_classes, or 1 in binary mode."""
        return 1 if self.binary else self.num_classes

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities in float32.

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
        """Logarithms of the probabilities, finite where those round to 0; see probabilities."""
        logits = logits.float()
        if self.binary:
            return nn.functional.logsigmoid(torch.cat([-logits, logits], dim=1))
        return torch.log_softmax(logits, dim=1)

    def decode(self, logits: Tensor, threshold: float = 0.5) -> Tensor:
        """The most likely class of every pixel.

        Args:
            logits: (N, channels, H, W).
            threshold: of binary tasks: what has a higher probability is foreground; above 0 and below 1.

        Returns:
            (N, H, W) int64.
        """
        if self.binary:
            return (logits[:, 0] > math.log(threshold / (1 - threshold))).long()
        return logits.max(dim=1).indices  # several times faster than argmax on a CPU


def reject_class_weights(task: Task, why: str) -> None:
    """Refuses the class weights of a task, rather than dropping them, where a loss has no place for them."""
    if task.class_weights is not None:
        raise ClassWeightsError(f"no place for class weights: {why}")


def is_int(value: object) -> bool:
    """Return whether a value is an integer and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)
