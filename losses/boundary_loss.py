"""Boundary loss: 1 - a differentiable boundary F1 score."""

from typing import Literal

import torch
from torch import Tensor, nn

from losses.errors import LossError
from losses.kernels.batch import FusedLoss, LossInputs
from losses.kernels.reductions import safe_divide, sum_by_label, to_double
from losses.kernels.window_max import WindowArgmax, windowed_max
from losses.registry import register
from losses.task import Task, reject_class_weights


class BoundaryLoss(FusedLoss):
    """Boundary loss of Bokhovkin and Burnaev 2019 (arXiv 1905.07852).

    For every image and class, with p the softmax, y the one-hot label and pool the maximum in a window:

        b(x) = pool(1 - x, theta0) - (1 - x)        boundary: b(p) and b(y)
        P = sum of b(p) pool(b(y), theta) / sum of b(p)
        R = sum of b(y) pool(b(p), theta) / sum of b(y)
        loss = mean over images and classes of 1 - 2 P R / (P + R)

    The mean is over the pairs of an image and a class with a boundary in the labels; without such pairs the
    loss is 0. A perfect prediction gives 0. (GDL's mean is over all pairs, with 1 for a class without a
    boundary: that is classes="all" of `losses.build("boundary", ...)`.) Ignored pixels count like pixels
    outside the image: they are in no window and in no sum, and create no boundary. Value in [0, 1].

    In float32, of probabilities in a window that differ by less than 2^-21 either may be used as the extreme
    (for windows over 31 pixels: of equal ones only), so single pixels may get the gradient of another pixel.

    The windows should be small: theta0 about 3, theta at most the smallest distance of two segments. 19 and
    19 nearly saturate the score.

    Args:
        theta0: side of the window that detects boundaries, odd.
        theta: side of the window within which boundaries match, odd.
        ignore_index: label of ignored pixels, or None.

    Raises:
        LossError: a side that is even (the window would not be centred on its pixel) or not positive.
    """

    def __init__(self, theta0: int = 19, theta: int = 19, ignore_index: int | None = None) -> None:
        super().__init__(ignore_index=ignore_index)
        for name, side in (("theta0", theta0), ("theta", theta)):
            if side < 1 or side % 2 == 0:
                raise LossError(f"{name} is the side of a centred window, odd and positive, got {side}")
        self.theta0 = theta0
        self.theta = theta
        self.only_present = True

    def forward(self, pred: Tensor, gt: Tensor) -> Tensor:
        """Return the loss of a batch.

        Args:
            pred: logits (N, C, H, W).
            gt: labels (N, H, W) or (N, 1, H, W).

        Returns:
            A scalar in float32 (float64 for logits in float64).
        """
        return super().forward(pred, gt)

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient, see `FusedLoss`."""
        p = inputs.probabilities
        label_edges = self._label_edges(inputs)
        target = sum_by_label(label_edges.to(p.dtype), inputs.labels, p.shape[1])  # sum of b(y), (N, C)
        weights = self._mean_weights(inputs, target)
        grad_p = torch.empty_like(p) if inputs.wants_grad else None
        value = to_double(p.new_zeros(()))
        images_per_chunk = max(inputs.chunk_size // max(p[:1].numel(), 1), 1)
        for start in range(0, len(p), images_per_chunk):
            images = slice(start, start + images_per_chunk)
            f1, chunk_grad = self._f1(inputs, images, label_edges[images], target[images], weights[images])
            value = value + (weights[images] * (1.0 - f1)).sum()
            if grad_p is not None:
                grad_p[images] = chunk_grad
        value = value.to(p.dtype)
        return value, None if grad_p is None else inputs.activation_backward(grad_p)

    def _f1(
        self, inputs: LossInputs, images: slice, label_edges: Tensor, target: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return F1 (N, C) of some images, and the derivative of the loss by p (N, C, H, W).

        Args:
            inputs: the batch.
            images: the images of the batch.
            label_edges: (N, H, W) bool, b(y) of the images, in the channel of the label.
            target: (N, C), sum of b(y).
            weights: (N, C) weights of the mean.
        """
        p, labels = inputs.probabilities[images], inputs.labels[images]
        valid = None if inputs.valid is None else inputs.valid[images]
        edges, lowest = _soft_edges(p, valid, self.theta0)  # b(p)
        label_pool = self._pool_label_edges(labels, label_edges, p)  # pool(b(y), theta)
        # pool(b(p), theta) is needed only where b(y) is 1, so in one channel per pixel
        windows = WindowArgmax(p, self.theta)
        label_channel = labels.unsqueeze(1)
        keys = windows.extreme_keys(edges, valid, largest=True).gather(1, label_channel)
        highest = windows.decode_index(keys).long()
        # (N, H W), index in the flat (C, H, W) of the image
        highest = highest.add_(label_channel * windows.pixel_index.numel()).flatten(1)
        edge_pool = edges.flatten(1).gather(1, highest).view(label_edges.shape).mul_(label_edges)

        predicted = to_double(edges.sum((2, 3)))  # sum of b(p), (N, C)
        # P = sum of b(p) pool(b(y)) / sum of b(p), R = sum of b(y) pool(b(p)) / sum of b(y)
        precision = safe_divide(to_double((edges * label_pool).sum((2, 3))), predicted)
        recall = safe_divide(sum_by_label(edge_pool, labels, p.shape[1]), target)
        total = precision + recall
        f1 = safe_divide(2.0 * precision * recall, total)  # 2 P R / (P + R)

        # by the numerators of P and R: d (1 - F1) / dP = -2 R^2 / (P + R)^2, and likewise with P^2 by R
        grad_hits = safe_divide(safe_divide(-2.0 * weights * recall**2, total**2), predicted)
        grad_pool = safe_divide(safe_divide(-2.0 * weights * precision**2, total**2), target)
        # dP / db(p) = (pool(b(y)) - P) / sum of b(p)
        grad_edges = label_pool.mul_(_per_plane(grad_hits, p)).sub_(_per_plane(grad_hits * precision, p))
        # dR / d pool(b(p)) = b(y) / sum of b(y), which goes to the pixel that the maximum comes from
        grad_highest = grad_pool.to(p.dtype).gather(1, labels.flatten(1)).mul_(label_edges.flatten(1))
        grad_edges.flatten(1).scatter_add_(1, highest, grad_highest)
        if valid is not None:
            grad_edges.mul_(valid.unsqueeze(1))
        # b(p) = p - smallest p of the window: its derivative goes to both pixels
        planes = grad_edges.flatten(0, 1).flatten(1)  # (N C, H W)
        return f1, planes.scatter_add(1, lowest, planes.neg()).view(p.shape)

    def _pool_label_edges(self, labels: Tensor, label_edges: Tensor, p: Tensor) -> Tensor:
        """Return pool(b(y), theta) (N, C, H, W) in the dtype of p: 1 where a boundary is within theta."""
        classes = torch.arange(p.shape[1], device=p.device).view(-1, 1, 1)
        edges = (labels.unsqueeze(1) == classes) & label_edges.unsqueeze(1)
        return windowed_max(edges.to(torch.uint8), self.theta, 0).to(p.dtype)

    def _label_edges(self, inputs: LossInputs) -> Tensor:
        """Return b(y) in the channel of the label (N, H, W) bool: whether the window has another label."""
        labels, outside = inputs.labels.to(torch.int32), -inputs.num_classes  # below all labels, negated too
        edges = torch.zeros_like(labels, dtype=torch.bool)
        for signed in (labels, -labels):  # a larger, then a smaller label in the window
            values = signed if inputs.valid is None else torch.where(inputs.valid, signed, outside)
            edges |= windowed_max(values, self.theta0, outside) != signed
        return edges if inputs.valid is None else edges & inputs.valid

    def _mean_weights(self, inputs: LossInputs, target: Tensor) -> Tensor:
        """Return the weights (N, C) of images and classes in the mean."""
        if self.only_present:
            included = target > 0
        else:
            included = (inputs.valid_float.sum((1, 2)) > 0).unsqueeze(1).expand_as(target)
        included = included.to(target.dtype)
        return safe_divide(included, included.sum())


def _soft_edges(p: Tensor, valid: Tensor | None, theta0: int) -> tuple[Tensor, Tensor]:
    """Return b(p) = p - smallest p of the window (N, C, H, W), and the pixels of the smallest (N C, H W)."""
    windows = WindowArgmax(p, theta0)
    lowest = (
        windows.decode_index(windows.extreme_keys(p, valid, largest=False)).flatten(0, 1).flatten(1).long()
    )
    edges = p - p.flatten(0, 1).flatten(1).gather(1, lowest).view(p.shape)
    edges.clamp_(min=0)  # of nearly equal values the windows may use either
    return edges if valid is None else edges.mul_(valid.unsqueeze(1)), lowest


def _per_plane(values: Tensor, like: Tensor) -> Tensor:
    """Return values (N, C) as (N, C, 1, 1) in the dtype of `like`."""
    return values.to(like.dtype)[:, :, None, None]


@register("boundary", modes=("multiclass",))
def boundary(
    task: Task,
    *,
    theta0: int = 3,
    theta: int = 3,
    classes: Literal["present", "all"] = "present",
) -> nn.Module:
    """Boundary F1 loss; best as one term of a compound, since it ignores the inside of segments.

    Args:
        task: the segmentation task, without class weights.
        theta0: side of the window that detects boundaries, odd.
        theta: side of the window within which boundaries match, odd.
        classes: "present": mean over the pairs of an image and a class with a boundary in the labels; "all":
            over all pairs, with 1 for those without one (GDL's values).

    Returns:
        A `BoundaryLoss`.

    Raises:
        LossError: a window that is even or not positive, class weights in the task.
    """
    reject_class_weights(task, "it averages the scores of the classes")
    loss = BoundaryLoss(theta0, theta, task.ignore_index)
    loss.num_classes = task.num_classes
    loss.only_present = classes == "present"
    return loss
