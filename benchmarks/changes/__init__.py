"""What trainings changed: how often verdicts on it are wrong, and what large checkpoints cost."""
