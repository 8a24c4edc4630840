"""Cross entropy over the hard pixels (online hard example mining)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from losses.class_weights import validate_class_weights
from losses.cross_entropy_loss import weight_buffer, weighted_mean
from losses.errors import LossError
from losses.kernels.batch import FusedLoss, LossInputs
from losses.registry import register
from losses.task import Task


class OhemCrossEntropy2d(FusedLoss):
    """Cross entropy over the hard pixels, by OCNet's rule (Yuan and Wang 2018, arXiv 1809.00916).

    A valid pixel is kept if the probability p_y of its label is at most max(thresh, q), where q is the
    min_kept-th smallest p_y of the valid pixels of the whole batch; pixels that tie with q are kept. With
    fewer than min_kept valid pixels, all are kept. With w the class weights (1 without):

        loss = sum of w_y (-log p_y) / sum of w_y, over the kept pixels; 0 if none is kept

    Value in [0, inf).

    Args:
        thresh: pixels that are right with at most this probability are kept, in [0, 1].
        min_kept: pixels of the batch that are kept at least.
        weight: one weight per class, or None.
        ignore_index: label of ignored pixels, or None.

    Raises:
        LossError: an option out of range.
    """

    weight: Tensor | None

    def __init__(
        self,
        thresh: float = 0.6,
        min_kept: int = 0,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = 255,
    ) -> None:
        super().__init__(ignore_index=ignore_index)
        if not 0 <= thresh <= 1:
            raise LossError(f"thresh is a probability, got {thresh}")
        if min_kept < 0:
            raise LossError(f"min_kept must be at least 0, got {min_kept}")
        self.thresh = float(thresh)
        self.min_kept = int(min_kept)
        if weight is not None:
            weight = validate_class_weights(weight, len(weight), "weight")
        self.register_buffer("weight", weight_buffer(weight))

    def forward(self, predict: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            predict: logits (N, C, H, W).
            target: labels (N, H, W) or (N, 1, H, W).

        Returns:
            A scalar in float32 (float64 for logits in float64).
        """
        return super().forward(predict, target)

    def value_and_grad(self, pixels: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Value and gradient, as in FusedLoss."""
        if self.weight is not None and len(self.weight) != pixels.num_classes:
            raise LossError(f"weight has {len(self.weight)} numbers for {pixels.num_classes} classes")
        p = pixels.label_probabilities
        kept = p <= self._limit(p, pixels.valid)
        if pixels.valid is not None:
            kept &= pixels.valid
        weights = kept.to(p.dtype)
        if self.weight is not None:
            weights.mul_(pixels.lookup_by_label(self.weight))
        return weighted_mean(pixels, pixels.cross_entropies(), weights)

    def _limit(self, p: Tensor, valid: Tensor | None) -> Tensor | float:
        rank = min(self.min_kept, p.numel())
        if rank == 0:
            return self.thresh
        hardest = p.flatten() if valid is None else torch.where(valid, p, 2.0).flatten()
        # kthvalue is one slow block on a GPU, and not deterministic there
        on_cpu = p.device.type == "cpu"
        limit = hardest.kthvalue(rank).values if on_cpu else hardest.sort().values[rank - 1]
        return limit.clamp(min=self.thresh)


@register("ohem", modes=("multiclass",))
def ohem(task: Task, *, thresh: float = 0.6, min_kept: int = 0) -> nn.Module:
    """Cross entropy over the hard pixels only.

    Args:
        task: what is learnt; class_weights weigh the kept pixels.
        thresh: pixels that are right with at most this probability are kept, in [0, 1].
        min_kept: pixels of the batch that are kept at least, the hardest ones.

    Returns:
        An `OhemCrossEntropy2d`.
    """
    loss = OhemCrossEntropy2d(thresh, min_kept, task.class_weights, task.ignore_index)
    loss.num_classes = task.num_classes
    return loss
