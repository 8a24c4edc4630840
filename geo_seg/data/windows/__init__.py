"""Windows: allowed positions, sampling, reading and batches."""
