"""What losses share: batches, validation, fused gradients and reductions."""
