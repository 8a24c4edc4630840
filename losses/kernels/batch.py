"""Validated batches, with the fused kernels that losses compute their value and gradient from.

A loss of this package computes its value and its gradient by the logits in one pass, from a `LossInputs` and
without recording a graph; `FusedLoss.forward` then attaches both to the logits. So a single tensor of the
size of the logits is kept for the backward pass, and several losses on the same batch share its softmax.

Notation: z logits, p probabilities, y the label, pt = p_y the probability of the label, nll = -log pt.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from losses.kernels.autograd import attach_gradient
from losses.kernels.validation import can_sync, validate_batch, validate_range
from losses.task import Task

_INT_DTYPES = {torch.float32: torch.int32, torch.float64: torch.int64}
_MIN_PROBABILITY = (
    1e-30  # a smaller probability is near to underflow, and its logarithm comes from the logits
)
_MAX_NLL = 69.0  # of -log p; that of _MIN_PROBABILITY is 69.08
_CACHE_VALUES = 1 << 18  # values per chunk: 1 MB in float32


class LossInputs:
    """A batch whose shapes, dtypes and labels are valid, outside the graph and in float32 at least.

    Args:
        logits: (N, C, H, W) of a float dtype; any value at ignored pixels, NaN and inf too.
        labels: (N, H, W) or (N, 1, H, W) of any integer dtype (bool too if binary).
        num_classes: labels are below it.
        ignore_index: label of ignored pixels, or None.
        binary: one channel of logits, that of class 1.

    Attributes:
        logits: (N, C, H, W) float32 or float64, contiguous.
        labels: (N, H, W) int64, contiguous, 0 at ignored pixels.
        valid: (N, H, W) bool, or None if no pixel can be ignored.
        wants_grad: whether the loss should compute its gradient.
        shared: whether another loss still needs the probabilities.

    Raises:
        LossError: invalid shapes or dtypes; on a CPU also labels out of range. On CUDA those fail an
            assertion on the device, so that the host does not wait for it.
    """

    def __init__(
        self, logits: Tensor, labels: Tensor, *, num_classes: int, ignore_index: int | None, binary: bool
    ) -> None:
        labels = validate_batch(logits, labels, 1 if binary else num_classes, binary)
        self.wants_grad = logits.requires_grad and torch.is_grad_enabled()
        self.logits = logits.detach().contiguous()
        if logits.dtype not in _INT_DTYPES:
            self.logits = self.logits.float()
        self.binary = binary
        self.num_classes = num_classes
        self.labels, self.valid = validate_range(labels.contiguous(), num_classes, ignore_index)
        self.shared = False
        self._probabilities: Tensor | None = None
        self._ignored_are_zero = self._all_finite = False
        self._label_probabilities: Tensor | None = None
        self._label_index: Tensor | None = None
        self._foreground_target: Tensor | None = None

    def zero_ignored_(self, values: Tensor) -> Tensor:
        """Set values to 0 at ignored pixels, in place, whatever they were (NaN too).

        Args:
            values: (N, H, W) or (N, C, H, W) of the logits' dtype.

        Returns:
            The same tensor.
        """
        if self.valid is not None:
            int_dtype = _INT_DTYPES[values.dtype]
            mask = self.valid.to(int_dtype).neg_()  # all bits 1, or all 0
            values.view(int_dtype).bitwise_and_(mask if values.dim() == 3 else mask.unsqueeze(1))
        return values

    @property
    def probabilities(self) -> Tensor:
        """(N, C, H, W): softmax, or in binary mode the sigmoid; 0 at ignored pixels. Cached."""
        p = self._activate()
        if not self._ignored_are_zero:
            self.zero_ignored_(p)
            self._ignored_are_zero = True
        return p

    def _activate(self) -> Tensor:
        """Return the probabilities; any value at ignored pixels, unless those were set to 0 before."""
        if self._probabilities is None:
            z = self.logits
            self._probabilities = torch.sigmoid(z) if self.binary else torch.softmax(z, dim=1)
            self._ignored_are_zero = self.valid is None
        return self._probabilities

    @property
    def label_probabilities(self) -> Tensor:
        """(N, H, W): pt, the probability of the label, 0 at ignored pixels. Multiclass only. Cached."""
        if self._label_probabilities is None:
            p = self._activate()
            if self.num_classes == 2:  # (1 - t) p_0 + t p_1; a third of the time of a gather
                pt = (p[:, 0] * (1.0 - self.foreground_target)).addcmul_(p[:, 1], self.foreground_target)
            else:
                pt = self.gather_labels(p)
            # a logit that is NaN makes all probabilities of its pixel NaN, the one in this channel too
            self._all_finite = can_sync(pt) and not pt.sum().isnan()
            self._label_probabilities = self.zero_ignored_(pt)
        return self._label_probabilities

    @property
    def foreground_target(self) -> Tensor:
        """(N, H, W), read-only: 1 where the label is class 1 of two, in the logits' dtype. Cached."""
        if self._foreground_target is None:
            self._foreground_target = self.labels.to(self.logits.dtype)
        return self._foreground_target

    @property
    def valid_float(self) -> Tensor:
        """(N, H, W), read-only: 1 at valid pixels, 0 at ignored ones, in the logits' dtype."""
        if self.valid is None:
            return self.logits.new_ones(()).expand(self.labels.shape)
        return self.valid.to(self.logits.dtype)

    @property
    def label_index(self) -> Tensor:
        """(N H W,): index of each pixel's label channel in the flat (N, C, H, W). Multiclass only. Cached."""
        if self._label_index is None:  # n C HW + y HW + pixel
            size = self.labels.shape[1] * self.labels.shape[2]
            pixel = torch.arange(size, device=self.labels.device)
            image = torch.arange(len(self.labels), device=self.labels.device) * (self.num_classes * size)
            index = torch.add(pixel, self.labels.flatten(1), alpha=size)
            self._label_index = index.add_(image.unsqueeze(1)).flatten()
        return self._label_index

    @property
    def valid_count(self) -> Tensor:
        """Number of valid pixels, an int64 scalar."""
        if self.valid is None:
            return torch.full((), self.labels.numel(), device=self.labels.device)
        return self.valid.sum()

    def cross_entropies(self, smooth: float = 0.0) -> Tensor:
        """Return the cross entropy of every pixel. Multiclass only.

        Args:
            smooth: share of the target spread evenly over the classes.

        Returns:
            (N, H, W): (1 - smooth) (-log pt) + smooth mean over c of -log p_c; 0 at ignored pixels.
        """
        # -log pt, clamped: the logarithm of 0, which ignored pixels have, is six times as slow as any other
        nll = self.zero_ignored_(self.label_probabilities.clamp_min(_MIN_PROBABILITY).log_().neg_())
        if smooth or not can_sync(nll) or (nll.numel() and nll.amax() > _MAX_NLL):
            z_max = self.logits.amax(dim=1)
            # log sum of exp(z - z_max) = -log p_max; p_max is at least 1 / C, so its log is exact
            log_sum = self.probabilities.amax(dim=1).log_().neg_()
            exact = (z_max - self.gather_labels(self.logits)).add_(log_sum)  # -log pt = z_max - z_y + log sum
            nll = torch.where(nll > _MAX_NLL, exact, nll)
            if smooth:  # mean of -log p_c = z_max - mean of z + log sum
                nll.lerp_((z_max - self.logits.mean(dim=1)).add_(log_sum), smooth)
                nll = self.zero_ignored_(nll)
        return nll

    def gather_labels(self, values: Tensor) -> Tensor:
        """Return values[n, y, h, w], the channel of the label: (N, C, H, W), contiguous, -> (N, H, W)."""
        # on a CPU several times faster than gather along a dimension
        return values.view(-1).index_select(0, self.label_index).view(self.labels.shape)

    def scatter_add_labels_(self, values: Tensor, additions: Tensor) -> Tensor:
        """Add additions (N, H, W) to the label's channel of values (N, C, H, W), in place."""
        values.view(-1).scatter_add_(0, self.label_index, additions.flatten())
        return values

    @property
    def chunk_size(self) -> int:
        """Number of values to process at a time, so that they fit a CPU's cache; elsewhere all."""
        return _CACHE_VALUES if self.logits.device.type == "cpu" and can_sync(self.logits) else 1 << 62

    def chunks(self) -> Iterator[tuple[slice, slice]]:
        """Yield slices of images and pixels that cover values (N, C, H W), about `chunk_size` values each."""
        num_images, channels = self.logits.shape[:2]
        size = max(self.labels.shape[1] * self.labels.shape[2], 1)
        images_per_chunk = max(self.chunk_size // (channels * size), 1)
        pixels_per_chunk = -(-size // -(-channels * size // self.chunk_size))
        for image in range(0, num_images, images_per_chunk):
            for pixel in range(0, size, pixels_per_chunk):
                yield slice(image, image + images_per_chunk), slice(pixel, pixel + pixels_per_chunk)

    def lookup_by_label(self, per_class: Tensor) -> Tensor:
        """Return per_class[y] of every pixel: (C,) -> (N, H, W), 0 at ignored pixels."""
        per_pixel = per_class.to(self.logits.dtype).index_select(0, self.labels.flatten())
        return self.zero_ignored_(per_pixel.view(self.labels.shape))

    def release_probabilities(self) -> tuple[Tensor, Tensor]:
        """Return the probabilities, and a buffer for the gradient: their own memory unless they are shared.

        At ignored pixels they are finite, but not always 0.
        """
        p = self._activate() if self._all_finite else self.probabilities
        if self.shared:
            return p, torch.empty_like(p)
        self._probabilities = None
        return p, p

    def cross_entropy_grad(self, grad_nll: Tensor, smooth: float = 0.0) -> Tensor:
        """Return the gradient of a loss that is a function of each pixel's cross entropy. Multiclass only.

        Args:
            grad_nll: (N, H, W), derivative by the cross entropy, 0 at ignored pixels; or a scalar, if no
                pixel is ignored.
            smooth: share of the target spread evenly over the classes.

        Returns:
            (N, C, H, W): grad_nll (p - q), where q is the (smoothed) one-hot label.
        """
        p, grad = self.release_probabilities()
        if self.num_classes == 2:
            q1 = self.foreground_target
            if smooth:
                q1 = q1 * (1.0 - smooth) + smooth / 2
            return two_class_grad_(grad, (p[:, 1] - q1).mul_(grad_nll))
        per_pixel = grad_nll.unsqueeze(1) if grad_nll.dim() else grad_nll
        torch.mul(p, per_pixel, out=grad)  # grad_nll p
        if smooth:  # q_c = smooth / C, and 1 - smooth more in the channel of the label
            grad.sub_(per_pixel * (smooth / self.num_classes))
        return self.scatter_add_labels_(grad, (grad_nll * (smooth - 1.0)).expand(self.labels.shape))

    def activation_backward(self, grad_p: Tensor) -> Tensor:
        """Apply the chain rule of softmax or sigmoid.

        Args:
            grad_p: (N, C, H, W), derivative by the probabilities, finite; overwritten.

        Returns:
            (N, C, H, W) derivative by the logits, 0 at ignored pixels.
        """
        p = self.probabilities
        if self.binary:
            return grad_p.mul_(p).mul_(1.0 - p)  # g p (1 - p)
        grad_p.mul_(p)
        return grad_p.addcmul_(p, grad_p.sum(1, keepdim=True), value=-1)  # p (g - sum over c of p_c g_c)


def two_class_grad_(grad: Tensor, grad_z1: Tensor) -> Tensor:
    """Fill grad (N, 2, H, W) from the derivative by z_1 (N, H, W): the one by z_0 is its negative."""
    grad[:, 1] = grad_z1
    torch.neg(grad_z1, out=grad[:, 0])
    return grad


class FusedLoss(nn.Module):
    """A loss that computes its value and its gradient from a `LossInputs`.

    Args:
        task: the segmentation task; None for classes that take the number of classes from the logits.
        ignore_index: label of ignored pixels, without a task.
    """

    def __init__(self, task: Task | None = None, ignore_index: int | None = None) -> None:
        super().__init__()
        self.num_classes = None if task is None else task.num_classes
        self.binary = task is not None and task.binary
        self.ignore_index = ignore_index if task is None else task.ignore_index

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return the value, a scalar, and its derivative by the logits.

        The derivative (N, C, H, W) is a new tensor, or None if inputs.wants_grad is false.
        """
        raise NotImplementedError

    def prepare(self, logits: Tensor, labels: Tensor) -> LossInputs:
        """Validate a batch."""
        channels = logits.shape[1] if logits.dim() == 4 else 2
        return LossInputs(
            logits,
            labels,
            num_classes=channels if self.num_classes is None else self.num_classes,
            ignore_index=self.ignore_index,
            binary=self.binary,
        )

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch.

        Args:
            logits: (N, C, H, W).
            labels: (N, H, W) or (N, 1, H, W).

        Returns:
            A scalar in float32 (float64 for logits in float64); exactly 0 if no pixel is valid.
        """
        with torch.autocast(logits.device.type, enabled=False):
            value, grad = self.value_and_grad(self.prepare(logits, labels))
        return attach_gradient(logits, value, grad)
