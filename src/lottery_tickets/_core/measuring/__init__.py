"""Measuring a model, which is left as it was."""
