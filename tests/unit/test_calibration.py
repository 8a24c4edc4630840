"""Temperature, threshold and reliability equal what float64 loops over the pixels give."""

import math

import pytest
import torch

from geo_seg.metrics.calibration import Calibration, CalibrationError, TemperatureScaling, ThresholdTuning
from losses import Task


def drawn(
    channels: int, seed: int = 0, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits whose labels follow their probabilities, times a scale; labels; labels with ignored pixels."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, channels, 40, 30, generator=draw) * 2
    p = torch.softmax(logits, 1) if channels > 1 else torch.cat([torch.sigmoid(-logits), logits.sigmoid()], 1)
    flat = p.permute(0, 2, 3, 1).flatten(0, 2)
    labels = torch.multinomial(flat, 1, generator=draw).view(3, 40, 30)
    holes = labels.clone()
    holes[torch.rand(labels.shape, generator=draw) < 0.3] = 255
    return logits * scale, labels, holes


def likelihoods(logits: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Negative log-likelihood of each valid pixel in float64."""
    z = logits.double() / temperature
    z = torch.cat([torch.zeros_like(z), z], 1) if z.shape[1] == 1 else z
    rows = z.permute(0, 2, 3, 1)[labels != 255]
    return torch.nn.functional.cross_entropy(rows, labels[labels != 255], reduction="none")


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_temperature_is_that_of_the_highest_likelihood(channels: int, scale: float) -> None:
    task = Task("binary" if channels == 1 else "multiclass", max(channels, 2))
    logits, _, labels = drawn(channels, scale=scale)
    logits[(labels == 255)[:, None].expand_as(logits)] = math.nan  # ignored pixels say nothing
    metric = TemperatureScaling(task)
    for part in range(3):  # 1200 pixels each: all of them are looked at
        metric.update(logits[part : part + 1], labels[part : part + 1].short())
    found = float(metric.compute())
    grid = torch.logspace(-1, 1, 501, dtype=torch.double).tolist()
    best = min(grid, key=lambda t: float(likelihoods(logits, labels, t).sum()))
    assert found == pytest.approx(best, rel=1e-2)  # the oracle's grid is that coarse
    assert found == pytest.approx(scale, rel=0.15)


def test_a_large_window_is_thinned_out_evenly() -> None:
    logits, _, labels = drawn(4, scale=2.0)
    large, wide = logits.repeat(1, 1, 8, 8), labels.repeat(1, 8, 8)
    whole, thin = TemperatureScaling(Task("multiclass", 4)), TemperatureScaling(Task("multiclass", 4))
    whole.update(logits, labels)
    thin.update(large, wide)
    assert float(thin.compute()) == pytest.approx(float(whole.compute()), rel=0.05)


def test_without_valid_or_finite_pixels_the_temperature_is_one() -> None:
    metric = TemperatureScaling(Task("multiclass", 3))
    metric.update(torch.randn(1, 3, 4, 4), torch.full((1, 4, 4), 255))
    assert float(metric.compute()) == 1
    metric.update(torch.full((1, 3, 4, 4), math.nan), torch.zeros(1, 4, 4, dtype=torch.long))
    assert float(metric.compute()) == 1


@pytest.mark.parametrize("shift", [-2.0, 0.0, 3.0])
def test_the_threshold_gives_the_highest_mean_iou(shift: float) -> None:
    logits, _, labels = drawn(1)
    logits = logits + shift
    metric = ThresholdTuning(255)
    for part in range(3):
        metric.update(logits[part : part + 1], labels[part : part + 1])

    def mean_iou(cut: float) -> float:
        guess, truth = (logits[:, 0] > cut)[labels != 255], labels[labels != 255] == 1
        ious = [(a & b).sum() / (a | b).sum() for a, b in ((guess, truth), (~guess, ~truth))]
        return float(sum(ious)) / 2

    best = max(mean_iou(k / 32) for k in range(-512, 512))
    assert mean_iou(float(metric.compute())) == pytest.approx(best, abs=1e-7)


def test_the_threshold_is_a_half_where_a_class_is_missing_or_nothing_is_better() -> None:
    metric = ThresholdTuning(255)
    metric.update(torch.tensor([[[[-3.0, 2.0]]]]), torch.tensor([[[1, 1]]]))
    assert float(metric.compute()) == 0
    metric.reset()
    metric.update(torch.tensor([[[[-5.0, 4.0]]]]), torch.tensor([[[0, 1]]]))
    assert float(metric.compute()) == 0  # every cut between -5 and 4 is perfect


def test_the_threshold_holds_after_the_temperature() -> None:
    task = Task("binary")
    logits, _, labels = drawn(1, scale=2.5)
    logits = logits + 2
    calibration = Calibration(task)
    calibration.update(logits, labels)
    cut = float(calibration.threshold.compute()) if calibration.threshold else 0.0
    temperature, threshold = calibration.fit()
    assert cut != 0
    assert torch.equal(task.decode(logits / temperature, threshold), (logits[:, 0] > cut).long())
    calibration.update(logits, torch.full_like(labels, 255))  # nothing is left of what was counted before
    assert calibration.fit() == (1.0, 0.5)


@pytest.mark.parametrize("channels", [1, 4])
def test_reliability_equals_a_loop_over_the_pixels(channels: int) -> None:
    task = Task("binary" if channels == 1 else "multiclass", max(channels, 2))
    logits, _, labels = drawn(channels, scale=3.0)
    metric = CalibrationError(task)
    for part in range(3):
        metric.update(task.probabilities(logits[part : part + 1] / 2), labels[part : part + 1].short(), 2.0)
    for name, temperature in (("raw", 1.0), ("scaled", 2.0)):
        found = getattr(metric.scores(2.0, 0.5), name)
        bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
        z = logits / temperature
        z = torch.cat([torch.zeros_like(z), z], 1) if channels == 1 else z
        p = torch.softmax(z, 1).max(1)
        for confidence, guess, label in zip(
            p.values.flatten().tolist(), p.indices.flatten().tolist(), labels.flatten().tolist(), strict=True
        ):
            if label != 255:
                bins[min(int(confidence * 15), 14)].append((confidence, guess == label))
        count = sum(map(len, bins))
        ece = sum(abs(sum(c for c, _ in part) - sum(r for _, r in part)) for part in bins) / count
        assert found.ece == pytest.approx(ece, abs=1e-6)
        assert found.nll == pytest.approx(float(likelihoods(logits, labels, temperature).mean()), rel=1e-5)
        assert sum(found.pixels) == count
        for part, confidence, accuracy in zip(bins, found.confidence, found.accuracy, strict=True):
            if len(part) > 20:  # a pixel on the edge of a bin may fall to either side
                assert confidence == pytest.approx(sum(c for c, _ in part) / len(part), abs=1e-2)
                assert accuracy == pytest.approx(sum(r for _, r in part) / len(part), abs=0.1)


def test_no_pixel_gives_no_reliability() -> None:
    metric = CalibrationError(Task("multiclass", 3))
    metric.update(torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 255), 1.0)
    found = metric.scores(1.0, 0.5)
    assert found.raw.ece is None and found.scaled.nll is None


def test_a_model_that_has_diverged_is_counted_as_sure_of_nothing() -> None:
    metric = CalibrationError(Task("multiclass", 3))
    metric.update(torch.full((1, 3, 2, 2), torch.nan), torch.zeros(1, 2, 2, dtype=torch.long), 1.0)
    found = metric.scores(1.0, 0.5).raw
    assert (found.ece, found.nll, found.pixels[0]) == (pytest.approx(1.0), None, 4)
