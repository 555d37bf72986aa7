"""Benchmarks and studies of checkpoints and of language models."""
