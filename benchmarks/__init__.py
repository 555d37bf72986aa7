"""Benchmarks: `python -m benchmarks.speed.fisher` and so on; figures go to `benchmarks/results/`."""
