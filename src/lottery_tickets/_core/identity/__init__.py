"""What decides a result besides the weights: whether code, data and architecture are those of an earlier run."""
