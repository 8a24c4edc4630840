"""What is counted while a model is evaluated, and what is made of it in the end."""

from dataclasses import replace

from torch import Tensor, nn

from geo_seg.calibration import Calibration, Reliability
from geo_seg.checkpoint import Facts
from geo_seg.data.windows import Batch
from geo_seg.metrics import ConfusionMatrix, Scores, scores
from losses import Task


class Evaluation(nn.Module):
    """Counts the windows of a split, on the device and without waiting for it.

    In validation, classes are decoded as the task says, and a temperature and a threshold are fitted. In a
    test, classes are decoded with those, as inference does.

    Args:
        task: mode, classes and ignore_index.
        facts: names of the classes, and ignore_index.
        num_scenes: of the largest split that is evaluated.
    """

    def __init__(self, task: Task, facts: Facts, num_scenes: int) -> None:
        super().__init__()
        self.task = task
        self.names = facts.class_names
        self.confusion = ConfusionMatrix(task.num_classes, facts.ignore_index, num_scenes)
        self.calibration = Calibration(task)
        self.reliability = Reliability(task)

    def validate(self, logits: Tensor, batch: Batch) -> None:
        """Counts a batch of the validation grid while training."""
        self.confusion.update(self.task.decode(logits), batch["labels"], batch["place"][:, 0])
        self.calibration.update(logits, batch["labels"])

    def end_validation(self, facts: Facts) -> tuple[Scores, Facts]:
        """Scores of the validation split, and the facts with temperature and threshold; begins anew."""
        counts = self.confusion.compute().sum(0)
        self.confusion.reset()
        temperature, threshold = self.calibration.fit()
        return scores(counts, self.names), replace(facts, temperature=temperature, threshold=threshold)

    def test(self, logits: Tensor, batch: Batch, facts: Facts) -> None:
        """Counts a batch of a grid after training."""
        predicted = self.task.decode(logits.float() / facts.temperature, facts.threshold)
        self.confusion.update(predicted, batch["labels"], batch["place"][:, 0])
        self.reliability.update(logits, batch["labels"], facts.temperature)

    def end_test(self, facts: Facts) -> tuple[Scores, Tensor]:
        """Scores of the split, and the confusion matrix of each scene; begins anew."""
        scenes = self.confusion.compute().cpu()
        self.confusion.reset()
        found = scores(scenes.sum(0), self.names)
        found["calibration"] = {
            "temperature": facts.temperature,
            "threshold": facts.threshold,
            **self.reliability.compute(),
        }
        self.reliability.reset()
        return found, scenes
