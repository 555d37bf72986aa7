"""Weights that are shared out over processes: which part lies here, and how all come to one result."""
