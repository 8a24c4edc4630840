"""Every loss a second time: float64, loops, straight from the papers, sharing nothing with `losses`.

An oracle takes logits (N, C, H, W) in float64, labels (N, H, W), the task and the options of the loss, and
returns a scalar that autograd can differentiate.
"""

import torch

F64 = torch.float64


def pixel_list(logits, labels, task):
    """The valid pixels as a list: logits (P, C) and labels (P,), image after image."""
    rows, numbers = [], []
    for image, label in zip(logits, labels, strict=True):
        flat, lab = image.flatten(1).T, label.flatten().long()
        valid = (
            torch.ones_like(lab, dtype=torch.bool) if task.ignore_index is None else lab != task.ignore_index
        )
        rows.append(flat[valid])
        numbers.append(lab[valid])
    return torch.cat(rows), torch.cat(numbers)


def class_probabilities(logits, task):
    """(P, K) probabilities of all classes; in binary mode background and foreground."""
    if task.mode == "binary":
        foreground = 1 / (1 + torch.exp(-logits[:, 0]))
        return torch.stack([1 - foreground, foreground], 1)
    return logits.softmax(1)


def weights_of(task):
    return torch.tensor(task.class_weights or [1.0] * task.num_classes, dtype=F64)


def cross_entropy(logits, labels, task, smooth_factor=0.0):
    z, y = pixel_list(logits, labels, task)
    w, classes = weights_of(task), z.shape[1]
    top, bottom = z.sum() * 0, 0.0
    for row, label in zip(z, y.tolist(), strict=True):
        log_p = row - row.logsumexp(0)
        loss = -(1 - smooth_factor) * log_p[label]
        for c in range(classes):
            loss = loss - smooth_factor / classes * log_p[c]
        top, bottom = top + w[label] * loss, bottom + w[label]
    return top / bottom if bottom else top


def weighted_cross_entropy(logits, labels, task, weights="sqrt", smooth_factor=0.0):
    if isinstance(weights, str):
        power = {"sqrt": 0.5, "inverse": 1.0}[weights]
        weights = [n**-power if n else 0.0 for n in task.class_counts]
    if task.mode == "binary":
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    z, y = pixel_list(logits, labels, task)
    losses = torch.nn.functional.cross_entropy(z, y, reduction="none", label_smoothing=smooth_factor)
    w = torch.tensor(weights, dtype=F64)[y]
    return (w * losses).sum() / w.sum()


def soft_bce(logits, labels, task, smooth_factor=0.0, pos_weight=None):
    z, y = pixel_list(logits, labels, task)
    total = z.sum() * 0
    for value, label in zip(z[:, 0], y.tolist(), strict=True):
        t = 1 - smooth_factor if label else smooth_factor
        p = torch.sigmoid(value)
        total = total - (pos_weight or 1.0) * t * torch.log(p) - (1 - t) * torch.log(1 - p)
    return total / max(len(y), 1)


def focal(logits, labels, task, gamma=2.0, alpha=None):
    z, y = pixel_list(logits, labels, task)
    if task.mode == "binary":
        channels, w = [(z[:, 0], y == 1)], torch.ones(1, dtype=F64)
    else:
        channels, w = [(z[:, c], y == c) for c in range(z.shape[1])], weights_of(task)
    total = z.sum() * 0
    for weight, (score, target) in zip(w, channels, strict=True):
        p = torch.sigmoid(score)
        q = torch.where(target, p, 1 - p)
        a = 1.0 if alpha is None else torch.where(target, alpha, 1 - alpha)
        total = total + weight * (a * (1 - q) ** gamma * -torch.log(q)).mean()
    return total / w.sum()


def softmax_focal(logits, labels, task, gamma=2.0, alpha=None, reduction="mean"):
    z, y = pixel_list(logits, labels, task)
    a = torch.tensor(alpha, dtype=F64) if alpha else weights_of(task)
    p = z.softmax(1)[torch.arange(len(y)), y]
    losses = a[y] * (1 - p) ** gamma * -torch.log(p)
    return losses.sum() if reduction == "sum" else losses.mean()


def confusion(logits, labels, task):
    """Soft confusion matrix, (predicted class, actual class)."""
    z, y = pixel_list(logits, labels, task)
    p = class_probabilities(z, task)
    columns = [p[y == k].sum(0) for k in range(task.num_classes)]
    return torch.stack(columns, 1)


def counted_classes(cells, task, classes):
    present = [k for k in range(task.num_classes) if cells[:, k].sum() > 0]
    if task.mode == "binary":
        return [1] if 1 in present or classes == "all" else present
    if classes == "all":
        return list(range(task.num_classes))
    return [k for k in present if classes == "present" or k in classes]


def tversky(
    logits, labels, task, alpha=0.5, beta=0.5, gamma=1.0, smooth=0.0, log_loss=False, classes="present"
):
    cells = confusion(logits, labels, task)
    w = weights_of(task)
    total, weight = cells.sum() * 0, 0.0
    for k in counted_classes(cells, task, classes):
        weight = weight + w[k]
        if cells[:, k].sum() == 0:
            continue  # smp: an absent class counts as 0
        hit = cells[k, k]
        false_positive = cells[k].sum() - hit
        false_negative = cells[:, k].sum() - hit
        index = (hit + smooth) / (hit + alpha * false_positive + beta * false_negative + smooth)
        total = total + w[k] * (-torch.log(index) if log_loss else (1 - index) ** gamma)
    return total / weight


def dice(logits, labels, task, smooth=0.0, log_loss=False, classes="present"):
    return tversky(logits, labels, task, smooth=smooth / 2, log_loss=log_loss, classes=classes)


def jaccard(logits, labels, task, smooth=0.0, log_loss=False, classes="present"):
    return tversky(logits, labels, task, 1.0, 1.0, smooth=smooth, log_loss=log_loss, classes=classes)


def focal_tversky(logits, labels, task, alpha=0.3, beta=0.7, gamma=0.75, smooth=0.0, classes="present"):
    return tversky(logits, labels, task, alpha, beta, gamma, smooth, classes=classes)


def generalized_dice(logits, labels, task):
    cells = confusion(logits, labels, task)
    sizes = [cells[:, k].sum().item() for k in range(task.num_classes)]
    rarest = min(round(n) for n in sizes if n > 0.5)
    top, bottom = cells.sum() * 0, 0.0
    for k, n in enumerate(sizes):
        w = 1 / round(n) ** 2 if n > 0.5 else 1 / rarest**2
        top = top + w * cells[k, k]
        bottom = bottom + w * (cells[k].sum() + cells[:, k].sum())
    return 1 - 2 * top / bottom


def mcc(logits, labels, task):
    """Gorodkin's three-index sum, over the soft confusion matrix."""
    c = confusion(logits, labels, task)
    size, n = c.shape[0], c.sum()
    covariance = n * torch.trace(c) - sum(c[k].sum() * c[:, k].sum() for k in range(size))
    predicted = n**2 - sum(c[k].sum() ** 2 for k in range(size))
    actual = n**2 - sum(c[:, k].sum() ** 2 for k in range(size))
    if actual < 0.5:
        return 1 - torch.trace(c) / n
    return 1 - covariance / torch.sqrt(predicted * actual)


def jaccard_of_mistakes(target, wrong):
    """Jaccard loss of a prediction that is wrong at exactly these pixels."""
    predicted = target ^ wrong
    union = (target | predicted).sum().item()
    return 1 - (target & predicted).sum().item() / union if union else 0.0


def lovasz_of(errors, target):
    """Lovász extension of the Jaccard loss: add the pixels to the mistakes one after the other."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i].item())
    wrong = torch.zeros_like(target)
    total, before = errors.sum() * 0, 0.0
    for i in order:
        wrong[i] = True
        now = jaccard_of_mistakes(target, wrong)
        total, before = total + errors[i] * (now - before), now
    return total


def lovasz(logits, labels, task, per_image=False, classes="present"):
    groups = (
        [(logits[i : i + 1], labels[i : i + 1]) for i in range(len(logits))]
        if per_image
        else [(logits, labels)]
    )
    means = []
    for z, y in groups:
        scores, lab = pixel_list(z, y, task)
        if len(lab) == 0:
            continue
        if task.mode == "binary":
            sign = 2 * lab.to(F64) - 1
            means.append(lovasz_of((1 - scores[:, 0] * sign).clamp(min=0), lab == 1))
            continue
        p, parts = scores.softmax(1), []
        for k in range(p.shape[1]):
            target = lab == k
            if classes == "all" or (target.any() and (classes == "present" or k in classes)):
                parts.append(lovasz_of((target.to(F64) - p[:, k]).abs(), target))
        if parts:
            means.append(sum(parts) / len(parts))
    return sum(means) / len(means) if means else logits.sum() * 0


def ohem(logits, labels, task, thresh=0.6, min_kept=0):
    z, y = pixel_list(logits, labels, task)
    w = weights_of(task)
    p = z.softmax(1)[torch.arange(len(y)), y]
    ranked = sorted(p.tolist())
    limit = max(thresh, ranked[min(min_kept, len(ranked)) - 1]) if min_kept else thresh
    top, bottom = z.sum() * 0, 0.0
    for i, label in enumerate(y.tolist()):
        if p[i] <= limit:
            top, bottom = top - w[label] * torch.log(p[i]), bottom + w[label]
    return top / bottom if bottom else top


def pool(values, valid, side):
    """Largest valid value in the window around every pixel; windows end at the border."""
    height, width = values.shape
    reach = side // 2
    rows = []
    for i in range(height):
        for j in range(width):
            window = (slice(max(i - reach, 0), i + reach + 1), slice(max(j - reach, 0), j + reach + 1))
            inside = values[window][valid[window]]
            rows.append(inside.max() if len(inside) else values[i, j] * 0)
    return torch.stack(rows).view(height, width)


def boundary(logits, labels, task, theta0=3, theta=3, classes="present"):
    scores = []
    for z, lab in zip(logits, labels, strict=True):
        valid = (
            torch.ones_like(lab, dtype=torch.bool) if task.ignore_index is None else lab != task.ignore_index
        )
        p = z.softmax(0)
        for k in range(task.num_classes):
            y = (lab == k).to(F64)
            edge_y = (pool(1 - y, valid, theta0) - (1 - y)) * valid
            edge_p = (pool(1 - p[k], valid, theta0) - (1 - p[k])) * valid
            actual, predicted = edge_y.sum(), edge_p.sum()
            if actual > 0:
                precision = (edge_p * pool(edge_y, valid, theta) * valid).sum() / predicted
                recall = (edge_y * pool(edge_p, valid, theta) * valid).sum() / actual
                scores.append(1 - 2 * precision * recall / (precision + recall))
            elif classes == "all" and valid.any():
                scores.append(1 + 0 * predicted)
    return sum(scores) / len(scores) if scores else logits.sum() * 0


def duo(logits, labels, task, theta0=5, theta=9, per_image=False):
    return (lovasz(logits, labels, task, per_image) + boundary(logits, labels, task, theta0, theta)) / 2


def compound(logits, labels, task, terms=None):
    parts = {
        "dice": dice,
        "focal": focal,
        "boundary": boundary,
        "lovasz": lovasz,
        "cross_entropy": cross_entropy,
    }
    total = logits.sum() * 0
    for name, weight in (terms or {"dice": 1, "focal": 1}).items():
        total = total + weight * parts[name](logits, labels, task)
    return total
