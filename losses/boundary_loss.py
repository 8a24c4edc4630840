"""Boundary loss: one minus a differentiable boundary F1 score."""

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

    The mean is over the pairs of an image and a class that has a boundary in the label; if there is none,
    the loss is 0. A perfect prediction gives 0. (GDL's mean is over all pairs, with 1 for a class without a
    boundary: that is classes="all" of `losses.build("boundary", ...)`.) Ignored pixels count like pixels
    outside of the image: they are in no window and in no sum, and make no boundary. Value in [0, 1].

    In float32, of probabilities in a window that differ by less than 2^-21 either may be taken for the
    extreme (for windows over 31 pixels: of equal ones only), so single pixels may get another's gradient.

    The windows should be small: theta0 about 3, theta at most the least distance of two segments. 19 and 19
    nearly saturate the measure.

    Args:
        theta0: side of the window that finds boundaries, odd.
        theta: side of the window within which boundaries match, odd.
        ignore_index: label of ignored pixels, or None.

    Raises:
        LossError: a side that is even or not positive (the window would not be centred on its pixel).
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
        """The loss of a batch.

        Args:
            pred: logits (N, C, H, W).
            gt: labels (N, H, W) or (N, 1, H, W).

        Returns:
            A scalar in float32 (float64 for logits in float64).
        """
        return super().forward(pred, gt)

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in FusedLoss."""
        p = pixels.probabilities
        on_edge = self._label_edges(pixels)
        actual = sum_by_label(on_edge.to(p.dtype), pixels.labels, p.shape[1])  # (N, C), sum of b(y)
        share = self._shares(pixels, actual)
        slope = torch.empty_like(p) if pixels.wants_grad else None
        value = to_double(p.new_zeros(()))
        together = max(pixels.chunk_size // max(p[:1].numel(), 1), 1)
        for first in range(0, len(p), together):
            images = slice(first, first + together)
            score, by_probability = self._score(
                pixels, images, on_edge[images], actual[images], share[images]
            )
            value = value + (share[images] * (1.0 - score)).sum()
            if slope is not None:
                slope[images] = by_probability
        value = value.to(p.dtype)
        return value, None if slope is None else pixels.activation_backward(slope)

    def _score(
        self, pixels: LossInputs, images: slice, on_edge: Tensor, actual: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        """F1 (N, C) of some images, and the derivative of the loss by p (N, C, H, W)."""
        p, labels = pixels.probabilities[images], pixels.labels[images]
        valid = None if pixels.valid is None else pixels.valid[images]
        edge, lowest = _edges_of(p, valid, self.theta0)  # b(p)
        reached = self._reached(labels, on_edge, p)  # pool(b(y))
        # pool(b(p)) counts where b(y) is 1 only, so in one channel per pixel
        windows = WindowArgmax(p, self.theta)
        own = labels.unsqueeze(1)
        highest = windows.find(windows.extremes(edge, valid, largest=True).gather(1, own)).long()
        highest = highest.add_(own * windows.flat.numel()).flatten(
            1
        )  # (N, H W), in the (C, H, W) of the image
        extended = edge.flatten(1).gather(1, highest).view(on_edge.shape).mul_(on_edge)

        predicted = to_double(edge.sum((2, 3)))  # (N, C)
        precision = safe_divide(to_double((edge * reached).sum((2, 3))), predicted)
        recall = safe_divide(sum_by_label(extended, labels, p.shape[1]), actual)
        both = precision + recall
        score = safe_divide(2.0 * precision * recall, both)

        by_precision = safe_divide(safe_divide(-2.0 * share * recall**2, both**2), predicted)
        by_recall = safe_divide(safe_divide(-2.0 * share * precision**2, both**2), actual)
        slope = reached.mul_(_as(by_precision, p)).sub_(_as(by_precision * precision, p))
        by_pixel = by_recall.to(p.dtype).gather(1, labels.flatten(1)).mul_(on_edge.flatten(1))
        slope.flatten(1).scatter_add_(1, highest, by_pixel)  # derivative by b(p)
        if valid is not None:
            slope.mul_(valid.unsqueeze(1))
        planes = slope.flatten(0, 1).flatten(1)  # (N C, H W)
        return score, planes.scatter_add(1, lowest, planes.neg()).view(p.shape)

    def _reached(self, labels: Tensor, on_edge: Tensor, p: Tensor) -> Tensor:
        """(N, C, H, W) in the dtype of p, 1 where a boundary of the class is within theta."""
        numbers = torch.arange(p.shape[1], device=p.device).view(-1, 1, 1)
        edges = (labels.unsqueeze(1) == numbers) & on_edge.unsqueeze(1)
        return windowed_max(edges.to(torch.uint8), self.theta, 0).to(p.dtype)

    def _label_edges(self, pixels: LossInputs) -> Tensor:
        """(N, H, W) bool, b(y) of the pixel's own class: whether its window holds another label."""
        labels, outside = pixels.labels.to(torch.int32), -pixels.num_classes  # below all of the others
        on_edge = torch.zeros_like(labels, dtype=torch.bool)
        for signed in (labels, -labels):  # a larger, then a smaller label in the window
            seen = signed if pixels.valid is None else torch.where(pixels.valid, signed, outside)
            on_edge |= windowed_max(seen, self.theta0, outside) != signed
        return on_edge if pixels.valid is None else on_edge & pixels.valid

    def _shares(self, pixels: LossInputs, actual: Tensor) -> Tensor:
        """(N, C) what each image and class contributes to the mean."""
        if self.only_present:
            counted = actual > 0
        else:
            counted = (pixels.valid_float.sum((1, 2)) > 0).unsqueeze(1).expand_as(actual)
        counted = counted.to(actual.dtype)
        return safe_divide(counted, counted.sum())


def _edges_of(p: Tensor, valid: Tensor | None, theta0: int) -> tuple[Tensor, Tensor]:
    """b(p) = p - smallest p of the window (N, C, H, W), and the places of the smallest (N C, H W)."""
    windows = WindowArgmax(p, theta0)
    lowest = windows.find(windows.extremes(p, valid, largest=False)).flatten(0, 1).flatten(1).long()
    edge = p - p.flatten(0, 1).flatten(1).gather(1, lowest).view(p.shape)
    edge.clamp_(min=0)  # of nearly equal values the windows may take either
    return edge if valid is None else edge.mul_(valid.unsqueeze(1)), lowest


def _as(per_plane: Tensor, like: Tensor) -> Tensor:
    return per_plane.to(like.dtype)[:, :, None, None]


@register("boundary", modes=("multiclass",))
def boundary(
    task: Task,
    *,
    theta0: int = 3,
    theta: int = 3,
    classes: Literal["present", "all"] = "present",
) -> nn.Module:
    """Boundary F1 loss; best as one term of a compound, since it says nothing of the inside of segments.

    Args:
        task: what is learnt, without class weights.
        theta0: side of the window that finds boundaries, odd.
        theta: side of the window within which boundaries match, odd.
        classes: mean over the classes that have a boundary in an image's label, or over all, those without
            one as 1 (GDL's numbers).

    Returns:
        A `BoundaryLoss`.

    Raises:
        LossError: a window that is even or not positive, class weights in the task.
    """
    reject_class_weights(task, "it averages scores of classes")
    loss = BoundaryLoss(theta0, theta, task.ignore_index)
    loss.num_classes = task.num_classes
    loss.only_present = classes == "present"
    return loss
