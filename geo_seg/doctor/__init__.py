"""The data doctor: what there is in a data set, and what to mend before training."""
