"""Training: one LightningModule for every model and loss."""
