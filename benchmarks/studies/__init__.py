"""What tickets, scores and verdicts are worth, on real data."""
