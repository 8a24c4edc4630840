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
        thresh: pixels whose label has at most this probability are kept, in [0, 1].
        min_kept: smallest number of pixels of the batch to keep.
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
        """Return the loss of a batch.

        Args:
            predict: logits (N, C, H, W).
            target: labels (N, H, W) or (N, 1, H, W).

        Returns:
            A scalar in float32 (float64 for logits in float64).
        """
        return super().forward(predict, target)

    def value_and_grad(self, inputs: LossInputs) -> tuple[Tensor, Tensor | None]:
        """Return value and gradient, see `FusedLoss`."""
        if self.weight is not None and len(self.weight) != inputs.num_classes:
            raise LossError(f"weight has {len(self.weight)} numbers for {inputs.num_classes} classes")
        pt = inputs.label_probabilities
        keep = pt <= self._threshold(pt, inputs.valid)  # p_y <= max(thresh, q)
        if inputs.valid is not None:
            keep &= inputs.valid
        weights = keep.to(pt.dtype)
        if self.weight is not None:
            weights.mul_(inputs.lookup_by_label(self.weight))
        return weighted_mean(inputs, inputs.cross_entropies(), weights)

    def _threshold(self, pt: Tensor, valid: Tensor | None) -> Tensor | float:
        """Return max(thresh, q), with q the min_kept-th smallest pt of the valid pixels."""
        k = min(self.min_kept, pt.numel())
        if k == 0:
            return self.thresh
        candidates = pt.flatten() if valid is None else torch.where(valid, pt, 2.0).flatten()
        # on a GPU kthvalue runs in a single slow block, and is not deterministic
        on_cpu = pt.device.type == "cpu"
        q = candidates.kthvalue(k).values if on_cpu else candidates.sort().values[k - 1]
        return q.clamp(min=self.thresh)


@register("ohem", modes=("multiclass",))
def ohem(task: Task, *, thresh: float = 0.6, min_kept: int = 0) -> nn.Module:
    """Cross entropy over the hard pixels only.

    Args:
        task: the segmentation task; its class weights weight the kept pixels.
        thresh: pixels whose label has at most this probability are kept, in [0, 1].
        min_kept: smallest number of pixels of the batch to keep, the hardest ones.

    Returns:
        An `OhemCrossEntropy2d`.
    """
    loss = OhemCrossEntropy2d(thresh, min_kept, task.class_weights, task.ignore_index)
    loss.num_classes = task.num_classes
    return loss
