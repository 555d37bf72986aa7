"""One stream of per-sample gradients: forward and backward once a batch, each weight's gradients reduced and let go."""
