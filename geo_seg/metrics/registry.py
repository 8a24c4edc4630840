"""Interface and registry of the metrics of predicted classes, which validation and test count alike."""

from abc import abstractmethod
from typing import Any, Self, TypeVar

from torch import Tensor
from torchmetrics import Metric

import geo_seg.metrics
from geo_seg.errors import ConfigError
from geo_seg.runtime.registration import import_modules
from losses import Task


class SegmentationMetric(Metric):
    """A metric of predicted classes, counted window by window and summed over processes.

    Its states are those of torchmetrics: `add_state(..., dist_reduce_fx="sum")` in the constructor.

    Args:
        task: classes and ignore_index.
    """

    full_state_update = False

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    @classmethod
    def of(cls, task: Task, boundary: float) -> Self | None:
        """Return the metric for a task and evaluation.boundary; None to leave it out."""
        return cls(task)

    @abstractmethod
    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Count windows.

        Args:
            predicted: (N, H, W) class ids.
            labels: (N, H, W) class ids or the task's ignore_index.
        """

    @abstractmethod
    def scores(self) -> dict[str, Any]:
        """Return plain numbers by name, None where they are not defined; `self.compute()` sums processes.

        Numbers of the split are logged and written to metrics.json; those of each class, under "classes" as a
        list of dicts, are added to its scores, and to classes.csv.
        """


_METRICS: dict[str, type[SegmentationMetric]] = {}
M = TypeVar("M", bound=type[SegmentationMetric])


def register_metric(metric: M) -> M:
    """Register a metric; a decorator.

    Raises:
        ConfigError: another metric has its name.
    """
    known = _METRICS.get(metric.__name__)
    if known is not None and known.__module__ != metric.__module__:
        places = f"in {known.__module__} and {metric.__module__}"
        raise ConfigError(f"two metrics are named {metric.__name__}: {places}")
    _METRICS[metric.__name__] = metric
    return metric


def requested_metrics(task: Task, boundary: float) -> list[SegmentationMetric]:
    """Return the registered metrics for a task; see SegmentationMetric.of."""
    import_modules(geo_seg.metrics)
    metrics = (metric.of(task, boundary) for metric in _METRICS.values())
    return [metric for metric in metrics if metric is not None]
