"""Calibration: temperature scaling, threshold tuning and expected calibration error."""

import math

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from geo_seg.metrics.scores import CalibrationScores, Reliability
from losses import Task

_TEMPERATURES = 49  # from 0.1 to 10, each 1.1 times the one before, 1 in the middle
_MAX_PIXELS = 4096  # of a window that the temperature is fitted to: neighbouring pixels are correlated
_LOGIT_STEP = 1 / 32  # between two candidate thresholds
_MAX_LOGIT = 16  # a threshold beyond it would be as good as certain
_MIN_PROBABILITY = 1e-6  # thresholds nearer to 0 or 1 would be lost in float32
_NUM_BINS = 15  # of confidence, as in Guo et al. 2017


class TemperatureScaling(Metric):
    """Temperature scaling in one pass: the temperature with the highest likelihood (Guo et al. 2017).

    Logits are divided by the temperature before they become probabilities, which doesn't change the most
    likely class. The negative log-likelihood is a convex function of 1 / temperature: it is summed on a grid
    and its minimum is read off a parabola through the three lowest values.

    Args:
        task: converts logits to probabilities and has the ignore_index.
    """

    full_state_update = False
    nll: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        exponents = torch.linspace(-1, 1, _TEMPERATURES, dtype=torch.double)
        self.log10_temperatures: list[float] = exponents.tolist()
        self.add_state("nll", torch.zeros(_TEMPERATURES, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            logits: (N, channels, H, W).
            labels: (N, H, W) class ids or ignore_index.
        """
        size = labels[0].numel()
        sample = torch.arange(min(size, _MAX_PIXELS), device=labels.device)
        if size > _MAX_PIXELS:  # multiples of the golden ratio lie evenly, whatever the width of the window
            sample = ((sample.double() * 0.6180339887498949) % 1 * size).long()
        logits = logits.flatten(2)[:, :, sample, None].float()  # (N, channels, pixels, 1)
        labels = labels.flatten(1)[:, sample, None].long()
        valid = valid_mask(labels, self.task.ignore_index)
        target = torch.where(valid, labels, 0).unsqueeze(1)
        for index, exponent in enumerate(self.log10_temperatures):
            log_likelihood = self.task.log_probabilities(logits / 10**exponent).gather(1, target)[:, 0]
            self.nll[index] -= torch.where(valid, log_likelihood, 0.0).sum().double()

    def compute(self) -> Tensor:
        """Return the temperature, from 0.1 to 10; 1 where there is no pixel to fit it to."""
        if not self.nll.isfinite().all() or not self.nll.any():
            return torch.ones_like(self.nll[0])
        best = int(self.nll.argmin())
        exponent = torch.full_like(self.nll[0], self.log10_temperatures[best])
        if 0 < best < _TEMPERATURES - 1:
            before, lowest, after = self.nll[best - 1 : best + 2]
            curvature = before - 2 * lowest + after
            if curvature > 0:
                step = self.log10_temperatures[1] - self.log10_temperatures[0]
                exponent = exponent + (before - after) / (2 * curvature) * step
        return 10**exponent


class ThresholdTuning(Metric):
    """Threshold of the foreground logit with the highest mean IoU.

    Args:
        ignore_index: label of pixels that are left out; None for none.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, ignore_index: int | None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        bins = 2 * int(_MAX_LOGIT / _LOGIT_STEP)
        self.add_state("counts", torch.zeros(2, bins, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            logits: (N, 1, H, W), of the foreground.
            labels: (N, H, W) 0, 1 or ignore_index.
        """
        bins = self.counts.shape[1]
        index = (logits[:, 0].float().nan_to_num(0.0) / _LOGIT_STEP).ceil() + bins // 2 - 1
        cell = labels.long() * bins + index.clamp(0, bins - 1).long()  # a bin includes its upper end
        cell = torch.where(valid_mask(labels, self.ignore_index), cell, 2 * bins)
        self.counts += torch.bincount(cell.flatten(), minlength=2 * bins + 1)[: 2 * bins].view(2, bins)

    def compute(self) -> Tensor:
        """Return the logit; 0, a probability of 0.5, where one of the classes has no pixel."""
        background, foreground = self.counts.double()
        bins = self.counts.shape[1]
        thresholds = (torch.arange(bins, device=background.device) - bins // 2) * _LOGIT_STEP
        if not background.any() or not foreground.any():
            return thresholds[bins // 2]
        # per threshold: logits at or below it are background
        true_negative, false_negative = background.cumsum(0) - background, foreground.cumsum(0) - foreground
        false_positive, true_positive = background.sum() - true_negative, foreground.sum() - false_negative
        foreground_iou = true_positive / (foreground.sum() + false_positive)
        score = foreground_iou + true_negative / (background.sum() + false_negative)
        best = (score >= score.max() - 1e-12).nonzero()[:, 0]
        return thresholds[best[thresholds[best].abs().argmin()]]  # the nearest to 0.5 among equals


class Calibration(nn.Module):
    """Temperature scaling and threshold tuning on the same validation pixels.

    Args:
        task: converts logits to probabilities and has the ignore_index.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.temperature = TemperatureScaling(task)
        self.threshold = ThresholdTuning(task.ignore_index) if task.binary else None

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch; see TemperatureScaling."""
        self.temperature.update(logits, labels)
        if self.threshold is not None:
            self.threshold.update(logits, labels)

    def fit(self) -> tuple[float, float]:
        """Return temperature and threshold for the counted batches, and reset.

        The threshold applies to the foreground probability after temperature scaling; 0.5 for multiclass.
        """
        temperature, threshold = float(self.temperature.compute()), 0.5
        self.temperature.reset()
        if self.threshold is not None:
            odds = math.exp(-float(self.threshold.compute()) / temperature)
            threshold = min(max(1 / (1 + odds), _MIN_PROBABILITY), 1 - _MIN_PROBABILITY)
            self.threshold.reset()
        return temperature, threshold


class CalibrationError(Metric):
    """Expected calibration error, NLL and reliability bins, before and after temperature scaling.

    Args:
        task: converts logits to probabilities and has the ignore_index.
    """

    full_state_update = False
    bin_sums: Tensor
    nll: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.add_state("bin_sums", torch.zeros(2, 3, _NUM_BINS, dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("nll", torch.zeros(2, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor, temperature: float) -> None:
        """Count a batch.

        Args:
            probabilities: (N, classes, H, W) after temperature scaling.
            labels: (N, H, W) class ids or ignore_index.
            temperature: that the logits were divided by; the probabilities without it are p^temperature,
                normalised to sum to 1.
        """
        valid = valid_mask(labels, self.task.ignore_index)
        target = torch.where(valid, labels, 0).long()
        scaled = probabilities.float().clamp(min=torch.finfo(torch.float32).tiny).log()
        for row, log_probabilities in enumerate(((temperature * scaled).log_softmax(dim=1), scaled)):
            best = log_probabilities.max(dim=1)
            confidence = best.values.exp().double().nan_to_num(0.0)  # NaN if the model has diverged
            index = (confidence * _NUM_BINS).long().clamp(max=_NUM_BINS - 1)
            index = torch.where(valid, index, _NUM_BINS).flatten()  # ignored pixels go to a bin of their own
            log_likelihood = log_probabilities.gather(1, target.unsqueeze(1))[:, 0]
            self.nll[row] -= torch.where(valid, log_likelihood, 0.0).sum(dtype=torch.double)
            correct = (best.indices == target).double()
            for part, value in enumerate((torch.ones_like(confidence), confidence, correct)):
                total = torch.zeros(_NUM_BINS + 1, dtype=torch.double, device=value.device)
                self.bin_sums[row, part] += total.index_add_(0, index, value.flatten())[:_NUM_BINS]

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return (2, 3, bins) sums of pixels, confidence and correct pixels, and (2,) of the NLL."""
        return self.bin_sums, self.nll

    def scores(self, temperature: float, threshold: float) -> CalibrationScores:
        """Return the reliability before and after temperature scaling, with the fitted values.

        Args:
            temperature: that the logits were divided by.
            threshold: of the foreground probability.
        """
        bin_sums, nll = self.compute()
        raw, scaled = map(_reliability, bin_sums.tolist(), nll.tolist())
        return CalibrationScores(temperature, threshold, raw, scaled)


def _reliability(bin_sums: list[list[float]], nll: float) -> Reliability:
    pixels, confidence, correct = bin_sums
    total = sum(pixels)
    gaps = sum(abs(conf - acc) for conf, acc in zip(confidence, correct, strict=True))
    return Reliability(
        ece=gaps / total if total else None,
        nll=nll / total if total and math.isfinite(nll) else None,
        pixels=[int(n) for n in pixels],
        confidence=[c / n if n else None for c, n in zip(confidence, pixels, strict=True)],
        accuracy=[c / n if n else None for c, n in zip(correct, pixels, strict=True)],
    )


def valid_mask(labels: Tensor, ignore_index: int | None) -> Tensor:
    """Return a bool mask of the pixels whose label is not ignore_index."""
    return torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels.ne(ignore_index)
