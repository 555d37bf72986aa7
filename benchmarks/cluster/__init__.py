"""Benchmarks of experiments on engines of others."""
