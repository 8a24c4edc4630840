"""Valid pixels: the one place that knows shapes, dtypes, label checks and ignored pixels.

A loss of this package computes its value and its gradient with respect to the logits in one go, from a
`Pixels`, without recording a graph; `FusedLoss.forward` then attaches both to the logits. So whatever a loss
does in between, a single tensor of the size of the logits is kept for the backward pass, and several losses
on the same batch share its softmax.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from losses.kernels.autograd import attach_gradient
from losses.kernels.validation import can_sync, validate_batch, validate_range
from losses.task import Task

_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
_TINY = 1e-30  # a smaller probability is near to underflow, and its logarithm comes from the logits
_MAX_NLL = 69.0  # of -log p; that of _TINY is 69.08
_CACHE_VALUES = 1 << 18  # numbers to work on at a time: 1 MB in float32


class LossInputs:
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
        labels = validate_batch(logits, labels, 1 if binary else num_classes, binary)
        self.wants_grad = logits.requires_grad and torch.is_grad_enabled()
        self.logits = logits.detach().contiguous()
        if logits.dtype not in _INTEGERS:
            self.logits = self.logits.float()
        self.binary = binary
        self.num_classes = num_classes
        self.labels, self.valid = validate_range(labels.contiguous(), num_classes, ignore_index)
        self.shared = False
        self._probabilities: Tensor | None = None
        self._kept = self._finite = False
        self._own: Tensor | None = None
        self._places: Tensor | None = None
        self._seconds: Tensor | None = None

    def zero_ignored_(self, values: Tensor) -> Tensor:
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
        probabilities = self._activated()
        if not self._kept:
            self.zero_ignored_(probabilities)
            self._kept = True
        return probabilities

    def _activated(self) -> Tensor:
        """The probabilities; anything at ignored pixels, unless they are kept."""
        if self._probabilities is None:
            logits = self.logits
            self._probabilities = torch.sigmoid(logits) if self.binary else torch.softmax(logits, dim=1)
            self._kept = self.valid is None
        return self._probabilities

    @property
    def label_probabilities(self) -> Tensor:
        """(N, H, W): the probability of the label, 0 at ignored pixels. Multiclass only. Computed once."""
        if self._own is None:
            p = self._activated()
            if self.num_classes == 2:  # a third of what looking up takes
                own = (p[:, 0] * (1.0 - self.foreground_target)).addcmul_(p[:, 1], self.foreground_target)
            else:
                own = self.gather_labels(p)
            # a logit that is no number makes all probabilities of its pixel NaN, the one in this channel too
            self._finite = can_sync(own) and not own.sum().isnan()
            self._own = self.zero_ignored_(own)
        return self._own

    @property
    def foreground_target(self) -> Tensor:
        """(N, H, W), not to be written to: 1 where the label is class 1 of two, in the logits' dtype."""
        if self._seconds is None:
            self._seconds = self.labels.to(self.logits.dtype)
        return self._seconds

    @property
    def valid_float(self) -> Tensor:
        """(N, H, W), not to be written to: 1 at valid pixels, 0 at ignored ones, in the logits' dtype."""
        if self.valid is None:
            return self.logits.new_ones(()).expand(self.labels.shape)
        return self.valid.to(self.logits.dtype)

    @property
    def label_index(self) -> Tensor:
        """(N H W,): where the channel of each pixel's label is in the flat (N, C, H, W). Multiclass only."""
        if self._places is None:
            size = self.labels.shape[1] * self.labels.shape[2]
            first = torch.arange(size, device=self.labels.device)
            image = torch.arange(len(self.labels), device=self.labels.device) * (self.num_classes * size)
            places = torch.add(first, self.labels.flatten(1), alpha=size)
            self._places = places.add_(image.unsqueeze(1)).flatten()
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
        # the logarithm of 0, which ignored pixels have, takes six times as long as any other
        losses = self.zero_ignored_(self.label_probabilities.clamp_min(_TINY).log_().neg_())
        if smooth or not can_sync(losses) or (losses.numel() and losses.amax() > _MAX_NLL):
            largest = self.logits.amax(dim=1)
            # p is exp(logit) / sum; at the largest logit it is at least 1 / C, so its log is exact
            log_sum = self.probabilities.amax(dim=1).log_().neg_()  # of the sum of exp(logit - largest)
            exact = (largest - self.gather_labels(self.logits)).add_(log_sum)
            losses = torch.where(losses > _MAX_NLL, exact, losses)
            if smooth:
                losses.lerp_((largest - self.logits.mean(dim=1)).add_(log_sum), smooth)
                losses = self.zero_ignored_(losses)
        return losses

    def gather_labels(self, values: Tensor) -> Tensor:
        """Picks the channel of the label: (N, C, H, W), contiguous, -> (N, H, W)."""
        # on a CPU several times faster than gather along a dimension
        return values.view(-1).index_select(0, self.label_index).view(self.labels.shape)

    def scatter_add_labels_(self, values: Tensor, additions: Tensor) -> Tensor:
        """Adds additions (N, H, W) to the channel of the label of values (N, C, H, W), in place."""
        values.view(-1).scatter_add_(0, self.label_index, additions.flatten())
        return values

    @property
    def chunk_size(self) -> int:
        """How many numbers to work on at a time, so that they stay in a CPU's cache; elsewhere all."""
        return _CACHE_VALUES if self.logits.device.type == "cpu" and can_sync(self.logits) else 1 << 62

    def chunks(self) -> Iterator[tuple[slice, slice]]:
        """Images and pixels to work on at a time, for values (N, C, H W)."""
        images, classes = self.logits.shape[:2]
        size = max(self.labels.shape[1] * self.labels.shape[2], 1)
        together = max(self.chunk_size // (classes * size), 1)
        step = -(-size // -(-classes * size // self.chunk_size))
        for image in range(0, images, together):
            for first in range(0, size, step):
                yield slice(image, image + together), slice(first, first + step)

    def lookup_by_label(self, per_class: Tensor) -> Tensor:
        """Looks a number per class up for every pixel: (C,) -> (N, H, W), 0 at ignored pixels."""
        picked = per_class.to(self.logits.dtype).index_select(0, self.labels.flatten())
        return self.zero_ignored_(picked.view(self.labels.shape))

    def release_probabilities(self) -> tuple[Tensor, Tensor]:
        """The probabilities, and room for a gradient: their own memory, unless other losses need them.

        At ignored pixels they may be other than 0, but they are finite there.
        """
        probabilities = self._activated() if self._finite else self.probabilities
        if self.shared:
            return probabilities, torch.empty_like(probabilities)
        self._probabilities = None
        return probabilities, probabilities

    def cross_entropy_grad(self, strength: Tensor, smooth: float = 0.0) -> Tensor:
        """Gradient of a loss that is a function of each pixel's -log p_t.

        Args:
            strength: (N, H, W), derivative with respect to -log p_t, 0 at ignored pixels; or a scalar, if
                no pixel is ignored.
            smooth: share of the target spread evenly over the classes.

        Returns:
            (N, C, H, W): strength (p - q), where q is the (smoothed) one-hot label.
        """
        p, grad = self.release_probabilities()
        if self.num_classes == 2:
            target = (
                self.foreground_target * (1.0 - smooth) + smooth / 2 if smooth else self.foreground_target
            )
            return two_class_grad_(grad, (p[:, 1] - target).mul_(strength))
        by_pixel = strength.unsqueeze(1) if strength.dim() else strength
        torch.mul(p, by_pixel, out=grad)
        if smooth:
            grad.sub_(by_pixel * (smooth / self.num_classes))
        return self.scatter_add_labels_(grad, (strength * (smooth - 1.0)).expand(self.labels.shape))

    def activation_backward(self, by_probability: Tensor) -> Tensor:
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


def two_class_grad_(grad: Tensor, slope: Tensor) -> Tensor:
    """Fills a gradient (N, 2, H, W); slope (N, H, W) is that of the second logit: their difference counts."""
    grad[:, 1] = slope
    torch.neg(slope, out=grad[:, 0])
    return grad


class FusedLoss(nn.Module):
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

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient of the loss.

        Args:
            pixels: the batch.

        Returns:
            The value, a scalar; and its derivative by the logits (N, C, H, W), in a new tensor, or None if
            pixels.wants_grad is false.
        """
        raise NotImplementedError

    def prepare(self, logits: Tensor, labels: Tensor) -> LossInputs:
        """Checks a batch."""
        channels = logits.shape[1] if logits.dim() == 4 else 2
        return LossInputs(
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
            value, grad = self.value_and_grad(self.prepare(logits, labels))
        return attach_gradient(logits, value, grad)
