"""What a model's probabilities are worth: temperature, threshold, and how far confidence is from accuracy."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from losses import Task

_TEMPERATURES = 49  # from 0.1 to 10, each 1.1 times the one before, 1 in the middle
_PIXELS = 4096  # of a window that the temperature is fitted to: neighbours say the same
_STEP = 1 / 32  # of the logits between two thresholds that are tried
_RANGE = 16  # logits beyond it are as good as certain
_SURE = 1e-6  # thresholds nearer to 0 or 1 would be lost in float32
_BINS = 15  # of confidence, as in Guo et al. 2017


class TemperatureScaling(Metric):
    """The temperature that gives validation pixels the highest likelihood (Guo et al. 2017), in one pass.

    Logits are divided by it before they become probabilities; it doesn't change which class is the most
    likely. The negative log-likelihood is a convex function of 1 / temperature: it is summed on a grid and
    its minimum read off a parabola through the three lowest values.

    Args:
        task: how logits become probabilities, and which label isn't counted.
    """

    full_state_update = False
    nll: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.logs: list[float] = torch.linspace(-1, 1, _TEMPERATURES, dtype=torch.double).tolist()  # base 10
        self.add_state("nll", torch.zeros(_TEMPERATURES, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Counts a batch.

        Args:
            logits: (N, channels, H, W).
            labels: (N, H, W) class ids or ignore_index.
        """
        size = labels[0].numel()
        chosen = torch.arange(min(size, _PIXELS), device=labels.device)
        if size > _PIXELS:  # multiples of the golden ratio lie evenly, whatever the width of the window
            chosen = ((chosen.double() * 0.6180339887498949) % 1 * size).long()
        seen = logits.flatten(2)[:, :, chosen, None].float()  # (N, channels, pixels, 1)
        found = labels.flatten(1)[:, chosen, None].long()
        valid = valid_mask(found, self.task.ignore_index)
        target = torch.where(valid, found, 0).unsqueeze(1)
        for number, log in enumerate(self.logs):
            likelihood = self.task.log_probabilities(seen / 10**log).gather(1, target)[:, 0]
            self.nll[number] -= torch.where(valid, likelihood, 0.0).sum().double()

    def compute(self) -> Tensor:
        """The temperature, from 0.1 to 10; 1 where there is nothing to fit it to."""
        if not self.nll.isfinite().all() or not self.nll.any():
            return torch.ones_like(self.nll[0])
        best = int(self.nll.argmin())
        log = torch.full_like(self.nll[0], self.logs[best])
        if 0 < best < _TEMPERATURES - 1:
            before, least, after = self.nll[best - 1 : best + 2]
            bend = before - 2 * least + after
            if bend > 0:
                log = log + (before - after) / (2 * bend) * (self.logs[1] - self.logs[0])
        return 10**log


class ThresholdTuning(Metric):
    """The logit above which a pixel should be foreground: the one with the highest mean IoU.

    Args:
        ignore_index: label of pixels that aren't counted.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, ignore_index: int | None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        bins = 2 * int(_RANGE / _STEP)
        self.add_state("counts", torch.zeros(2, bins, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Counts a batch.

        Args:
            logits: (N, 1, H, W), of the foreground.
            labels: (N, H, W) 0, 1 or ignore_index.
        """
        bins = self.counts.shape[1]
        place = (logits[:, 0].float().nan_to_num(0.0) / _STEP).ceil() + bins // 2 - 1
        cell = labels.long() * bins + place.clamp(0, bins - 1).long()  # a bin holds its upper end
        cell = torch.where(valid_mask(labels, self.ignore_index), cell, 2 * bins)
        self.counts += torch.bincount(cell.flatten(), minlength=2 * bins + 1)[: 2 * bins].view(2, bins)

    def compute(self) -> Tensor:
        """The logit; 0, a probability of a half, where one of the classes is not there."""
        background, foreground = self.counts.double()
        bins = self.counts.shape[1]
        cuts = (torch.arange(bins, device=background.device) - bins // 2) * _STEP
        if not background.any() or not foreground.any():
            return cuts[bins // 2]
        low, missed = background.cumsum(0) - background, foreground.cumsum(0) - foreground  # at or below
        false, hit = background.sum() - low, foreground.sum() - missed
        score = hit / (foreground.sum() + false) + low / (background.sum() + missed)
        best = (score >= score.max() - 1e-12).nonzero()[:, 0]
        return cuts[best[cuts[best].abs().argmin()]]  # of equally good ones that nearest to a half


class Calibration(nn.Module):
    """Temperature and threshold, fitted to validation pixels.

    Args:
        task: how logits become probabilities, and which label isn't counted.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.temperature = TemperatureScaling(task)
        self.threshold = ThresholdTuning(task.ignore_index) if task.binary else None

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Counts a batch; see TemperatureScaling."""
        self.temperature.update(logits, labels)
        if self.threshold is not None:
            self.threshold.update(logits, labels)

    def fit(self) -> tuple[float, float]:
        """Temperature and threshold of all that was counted, which is forgotten then.

        The threshold is for the probability of the foreground after the temperature, 0.5 for other tasks.
        """
        temperature, threshold = float(self.temperature.compute()), 0.5
        self.temperature.reset()
        if self.threshold is not None:
            odds = math.exp(-float(self.threshold.compute()) / temperature)
            threshold = min(max(1 / (1 + odds), _SURE), 1 - _SURE)
            self.threshold.reset()
        return temperature, threshold


class CalibrationError(Metric):
    """How often predictions of a confidence are right, before and after the temperature.

    Args:
        task: how logits become probabilities, and which label isn't counted.
    """

    full_state_update = False
    bin_sums: Tensor
    nll: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.add_state("bin_sums", torch.zeros(2, 3, _BINS, dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("nll", torch.zeros(2, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor, temperature: float) -> None:
        """Count a batch.

        Args:
            probabilities: (N, classes, H, W) after the temperature.
            labels: (N, H, W) class ids or ignore_index.
            temperature: that the logits were divided by: what the probabilities were before it is p^t,
                made to sum to 1.
        """
        valid = valid_mask(labels, self.task.ignore_index)
        target = torch.where(valid, labels, 0).long()
        scaled = probabilities.float().clamp(min=torch.finfo(torch.float32).tiny).log()
        for row, logs in enumerate(((temperature * scaled).log_softmax(dim=1), scaled)):
            best = logs.max(dim=1)
            confidence = best.values.exp().double().nan_to_num(0.0)  # of a model that has diverged
            place = (confidence * _BINS).long().clamp(max=_BINS - 1)
            place = torch.where(valid, place, _BINS).flatten()  # ignored pixels go to a bin of their own
            likelihood = logs.gather(1, target.unsqueeze(1))[:, 0]
            self.nll[row] -= torch.where(valid, likelihood, 0.0).sum(dtype=torch.double)
            right = (best.indices == target).double()
            for part, value in enumerate((torch.ones_like(confidence), confidence, right)):
                total = torch.zeros(_BINS + 1, dtype=torch.double, device=value.device)
                self.bin_sums[row, part] += total.index_add_(0, place, value.flatten())[:_BINS]

    def compute(self) -> dict[str, Any]:
        """Plain numbers, None where there is no pixel, each for probabilities before and after.

        Returns:
            ece (expected calibration error: mean distance of confidence and accuracy, 0 to 1), nll (mean
            negative log-likelihood), and per bin of confidence pixels, confidence and accuracy, under "raw"
            and "scaled".
        """
        return {
            name: self._row(self.bin_sums[row].tolist(), float(self.nll[row]))
            for row, name in enumerate(("raw", "scaled"))
        }

    @staticmethod
    def _row(sums: list[list[float]], cost: float) -> dict[str, Any]:
        pixels, confidence, right = sums
        total = sum(pixels)
        gaps = sum(abs(c - r) for c, r in zip(confidence, right, strict=True))
        return {
            "ece": gaps / total if total else None,
            "nll": cost / total if total and math.isfinite(cost) else None,
            "pixels": [int(n) for n in pixels],
            "confidence": [c / n if n else None for c, n in zip(confidence, pixels, strict=True)],
            "accuracy": [r / n if n else None for r, n in zip(right, pixels, strict=True)],
        }


def valid_mask(labels: Tensor, ignore_index: int | None) -> Tensor:
    """Return which pixels count: those whose label is not ignore_index."""
    return torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels.ne(ignore_index)
