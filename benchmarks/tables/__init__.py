"""The documentation's tables, made from the figures."""
