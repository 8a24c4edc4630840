"""Boundary loss: one minus a differentiable boundary F1 score."""

from typing import Literal

import torch
from torch import Tensor, nn

from losses.pixels import PixelLoss, Pixels, divide, wide
from losses.registry import LossError, Task, refuse_weights, register
from losses.windows import windowed_extreme, windowed_max


class BoundaryLoss(PixelLoss):
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

    def evaluate(self, pixels: Pixels) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in PixelLoss."""
        p = pixels.probabilities.contiguous()
        on_edge, reached = self._label_edges(pixels, p.shape[1])  # (N, C, H, W) 0 or 1
        lowest, from_lowest = windowed_extreme(p, pixels.valid, self.theta0, largest=False)
        edge = pixels.keep(p - lowest)  # b(p), since pool(1 - p) = 1 - (smallest p)
        extended, from_extended = windowed_extreme(edge, pixels.valid, self.theta, largest=True)

        predicted, actual = _sum(edge), _sum(on_edge)  # (N, C)
        precision = divide(_sum(edge * reached), predicted)
        recall = divide(_sum(extended * on_edge), actual)
        both = precision + recall
        score = divide(2.0 * precision * recall, both)
        share = self._shares(pixels, actual)
        value = (share * (1.0 - score)).sum().to(p.dtype)
        if not pixels.wants_grad:
            return value, None

        by_precision = divide(divide(-2.0 * share * recall**2, both**2), predicted)
        by_recall = divide(divide(-2.0 * share * precision**2, both**2), actual)
        slope = reached * _as(by_precision, p) - _as(by_precision * precision, p)
        slope = _add_at(slope, from_extended, on_edge * _as(by_recall, p))  # derivative by b(p)
        slope = pixels.keep(slope)
        return value, pixels.through_activation(_add_at(slope.clone(), from_lowest, -slope))

    def _label_edges(self, pixels: Pixels, classes: int) -> tuple[Tensor, Tensor]:
        """b(y) and pool(b(y), theta): a pixel is on an edge if its window holds another label."""
        labels, outside = (
            pixels.labels.to(torch.int32),
            -classes,
        )  # below all of the others
        on_edge = torch.zeros_like(labels, dtype=torch.bool)
        for signed in (labels, -labels):  # a larger, then a smaller label in the window
            seen = signed if pixels.valid is None else torch.where(pixels.valid, signed, outside)
            on_edge |= windowed_max(seen, self.theta0, outside) != signed
        if pixels.valid is not None:
            on_edge &= pixels.valid
        of_class = labels.unsqueeze(1) == torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
        edges = (of_class & on_edge.unsqueeze(1)).to(torch.uint8)
        dtype = pixels.logits.dtype
        return edges.to(dtype), windowed_max(edges, self.theta, 0).to(dtype)

    def _shares(self, pixels: Pixels, actual: Tensor) -> Tensor:
        """(N, C) what each image and class contributes to the mean."""
        if self.only_present:
            counted = actual > 0
        else:
            counted = (pixels.ones.sum((1, 2)) > 0).unsqueeze(1).expand_as(actual)
        counted = counted.to(actual.dtype)
        return divide(counted, counted.sum())


def _sum(values: Tensor) -> Tensor:
    return wide(values.sum((2, 3)))


def _as(per_plane: Tensor, like: Tensor) -> Tensor:
    return per_plane.to(like.dtype)[:, :, None, None]


def _add_at(values: Tensor, index: Tensor, additions: Tensor) -> Tensor:
    """Adds additions (N, C, H, W) to values at the places index (N, C, H W) of the same planes, in place."""
    planes, size = index.shape[0] * index.shape[1], index.shape[2]
    start = torch.arange(planes, device=index.device).view(-1, 1) * size
    flat = (index.view(planes, size) + start).flatten()
    values.view(-1).index_add_(0, flat, additions.flatten())
    return values


@register("boundary", modes=("multiclass",))
def boundary(
    task: Task,
    *,
    theta0: int = 3,
    theta: int = 5,
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
    refuse_weights(task, "it averages scores of classes")
    loss = BoundaryLoss(theta0, theta, task.ignore_index)
    loss.num_classes = task.num_classes
    loss.only_present = classes == "present"
    return loss
