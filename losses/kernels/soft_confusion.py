"""Soft region sizes per class, from which the Dice family and the Matthews coefficient are made.

With p the probabilities and g the one-hot labels of the valid pixels of the whole batch:

    predicted S_c = sum of p_c      actual G_c = sum of g_c      overlap I_c = sum of p_c g_c

The overlap is the plain sum of products: (S + G - sum |p - g|) / 2, as smp has it, cancels in float32. A loss
that is a function of these sums gives its derivatives by S and I, and gets the gradient by the logits.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from losses.kernels.batch import LossInputs, two_class_grad_
from losses.kernels.reductions import sum_by_label, to_double


class SoftConfusion(NamedTuple):
    """Sizes per class, (K,) in float64; in binary mode K = 2, background and foreground.

    Attributes:
        intersection: I.
        predicted: S.
        target: G.
    """

    intersection: Tensor
    predicted: Tensor
    target: Tensor


def soft_confusion(pixels: LossInputs) -> SoftConfusion:
    """The soft sizes of a batch."""
    if pixels.num_classes > 2:
        own, ones, labels = (  # all images as one
            x.flatten(0, 1).unsqueeze(0)
            for x in (pixels.label_probabilities, pixels.valid_float, pixels.labels)
        )
        return SoftConfusion(
            sum_by_label(own, labels, pixels.num_classes)[0],
            to_double(pixels.probabilities.sum((0, 2, 3))),
            sum_by_label(ones, labels, pixels.num_classes)[0],
        )
    p, label = pixels.probabilities[:, -1], pixels.foreground_target
    count, size = to_double(pixels.count), to_double(pixels.labels.sum())
    predicted, overlap = to_double(p.sum()), to_double((p * label).sum())
    if pixels.binary:
        rest, background = count - predicted, count - size - predicted + overlap
    else:
        q = pixels.probabilities[:, 0]
        rest, background = to_double(q.sum()), to_double((q * (1 - label)).sum())
    return SoftConfusion(
        torch.stack([background, overlap]),
        torch.stack([rest, predicted]),
        torch.stack([count - size, size]),
    )


def soft_confusion_grad(pixels: LossInputs, by_overlap: Tensor, by_predicted: Tensor) -> Tensor:
    """Chain rule from the sizes to the logits.

    Args:
        pixels: the batch.
        by_overlap: (K,) derivative of the loss by I.
        by_predicted: (K,) derivative by S.

    Returns:
        (N, C, H, W) derivative by the logits, 0 at ignored pixels.
    """
    if pixels.num_classes == 2:
        return _two_class_grad(pixels, by_overlap, by_predicted)
    # the derivative by p_c is by_predicted[c], plus by_overlap[c] where c is the label
    p = pixels.probabilities
    hit = pixels.lookup_by_label(by_overlap).mul_(pixels.label_probabilities)  # (N, H, W)
    slope = by_predicted.to(p.dtype).view(1, -1, 1)
    mean = torch.matmul(slope.squeeze(2), p.flatten(2)).add_(hit.flatten(1).unsqueeze(1))  # (N, 1, H W)
    p, grad = pixels.release_probabilities()
    rows, out = p.flatten(2), grad.flatten(2)
    for images, part in pixels.chunks():
        torch.mul(rows[images, :, part], slope - mean[images, :, part], out=out[images, :, part])
    return pixels.scatter_add_labels_(grad, hit)


def _two_class_grad(pixels: LossInputs, by_overlap: Tensor, by_predicted: Tensor) -> Tensor:
    """As gradient, of two classes: their probabilities add up to 1."""
    p = pixels.probabilities
    by_foreground = (by_predicted[1] - by_predicted[0] - by_overlap[0]).to(p.dtype)
    by_hit = (by_overlap[0] + by_overlap[1]).to(p.dtype)
    slope = (pixels.foreground_target * by_hit).add_(by_foreground)
    if pixels.binary:
        p = p[:, 0]
        return slope.mul_(p).mul_(1.0 - p).unsqueeze(1)
    return two_class_grad_(pixels.release_probabilities()[1], slope.mul_(p[:, 0]).mul_(p[:, 1]))
