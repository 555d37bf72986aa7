"""Measuring a model without a trace."""
