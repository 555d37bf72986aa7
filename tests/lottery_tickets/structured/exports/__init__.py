"""Exports, written and loaded again."""
