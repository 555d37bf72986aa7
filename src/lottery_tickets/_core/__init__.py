"""Mechanisms that several methods share; no promises to users."""
