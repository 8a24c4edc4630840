"""Soft confusion counts per class, from which the Dice family and the Matthews coefficient are computed.

With p the probabilities and g the one-hot labels of the valid pixels of the whole batch:

    intersection I_c = sum of p_c g_c      predicted S_c = sum of p_c      target G_c = sum of g_c

I is the plain sum of products: (S + G - sum |p - g|) / 2, as smp has it, cancels in float32. A loss that is a
function of these sums passes its derivatives by I and S to `soft_confusion_grad`, and gets the gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from losses.kernels.batch import LossInputs, two_class_grad_
from losses.kernels.reductions import sum_by_label, to_double


class SoftConfusion(NamedTuple):
    """Soft counts of pixels per class, (K,) in float64; in binary mode K = 2, background and foreground.

    Attributes:
        intersection: I, soft true positives.
        predicted: S, soft true and false positives.
        target: G, the support: labelled pixels.
    """

    intersection: Tensor
    predicted: Tensor
    target: Tensor


def soft_confusion(inputs: LossInputs) -> SoftConfusion:
    """Return the soft counts of a batch."""
    if inputs.num_classes > 2:
        pt, valid, labels = (  # all images as one
            x.flatten(0, 1).unsqueeze(0)
            for x in (inputs.label_probabilities, inputs.valid_float, inputs.labels)
        )
        return SoftConfusion(
            intersection=sum_by_label(pt, labels, inputs.num_classes)[0],
            predicted=to_double(inputs.probabilities.sum((0, 2, 3))),
            target=sum_by_label(valid, labels, inputs.num_classes)[0],
        )
    # two classes: g_1 = label, g_0 = 1 - label
    p1, label = inputs.probabilities[:, -1], inputs.foreground_target
    total, target1 = to_double(inputs.valid_count), to_double(inputs.labels.sum())
    predicted1, intersection1 = to_double(p1.sum()), to_double((p1 * label).sum())
    if inputs.binary:  # p_0 = 1 - p_1
        predicted0, intersection0 = total - predicted1, total - target1 - predicted1 + intersection1
    else:
        p0 = inputs.probabilities[:, 0]
        predicted0, intersection0 = to_double(p0.sum()), to_double((p0 * (1 - label)).sum())
    return SoftConfusion(
        intersection=torch.stack([intersection0, intersection1]),
        predicted=torch.stack([predicted0, predicted1]),
        target=torch.stack([total - target1, target1]),
    )


def soft_confusion_grad(inputs: LossInputs, grad_intersection: Tensor, grad_predicted: Tensor) -> Tensor:
    """Apply the chain rule from the soft counts to the logits.

    Args:
        inputs: the batch.
        grad_intersection: (K,) derivative of the loss by I.
        grad_predicted: (K,) derivative of the loss by S.

    Returns:
        (N, C, H, W) derivative by the logits, 0 at ignored pixels.
    """
    if inputs.num_classes == 2:
        return _two_class_grad(inputs, grad_intersection, grad_predicted)
    # with dI and dS the derivatives by I and S: by p_c it is f_c = dS_c + dI_c g_c, and by the logit z_c
    # p_c (f_c - sum over k of p_k f_k)
    p = inputs.probabilities
    pt = inputs.label_probabilities
    label_term = inputs.lookup_by_label(grad_intersection).mul_(pt)  # p_y dI_y, (N, H, W)
    grad_p = grad_predicted.to(p.dtype).view(1, -1, 1)  # dS_c
    mean = torch.matmul(grad_p.squeeze(2), p.flatten(2))  # sum over k of p_k dS_k, (N, 1, H W)
    mean.add_(label_term.flatten(1).unsqueeze(1))  # + p_y dI_y
    p, grad = inputs.release_probabilities()
    p_flat, out = p.flatten(2), grad.flatten(2)
    for images, pixels in inputs.chunks():  # p_c (dS_c - mean)
        torch.mul(p_flat[images, :, pixels], grad_p - mean[images, :, pixels], out=out[images, :, pixels])
    return inputs.scatter_add_labels_(grad, label_term)  # + p_y dI_y in the channel of the label


def _two_class_grad(inputs: LossInputs, grad_intersection: Tensor, grad_predicted: Tensor) -> Tensor:
    """Return `soft_confusion_grad` of two classes, where p_0 = 1 - p_1.

    With t = 1 where the label is class 1: d loss / d p_1 = dS_1 - dS_0 - dI_0 + t (dI_0 + dI_1), and
    d p_1 / d z_1 = p_0 p_1.
    """
    p = inputs.probabilities
    constant = (grad_predicted[1] - grad_predicted[0] - grad_intersection[0]).to(p.dtype)
    per_target = (grad_intersection[0] + grad_intersection[1]).to(p.dtype)
    grad_p1 = (inputs.foreground_target * per_target).add_(constant)
    if inputs.binary:
        p1 = p[:, 0]
        return grad_p1.mul_(p1).mul_(1.0 - p1).unsqueeze(1)
    # evaluated first: p and the room for the gradient are the same memory
    grad_z1 = grad_p1.mul_(p[:, 0]).mul_(p[:, 1])
    return two_class_grad_(inputs.release_probabilities()[1], grad_z1)
