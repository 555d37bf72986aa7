"""What it costs that weights are shared out over processes."""
