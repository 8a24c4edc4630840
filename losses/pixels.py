"""Valid pixels: the one place that knows shapes, dtypes, label checks and ignored pixels.

A loss of this package computes its value and its gradient with respect to the logits in one go, from a
`Pixels`, without recording a graph; `PixelLoss.forward` then attaches both to the logits. So whatever a loss
does in between, a single tensor of the size of the logits is kept for the backward pass, and several losses
on the same batch share its softmax.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from losses.labels import check_range, checked_labels, host_may_look, valid_pixels
from losses.registry import Task

_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
_CACHED = 1 << 18  # numbers to work on at a time: 1 MB in float32


class Pixels:
    """A batch whose shapes, dtypes and labels are checked, outside the graph and in float32 at least.

    Args:
        logits: (N, C, H, W) floating point; under ignored pixels anything, also NaN and inf.
        labels: (N, H, W) or (N, 1, H, W) of any integer dtype (bool too if binary).
        num_classes: labels are below it.
        ignore_index: label of ignored pixels, or None.
        binary: one channel of logits, that of class 1.

    Attributes:
        logits: (N, C, H, W) float32 or float64, contiguous.
        labels: (N, H, W) int64, contiguous, 0 at ignored pixels.
        valid: (N, H, W) bool, or None if no pixel is ignored for sure.
        wants_grad: whether the loss should compute its gradient.
        shared: whether another loss still needs the probabilities.

    Raises:
        LossError: shapes or dtypes that do not fit; on a CPU also labels out of range. On CUDA those fail
            an assertion on the device, so that the host does not wait for it.
    """

    def __init__(
        self, logits: Tensor, labels: Tensor, *, num_classes: int, ignore_index: int | None, binary: bool
    ) -> None:
        labels = checked_labels(logits, labels, 1 if binary else num_classes, binary)
        self.wants_grad = logits.requires_grad and torch.is_grad_enabled()
        self.logits = logits.detach().contiguous()
        if logits.dtype not in _INTEGERS:
            self.logits = self.logits.float()
        self.binary = binary
        self.num_classes = num_classes
        labels = labels.long().contiguous()
        self.valid = None if ignore_index is None else valid_pixels(labels, ignore_index)
        self.labels = labels if self.valid is None else labels & -self.valid.long()
        check_range(self.labels, num_classes)
        self.shared = False
        self._probabilities: Tensor | None = None
        self._own: Tensor | None = None
        self._places: Tensor | None = None

    def keep(self, values: Tensor) -> Tensor:
        """Sets values to 0 at ignored pixels, in place, whatever they were (NaN too).

        Args:
            values: (N, H, W) or (N, C, H, W) of the logits' dtype.

        Returns:
            The same tensor.
        """
        if self.valid is not None:
            integers = _INTEGERS[values.dtype]
            bits = self.valid.to(integers).neg_()  # all ones, or all zeros
            values.view(integers).bitwise_and_(bits if values.dim() == 3 else bits.unsqueeze(1))
        return values

    @property
    def probabilities(self) -> Tensor:
        """(N, C, H, W): softmax, or in binary mode the sigmoid; 0 at ignored pixels. Computed once."""
        if self._probabilities is None:
            logits = self.logits
            raw = torch.sigmoid(logits) if self.binary else torch.softmax(logits, dim=1)
            self._probabilities = self.keep(raw)
        return self._probabilities

    @property
    def own_probabilities(self) -> Tensor:
        """(N, H, W): the probability of the label, 0 at ignored pixels. Multiclass only. Computed once."""
        if self._own is None:
            self._own = self.at_labels(self.probabilities)
        return self._own

    @property
    def ones(self) -> Tensor:
        """(N, H, W): 1 at valid pixels, 0 at ignored ones, in the logits' dtype."""
        if self.valid is None:
            return torch.ones_like(self.labels, dtype=self.logits.dtype)
        return self.valid.to(self.logits.dtype)

    @property
    def places(self) -> Tensor:
        """(N H W,): where the channel of each pixel's label is in the flat (N, C, H, W). Multiclass only."""
        if self._places is None:
            size = self.labels.shape[1] * self.labels.shape[2]
            first = torch.arange(size, device=self.labels.device)
            image = torch.arange(len(self.labels), device=self.labels.device) * (self.num_classes * size)
            places = (self.labels.flatten(1) * size).add_(first).add_(image.unsqueeze(1))
            self._places = places.flatten()
        return self._places

    @property
    def count(self) -> Tensor:
        """Number of valid pixels, an int64 scalar."""
        if self.valid is None:
            return torch.full((), self.labels.numel(), device=self.labels.device)
        return self.valid.sum()

    def cross_entropies(self, smooth: float = 0.0) -> Tensor:
        """The cross entropy of every pixel. Multiclass only.

        Args:
            smooth: share of the target spread evenly over the classes.

        Returns:
            (N, H, W): -log p at the label, mixed with the mean of -log p; 0 at ignored pixels.
        """
        largest = self.logits.amax(dim=1)
        # p is exp(logit) / sum; at the largest logit it is at least 1 / C, so its log is exact
        log_sum = self.probabilities.amax(dim=1).log_().neg_()  # log of the sum of exp(logit - largest)
        losses = (largest - self.at_labels(self.logits)).add_(log_sum)
        if smooth:
            losses.lerp_((largest - self.logits.mean(dim=1)).add_(log_sum), smooth)
        return self.keep(losses)

    def at_labels(self, values: Tensor) -> Tensor:
        """Picks the channel of the label: (N, C, H, W), contiguous, -> (N, H, W)."""
        # on a CPU several times faster than gather along a dimension
        return values.view(-1).index_select(0, self.places).view(self.labels.shape)

    def add_at_labels(self, values: Tensor, additions: Tensor) -> Tensor:
        """Adds additions (N, H, W) to the channel of the label of values (N, C, H, W), in place."""
        values.view(-1).scatter_add_(0, self.places, additions.flatten())
        return values

    @property
    def portion(self) -> int:
        """How many numbers to work on at a time, so that they stay in a CPU's cache; elsewhere all."""
        return _CACHED if self.logits.device.type == "cpu" and host_may_look(self.logits) else 1 << 62

    def slices(self) -> Iterator[tuple[slice, slice]]:
        """Images and pixels to work on at a time, for values (N, C, H W)."""
        images, classes = self.logits.shape[:2]
        size = max(self.labels.shape[1] * self.labels.shape[2], 1)
        together = max(self.portion // (classes * size), 1)
        step = -(-size // -(-classes * size // self.portion))
        for image in range(0, images, together):
            for first in range(0, size, step):
                yield slice(image, image + together), slice(first, first + step)

    def of_labels(self, per_class: Tensor) -> Tensor:
        """Looks a number per class up for every pixel: (C,) -> (N, H, W), 0 at ignored pixels."""
        picked = per_class.to(self.logits.dtype).index_select(0, self.labels.flatten())
        return self.keep(picked.view(self.labels.shape))

    def spend_probabilities(self) -> Tensor:
        """The probabilities as a buffer to overwrite: a copy only if other losses still need them."""
        probabilities = self.probabilities
        if self.shared:
            return probabilities.clone()
        self._probabilities = None
        return probabilities

    def pull_to_target(self, strength: Tensor, smooth: float = 0.0) -> Tensor:
        """Gradient of a loss that is a function of each pixel's -log p_t.

        Args:
            strength: (N, H, W), derivative with respect to -log p_t, 0 at ignored pixels; or a scalar, if
                no pixel is ignored.
            smooth: share of the target spread evenly over the classes.

        Returns:
            (N, C, H, W): strength (p - q), where q is the (smoothed) one-hot label.
        """
        grad = self.spend_probabilities()
        if smooth:
            grad = self.keep(grad.sub_(smooth / self.num_classes))
        grad.mul_(strength.unsqueeze(1) if strength.dim() else strength)
        return self.add_at_labels(grad, (strength * (smooth - 1.0)).expand(self.labels.shape))

    def through_activation(self, by_probability: Tensor) -> Tensor:
        """Chain rule: from the derivative by the probabilities to the derivative by the logits.

        Args:
            by_probability: (N, C, H, W), finite; overwritten.

        Returns:
            (N, C, H, W), 0 at ignored pixels.
        """
        p = self.probabilities
        if self.binary:
            return by_probability.mul_(p).mul_(1.0 - p)
        by_probability.mul_(p)  # p g
        return by_probability.addcmul_(p, by_probability.sum(1, keepdim=True), value=-1)  # p (g - sum of p g)


class PixelLoss(nn.Module):
    """A loss that computes its value and its gradient from a `Pixels`.

    Args:
        task: what is learnt; None for classes that read the number of classes off the logits.
        ignore_index: label of ignored pixels, without a task.
    """

    def __init__(self, task: Task | None = None, ignore_index: int | None = None) -> None:
        super().__init__()
        self.num_classes = None if task is None else task.num_classes
        self.binary = task is not None and task.binary
        self.ignore_index = ignore_index if task is None else task.ignore_index

    def evaluate(self, pixels: Pixels) -> tuple[Tensor, Tensor | None]:
        """Value and gradient of the loss.

        Args:
            pixels: the batch.

        Returns:
            The value, a scalar; and its derivative by the logits (N, C, H, W), in a new tensor, or None if
            pixels.wants_grad is false.
        """
        raise NotImplementedError

    def read(self, logits: Tensor, labels: Tensor) -> Pixels:
        """Checks a batch."""
        channels = logits.shape[1] if logits.dim() == 4 else 2
        return Pixels(
            logits,
            labels,
            num_classes=channels if self.num_classes is None else self.num_classes,
            ignore_index=self.ignore_index,
            binary=self.binary,
        )

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (N, C, H, W).
            labels: (N, H, W) or (N, 1, H, W).

        Returns:
            A scalar in float32 (float64 for logits in float64); exactly 0 if no pixel is valid.
        """
        with torch.autocast(logits.device.type, enabled=False):
            value, grad = self.evaluate(self.read(logits, labels))
        return attach(logits, value, grad)


def attach(logits: Tensor, value: Tensor, grad: Tensor | None) -> Tensor:
    """Joins a value that was computed outside the graph, and its gradient, to the logits.

    Args:
        logits: (N, C, H, W) of any float dtype.
        value: scalar.
        grad: (N, C, H, W), derivative of value by the logits in float32 or float64; None leaves value as is.

    Returns:
        The value; its backward pass gives the logits a gradient in their own dtype.
    """
    return value if grad is None else _Attach.apply(logits, value, grad)


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        ctx.dtype = logits.dtype
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        if grad.dtype == ctx.dtype and outer.device.type == "cpu" and host_may_look(outer) and outer == 1:
            return grad, None, None  # what most backward passes start with; saves a pass over the gradient
        # scaled before it is rounded: the gradient of a mean is too small for float16
        return torch.mul(grad, outer).to(ctx.dtype), None, None
