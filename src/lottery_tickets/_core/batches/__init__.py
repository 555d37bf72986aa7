"""Batches: as samples, in an order that a seed decides, from any position."""
