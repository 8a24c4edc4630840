"""Maps of any size from a trained model, window by window."""
