"""Training and evaluation: the LightningModule, runs, callbacks, results."""
