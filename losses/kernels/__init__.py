"""Shared code of the losses: batches, validation, fused gradients and reductions."""
