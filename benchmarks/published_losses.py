"""Published formulations that no installable library has, written from their definitions, to be timed.

They are as their authors run them: full square windows, one-hot tensors, a round trip through NumPy.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def boundary(theta0: int, theta: int, logits: Tensor, labels: Tensor) -> Tensor:
    """Bokhovkin and Burnaev's boundary loss with a max_pool2d of full windows; no ignored pixels.

    Args:
        theta0: side of the window that finds boundaries.
        theta: side of the window within which boundaries match.
        logits: (N, C, H, W).
        labels: (N, H, W), all below C.

    Returns:
        A scalar.
    """
    return _boundary(theta0, theta, logits.softmax(1), labels)


def _boundary(theta0: int, theta: int, p: Tensor, labels: Tensor) -> Tensor:
    # the published code lets the labels take part in the graph
    truth = F.one_hot(labels.long(), p.shape[1]).permute(0, 3, 1, 2).to(p.dtype).requires_grad_()

    def edges(of: Tensor) -> tuple[Tensor, Tensor]:
        edge = F.max_pool2d(1 - of, theta0, 1, theta0 // 2) - (1 - of)
        return edge.flatten(2), F.max_pool2d(edge, theta, 1, theta // 2).flatten(2)

    (predicted, near_predicted), (actual, near_actual) = edges(p), edges(truth)
    precision = (predicted * near_actual).sum(2) / (predicted.sum(2) + 1e-7)
    recall = (near_predicted * actual).sum(2) / (actual.sum(2) + 1e-7)
    return (1 - 2 * precision * recall / (precision + recall + 1e-7)).mean()


def lovasz(logits: Tensor, labels: Tensor) -> Tensor:
    """Berman's Lovász-Softmax: one float sort per class, differences of the Jaccard index; no ignored pixels.

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W), all below C.

    Returns:
        A scalar.
    """
    return _lovasz(logits.softmax(1), labels)


def _lovasz(p: Tensor, labels: Tensor) -> Tensor:
    flat, truth, parts = p.movedim(1, -1).reshape(-1, p.shape[1]), labels.flatten(), []
    for c in range(p.shape[1]):
        target = (truth == c).to(p.dtype)
        if target.sum() == 0:
            continue
        errors, order = torch.sort((target - flat[:, c]).abs(), descending=True)
        target = target[order]
        size = target.sum()
        jaccard = 1 - (size - target.cumsum(0)) / (size + (1 - target).cumsum(0))
        jaccard[1:] = jaccard[1:] - jaccard[:-1]
        parts.append(torch.dot(errors, jaccard))
    return torch.stack(parts).mean()


def duo(theta0: int, theta: int, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of Lovász-Softmax and boundary loss, over one softmax.

    Args:
        theta0: side of the window that finds boundaries.
        theta: side of the window within which boundaries match.
        logits: (N, C, H, W).
        labels: (N, H, W), all below C.

    Returns:
        A scalar.
    """
    p = logits.softmax(1)
    return (_lovasz(p, labels) + _boundary(theta0, theta, p, labels)) / 2


def ohem_by_numpy(thresh: float, min_kept: int, logits: Tensor, labels: Tensor) -> Tensor:
    """OCNet's rule by a round trip through NumPy: logits out, a smaller label map back in.

    Args:
        thresh: pixels that are right with at most this probability are kept.
        min_kept: pixels that are kept at least.
        logits: (N, C, H, W).
        labels: (N, H, W), 255 is ignored.

    Returns:
        A scalar.
    """
    classes = logits.shape[1]
    scores = np.rollaxis(logits.detach().cpu().numpy(), 1).reshape(classes, -1)
    p = np.exp(scores - scores.max(axis=0))
    p /= p.sum(axis=0)
    truth = labels.cpu().numpy().ravel().astype(np.int64)
    valid = truth != 255
    (places,) = np.nonzero(valid)
    right = p[:, valid][truth[valid], np.arange(len(places))]
    limit = thresh
    if min_kept:
        limit = max(thresh, right[right.argsort()[min(min_kept, len(right)) - 1]])
    hard = np.full_like(truth, 255)
    hard[places[right <= limit]] = truth[places[right <= limit]]
    kept = torch.from_numpy(hard.reshape(labels.shape)).to(logits.device)
    return F.cross_entropy(logits, kept, ignore_index=255)


def ohem_by_sort(thresh: float, min_kept: int, logits: Tensor, labels: Tensor) -> Tensor:
    """Compute mmseg's pixel sampler and cross entropy: gather probabilities, sort valid ones, weigh.

    Args:
        thresh: pixels that are right with less than this probability are kept.
        min_kept: pixels that are kept at least.
        logits: (N, C, H, W).
        labels: (N, H, W), 255 is ignored.

    Returns:
        A scalar.
    """
    with torch.no_grad():
        valid = labels != 255
        index = torch.where(valid, labels, 0).unsqueeze(1)
        right = F.softmax(logits, 1).gather(1, index).squeeze(1)[valid]
        ranked = right.sort().values
        limit = max(ranked[min(min_kept, len(ranked) - 1)].item(), thresh)
        weights = torch.zeros_like(logits[:, 0])
        weights[valid] = (right < limit).to(logits.dtype)
    losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=255)
    return (losses * weights).sum() / weights.sum()
